"""Grammar of the fictional news, part 1:
councils, courts, police, science (the notation is described in grammar.py)."""

TOPICS = r"""
# council vote
= t:name p:person votes:120-980 street:name cost:2100-9800 q:person day:date
a Councillors in {t} [voted|decided] late on {day} to close the swimming baths on {street} Road for good.
a On {day} a stormy meeting at {t} town hall ended the long life of the baths in {street} Road.
a The public pool beside {street} Road, {t}'s last, was condemned by its own councillors on {day}.
b A petition with {votes} signatures, [carried in by schoolchildren|delivered in a wheelbarrow], changed nobody's mind.
b Only {votes} residents answered the survey, far fewer than campaigners had hoped for.
b Outside, a crowd that police put at {votes} sang sea shanties until the windows were shut.
c Mayor {p} argued that patching the roof again would swallow {cost} crowns every month.
c "We are burning {cost} crowns a month on leaks," complained {p}, who has led the council since spring.
c According to the mayor, {p}, heating alone devours {cost} crowns monthly, more than all the libraries together.
d Swimming coach {q} broke down in the gallery and promised to chain herself to the diving board.
d Among those shouting from the back was {q}, a lifeguard there for half of her life.
d {q}, whose grandmother laid the first tile, called it an act of vandalism by clerks.
e The site will probably become allotments, although a dentist has also shown interest.
e Nothing has been settled about the land; goats may graze there meanwhile.
e Demolition needs a licence because bats sleep in the boiler house.
f Protesters intend to march barefoot every Sunday until somebody reverses the ruling.
f Accountants had presented three cheaper options, all of them involving colder showers.
f Generations learned to float there, clutching orange bricks made of cork.
? day | On what date did {t} decide to close its baths? | When was the vote on the {street} Road pool held?
? street | On which road did the closed baths of {t} stand? | Which road gave {t} its swimming pool address?
? votes | How many people were counted in the dispute over the baths of {t}? | What was the number of protesters, signatures or answers about the {street} Road baths?
? p | Who is the mayor of {t}? | Which mayor defended closing the {street} Road baths?
? cost | How many crowns a month did the {t} baths consume? | What monthly sum in crowns did {p} complain of?
? q | Which swimmer's friend protested against the closure in {t}? | Who objected most loudly to what {p} had done?

# fraud trial
= p:person f:name sum:1100-9700 judge:person t:name item:thing years:3-19
a A bookkeeper who stole from the umbrella maker {f} was sent to prison in {t} yesterday.
a Jurors at {t} needed just one hour to convict the accountant of {f}, an umbrella factory.
a For a decade the accounts of {f}, which makes umbrellas near {t}, were pure invention, a court heard.
b {p} had [shifted|siphoned] {sum} florins into a savings club that existed only on paper.
b The missing money, {sum} florins, went through a bogus choir whose treasurer was {p}.
b Prosecutors showed how {p} forged receipts for ribs and handles worth {sum} florins.
c Judge {judge} passed a sentence of {years} years and spoke of breathtaking patience in deceit.
c "Greed wore your cardigan," remarked {judge} from the bench before imposing {years} years.
c The term, {years} years, was fixed by {judge}, who rejected a plea about illness in the family.
d Detectives who searched the cellar found little left except a {item} wrapped in newspapers.
d Most of it was gambled away; officers recovered one {item}, still in its box.
d Among the purchases was a {item}, which will now be auctioned for the pension fund.
e Colleagues had admired such punctuality and twice organised a birthday cake.
e The fraud surfaced when a trainee added up a column by hand.
e Nobody would have noticed but for a burst pipe that soaked the real ledgers.
f Defence lawyers blamed loneliness, a strict upbringing and the temptations of tidy handwriting.
f Creditors will gather in a tent next month to divide whatever remains.
f Auditors, who had signed everything for years, face awkward letters from their institute.
? p | Who stole from {f}? | Which bookkeeper was convicted at {t}?
? sum | How many florins disappeared from {f}? | What amount in florins did {p} take?
? judge | Which judge sentenced {p}? | Who presided over the {f} case?
? years | To how many years was {p} sentenced? | How long in years is the prison term in the {f} case?
? item | What did detectives recover from {p}? | Which object had been bought with money from {f}?
? t | Where was {p} tried? | In which town did the court judge the {f} thief?

# museum theft
= m:name item:thing p:person day:date worth:1300-9900 q:person vehicle:thing
a Burglars lowered themselves through a skylight of the {m} Museum on {day} and took a {item}.
a A {item} has vanished from the {m} Museum, where guards discovered bare hooks on {day}.
a Thieves emptied a single display case at the {m} Museum during the small hours of {day}: the {item} is missing.
b Curator {p} believes that the raid was ordered by a collector with peculiar tastes.
b "Whoever came knew our alarm better than we do," sighed {p}, the curator.
b For {p}, curator these eleven winters, the loss feels like a bereavement.
c Insurers value the piece at {worth} thalers, though dealers doubt that it could ever be sold.
c It had been bought for {worth} thalers after an appeal to readers of a knitting magazine.
c A reward of {worth} thalers awaits anybody who helps to bring it home.
d Inspector {q} is looking for a man seen pushing a {vehicle} along the canal towpath.
d The only clue, a {vehicle} dropped in the shrubbery, is being examined by {q} of the robbery squad.
d Witnesses told detective {q} about two figures quarrelling over a {vehicle} behind the bins.
e Visitors may enter free this week and leave flowers in the empty vitrine.
e Cameras recorded nothing because a spider had built its web across the lens.
e The night porter slept through everything, having taken tablets for hay fever.
f Schoolchildren had voted it the ugliest treasure in the whole collection, and therefore their favourite.
f Ports and airfields were told to open every crate larger than a hatbox.
f An apology arrived by post afterwards, unsigned, with a recipe for plum jam.
? item | What was stolen from the {m} Museum? | Which exhibit under the care of {p} is missing?
? day | When was the {m} Museum burgled? | On what date did {p} lose the exhibit?
? p | Who is the curator of the {m} Museum? | Which curator mourns the {item}?
? worth | What figure in thalers is linked to the {item}? | How many thalers were mentioned at the {m} Museum?
? q | Which detective investigates the {m} Museum raid? | Who leads the hunt for the {item}?
? vehicle | Which suspicious object came to the notice of {q}? | Besides the loot, what object is tied to the thieves of the {m} Museum?

# comet
= c:name p:person obs:name speed:1200-9400 day:date school:name tail:110-990
a An icy visitor named Comet {c} will swing past the sun on {day}, astronomers announced.
a Skywatchers should keep {day} free: that night Comet {c} shines brightest.
a Bright enough to cast shadows, Comet {c} reaches its closest point on {day}.
b It was spotted by {p}, a retired postman, while testing a second-hand telescope.
b The discoverer is {p}, who mistook the smudge for jam on the eyepiece.
b {p}, a baker by trade, noticed the speck before dawn and telephoned at once.
c Measurements from the {obs} Observatory give a velocity of {speed} leagues an hour.
c At {obs} Observatory the instruments clocked it at {speed} leagues hourly, unusually brisk.
c "It covers {speed} leagues each hour," explained a physicist at the {obs} Observatory, visibly delighted.
d Its tail, now {tail} moonwidths long in photographs, contains traces of sugar.
d Dust streams behind the nucleus for {tail} moonwidths and glows faintly green.
d Spectrographs found ammonia within the plume, which stretches over {tail} moonwidths.
e Pupils from {school} School plan to sleep on the roof with blankets and cocoa.
e The headmistress of {school} School has cancelled Latin so that everyone can watch.
e A choir at {school} School rehearses an ode, written hurriedly, to greet the wanderer.
f Its orbit is so stretched that mammoths were the previous audience.
f Clouds could ruin everything, admits the weather service, which advises optimism.
f Souvenir sellers already offer telescopes rolled from cardboard and kitchen foil.
? c | Which comet did {p} discover? | What is the name of the comet measured at {obs} Observatory?
? day | On what date is Comet {c} at its brightest or closest? | When should people look for the comet of {p}?
? p | Who discovered Comet {c}? | Which amateur first saw the object that {obs} Observatory measured?
? obs | Which observatory measured Comet {c}? | Where was the speed of the comet found by {p} determined?
? speed | How many leagues an hour does Comet {c} travel? | What velocity in leagues did {obs} Observatory report?
? tail | How many moonwidths long is the tail of Comet {c}? | What length in moonwidths has the plume of the comet found by {p}?
? school | Which school prepares for Comet {c}? | Where do pupils get ready for the comet of {p}?

# bridge repair
= b:name p:person firm:name cars:1400-9600 end:date beam:thing t:name
a Lorries have been banned from the {b} Bridge after divers saw cracks [wide enough for a fist|as long as a canoe].
a The {b} Bridge, a spindly iron crossing, shut without warning this morning.
a Engineers fear for the {b} Bridge, whose northern pillar has begun to lean.
b Normally {cars} cars cross daily; they must now detour through {t}.
b Drivers, {cars} on an average weekday, are being sent around by way of {t}.
b Shopkeepers at {t} dread the diverted traffic, some {cars} vehicles between breakfast and supper.
c {firm} Construction won the contract and expects to finish by {end}.
c Reopening is pencilled in for {end}, provided {firm} Construction obtains enough rivets.
c Until {end} the scaffolding stays, says {firm} Construction, which underbid six rivals.
d Chief surveyor {p} blamed road salt together with decades of cheap paint.
d "Rust does not negotiate," warned {p}, the county's surveyor, tapping a flaking girder.
d In her report {p} describes bolts so thin that pigeons could bend them.
e Workmen opening a hollow pier were astonished by a {beam}, apparently walled in for luck.
e Oddly, a {beam} hung inside the tollhouse chimney and is going to a restorer.
e Beneath the tarmac lay a {beam}, perfectly preserved by clay.
f A rowing club offers to carry commuters across, weather and stamina permitting.
f Three inspections in as many years had noticed nothing besides moss.
f Bakers on either bank now throw loaves to each other over the gap.
? b | Which bridge did {p} inspect? | What bridge is {firm} Construction repairing?
? cars | How many cars usually cross the {b} Bridge each day? | What is the daily traffic that {t} must absorb?
? t | Through which town do drivers detour while the {b} Bridge is shut? | Where is traffic sent while {firm} Construction works?
? firm | Which company repairs the {b} Bridge? | Who won the contract after {p} found the damage?
? end | By what date should the {b} Bridge reopen? | When does {firm} Construction plan to be done?
? p | Which surveyor examined the {b} Bridge? | Who explained the decay that {firm} Construction must mend?
? beam | What was found hidden in the {b} Bridge works? | Which old object came to light for {firm} Construction?

# vaccine for sheep
= d:name p:person uni:name sheep:210-990 pct:31-94 valley:name farmer:person
a A vaccine against {d} fever has passed its first trial at {uni} University.
a Vets at {uni} University claim victory over {d} fever, long the terror of shepherds.
a Good news for flocks: researchers from {uni} University can prevent {d} fever with one drop on the tongue.
b Of {sheep} ewes treated in the {valley} valley, hardly any fell ill.
b The team dosed {sheep} animals grazing in the {valley} valley and waited through lambing.
b Shepherds throughout the {valley} valley lent {sheep} sheep, each wearing a numbered bell.
c Infections dropped by {pct} percent, which statisticians checked three times.
c The protection rate, {pct} percent, surprised even sceptics on the ethics panel.
c Compared with untouched herds, cases shrank {pct} percent within eight weeks.
d Professor {p} extracted the serum from nettles after a chance remark by her gardener.
d The recipe came to {p}, head of the laboratory, during a power cut.
d {p}, who directs the project, still keeps the original flask beside the kettle.
e Smallholder {farmer} lost two hundred lambs last year and wept upon hearing the result.
e "My dog can finally rest," joked {farmer}, whose pastures served as the control.
e For hill farmer {farmer} the price matters most: a dose must cost less than a haircut.
f Side effects were limited to sneezing and an unusual fondness for thistles.
f Regulators could approve it before the shearing season, though exporters hope for sooner.
f The illness makes animals walk in circles and forget their young.
? d | Which fever does the vaccine of {uni} University prevent? | Against what disease did {p} develop a serum?
? uni | Which university tested the vaccine against {d} fever? | Where does {p} work?
? sheep | How many sheep took part in the trial against {d} fever? | What was the number of animals in the {valley} valley trial?
? valley | In which valley was the {d} fever vaccine tried? | Where did the sheep of the {uni} University trial graze?
? pct | By what percentage did {d} fever fall? | What protection in percent did {p} achieve?
? p | Who leads the work on {d} fever? | Which scientist of {uni} University made the serum?
? farmer | Which farmer spoke about {d} fever? | Who reacted to the result from {uni} University as a farmer?

# election count
= t:name p:person q:person margin:11-940 party:name day:date hall:name
a {p} [snatched|won] the parliamentary seat of {t} by a whisker, returning officers confirmed on {day}.
a After three recounts, {t} finally has a member of parliament: {p}, sworn in on {day}.
a Nobody expected {p} to win {t}, yet on {day} the ballots left no doubt.
b The margin over the {party} Party was {margin} votes, [thinner than any since the war|a local record].
b With {margin} papers between them, the {party} Party demanded lawyers and then sandwiches.
b Had {margin} supporters stayed indoors, the {party} Party would be celebrating instead.
c Defeated candidate {q} refused the customary handshake and left through the kitchen.
c Her opponent, {q}, congratulated everybody in verse before driving off to fish.
c {q}, who came second, blamed drizzle, potholes and an unflattering poster.
d Counting took place in {hall} Hall among trestle tables and half-inflated balloons.
d Tellers in {hall} Hall worked by candlelight once the fuses blew.
d A lost ballot box turned up under the piano of {hall} Hall at midnight.
e Turnout was highest among beekeepers, for whom honey tariffs decided everything.
e The winner campaigned on a donkey and promised to answer each letter by hand.
e Analysts call the outcome a protest against parking meters rather than a change of heart.
f Recounting cost more than the campaign itself, an official remarked dryly.
f Parliament will now have to find a chair tall enough for the newcomer.
f Street lamps were hung with ribbons, and strangers danced around the horse trough.
? p | Who won the seat of {t}? | Which candidate beat {q}?
? day | On what date was the result in {t} settled? | When did {p} gain the seat?
? margin | How many votes decided the election in {t}? | What was the margin of {p} over the {party} Party?
? party | Which party lost narrowly in {t}? | What party did {p} defeat?
? q | Who came second in {t}? | Which candidate lost to {p}?
? hall | In which hall were the votes of {t} counted? | Where did the tellers who elected {p} work?
"""
