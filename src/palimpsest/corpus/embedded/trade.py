"""Grammar of the fictional news, part 2: work, trade, transport, weather (the notation is described in grammar.py)."""

TOPICS = r"""
# dairy strike
= f:name p:person litres:1200-9800 q:person t:name raise:4-29 demand:thing
a Milk was poured into the gutters of {t} today as workers at {f} Dairies downed tools.
a Breakfast tables around {t} stay bare: {f} Dairies has been on strike since Monday.
a The gates of {f} Dairies, {t}'s biggest employer, are barred by pickets with churns.
b Some {litres} litres turned sour within hours, management admits.
b Tankers holding {litres} litres were turned back, to ironic applause from the pavement.
b Cats feasted while {litres} litres ran down the cobbles toward the brook.
c Union leader {p} insists on a raise of {raise} percent and warmer boots.
c "We want {raise} percent, not praise," shouted {p}, who represents the bottling hall.
c Talks collapsed when {p}, speaking for the churners, would accept nothing below {raise} percent.
d Owner {q} offered each employee a {demand} instead, an idea that provoked laughter.
d The proprietor, {q}, has been hanged in effigy with a {demand} about the neck.
d Tempers flared because {q}, who inherited the creamery, had just bought herself a {demand}.
e Cheesemongers warn that soft varieties could run out before the fair.
e Hospitals receive powder by helicopter until the dispute ends.
e A mediator arrives tonight, though she is said to be allergic to butter.
f Strikers sleep in haylofts nearby, fed by sympathetic nuns from the convent.
f Yoghurt has become currency among students, reports the grocers' guild.
f Similar quarrels ended badly a generation ago, with cream on the courthouse steps.
? f | Which dairy is on strike in {t}? | What company does {q} own?
? t | In which town is {f} Dairies? | Where did {p} lead a strike?
? litres | How many litres of milk from {f} Dairies were lost? | What quantity of milk in litres was wasted in {t}?
? p | Who leads the strike at {f} Dairies? | Which union leader opposes {q}?
? raise | What raise in percent do workers of {f} Dairies demand? | How many percent more does {p} want?
? q | Who owns {f} Dairies? | Which owner is opposed by {p}?
? demand | What object angered or amused the workers of {f} Dairies? | Which object is linked to {q} in the strike?

# ferry delays
= ship:name p:person island:name hours:11-47 cause:thing q:person people:130-980
a Passengers bound for {island} spent {hours} hours aboard the ferry {ship}, within sight of the quay.
a The ferry {ship} finally reached {island} last night, {hours} hours behind its timetable.
a What should be a short hop to {island} lasted {hours} hours for travellers on the {ship}.
b Divers eventually removed a {cause} that had jammed the propeller.
b A {cause}, swept overboard from a yacht, fouled the rudder.
b The trouble began when a {cause} slid into the engine vents during a squall.
c Captain {p} kept spirits up by reading detective stories over the loudspeaker.
c {p}, the skipper, handed out biscuits and later the contents of the lifeboats.
c At dusk the master, {p}, allowed children to steer imaginary courses on the bridge.
d All {people} people received vouchers, valid solely on Tuesdays in winter.
d None of the {people} on board was hurt, apart from wounded pride.
d Compensation for {people} customers may exceed a season's takings, accountants fear.
e Nurse {q} delivered a baby in the duty-free shop.
e "I have knitted an entire sleeve," reported {q}, returning from a funeral.
e Violinist {q} missed a recital but played for the queue at the toilets.
f An inquiry will ask why two tugboats stayed tied up for lunch.
f Dolphins followed the drifting vessel and, some swear, seemed amused.
f The shipping office blamed a misprinted almanac for the absence of spare anchors.
? ship | Which ferry was delayed on the way to {island}? | What ship does {p} command?
? island | To which island was the {ship} sailing? | Where were the passengers of {p} going?
? hours | How many hours late or long was the voyage of the {ship}? | How many hours did people wait with {p}?
? cause | What disabled the {ship}? | Which object stopped the ferry to {island}?
? p | Who is the captain of the {ship}? | Which skipper looked after the travellers to {island}?
? people | How many people were on the {ship}? | What was the number of passengers bound for {island}?
? q | Which passenger of the {ship} is mentioned by name? | Who travelled to {island} on the ferry of {p}?

# flood
= r:name t:name level:210-890 p:person homes:130-970 mill:name q:person
a The river {r} burst its banks at {t} before sunrise and rushed through the market.
a Heavy rain has driven the {r} into the cellars of {t}, for the second time since harvest.
a Rowing boats replaced buses in {t} on Friday when the {r} rose over the embankment.
b Gauges showed {level} centimetres, a mark unseen by anyone living.
b With the water at {level} centimetres, sirens wailed and cows were led upstairs.
b Hydrologists had predicted half of the {level} centimetres eventually recorded.
c Fire chief {p} evacuated {homes} homes, in several cases against fierce resistance.
c Crews under {p} knocked at {homes} doors and carried out pensioners, parrots and pianos.
c Electricity failed in {homes} households; {p}, commanding the brigade, advised everyone to boil tea on camp stoves.
d At {mill} Mill the wheel tore loose and was last seen passing the cricket ground.
d {mill} Mill, recently restored by volunteers, lost its roof along with forty sacks of rye.
d Flour from {mill} Mill turned whole streets into paste.
e Schoolteacher {q} opened the gymnasium, where mattresses soon covered the floor.
e "My tomatoes are in the next county," said {q}, wringing out a hat.
e Innkeeper {q} served soup from an upper window by bucket and rope.
f Insurers arrived by kayak with forms that dissolved in their hands.
f Forecasters expect the current to weaken once the snowmelt is over.
f Carp were spotted in the confessional, and a heron has occupied the pulpit.
? r | Which river flooded {t}? | What river ruined {mill} Mill?
? t | Which town did the {r} flood? | Where did {p} rescue people?
? level | How many centimetres did the {r} reach? | What water level in centimetres was measured at {t}?
? p | Who commanded the fire brigade in {t}? | Which fire chief fought the flood of the {r}?
? homes | How many homes did {p} deal with? | What number of households in {t} was affected?
? mill | Which mill did the {r} damage? | What mill near {t} suffered in the flood?
? q | Which resident helped or spoke during the flood in {t}? | Who is quoted or praised besides {p} after the {r} rose?

# startup collapse
= f:name p:person product:thing staff:120-940 bank:name debt:1300-9800 t:name
a {f}, the darling of investors in {t}, filed for bankruptcy with its lights still on.
a Shares in {f} were suspended at lunchtime; by tea the {t} company no longer existed.
a It promised to reinvent sleep, but {f} of {t} could not pay for its own pillows.
b The firm owed {debt} ducats to {bank} Bank, which had lent against applause.
b Lenders led by {bank} Bank are unlikely to see {debt} ducats ever again.
b {bank} Bank called in a loan worth {debt} ducats after reading a blog.
c Founder {p} apologised in a video filmed from a hammock.
c {p}, who started it in a garage, has not answered calls.
c Once a magazine's genius of the year, {p} now washes dishes at a cousin's café.
d Its sole product, a {product} that talked, amused critics and irritated spouses.
d Few customers wanted a {product} connected to the telephone.
d Warehouses remain full of the unsold gadget, basically a {product} with batteries.
e All {staff} employees learned of their dismissal from a vending machine.
e Redundancy letters went to {staff} people, one of them hired the same morning.
e A farewell party for {staff} workers ended when bailiffs wheeled away the punch.
f Receivers are auctioning beanbags, neon signs and an unopened crate of slogans.
f A glowing profile had appeared only days earlier in an airline brochure.
f Economists see the beginning of a long winter for foolish inventions.
? f | Which company did {p} found? | What firm owed money to {bank} Bank?
? t | Where was {f} based? | In which town did the company of {p} fail?
? debt | How many ducats did {f} owe? | What loan in ducats did {bank} Bank lose?
? bank | Which bank lent money to {f}? | To whom did the company of {p} owe money?
? p | Who founded {f}? | Which founder disappointed {bank} Bank?
? product | What kind of object did {f} sell? | Which gadget did {p} bring to market?
? staff | How many people worked for {f}? | What number of employees did {p} leave jobless?

# railway line
= line:name p:person a:name b:name mins:23-98 cost:1200-9700 animal:name
a Trains will again run between {a} and {b}, sixty years after the rails were lifted.
a Steam hissed over the platform of {a} as the first service for {b} departed.
a A forgotten railway linking {a} with {b} reopened amid brass bands and soot.
b The {line} Line takes {mins} minutes, including a pause to let geese pass.
b Timetables for the {line} Line promise {mins} minutes; the inaugural journey required double.
b Passengers on the {line} Line reach the terminus in {mins} minutes, knees permitting.
c Enthusiasts raised {cost} guineas through raffles, calendars and sponsored silence.
c Its price, {cost} guineas, would barely buy one mile elsewhere, organisers boast.
c Lottery money covered most of the {cost} guineas spent on sleepers.
d {p} drove the engine in a waistcoat stitched by the signalman's wife.
d Volunteer {p} has shovelled ballast each weekend from the age of nine.
d "I smelled coal and became a boy," confessed {p}, president of the society.
e A station cat called {animal} inspects tickets and ignores every regulation.
e The ribbon was chewed apart by {animal}, a goat belonging to the crossing keeper.
e {animal}, the depot's one-eyed terrier, slept soundly through all the whistles.
f Tickets are printed on card so thick that moles could tunnel through it.
f Sheep had nested in the waiting room and left only after lengthy negotiation.
f A dining carriage with velvet curtains should join the rolling stock come summer.
? line | What is the name of the line between {a} and {b}? | Which railway line is connected with {p}?
? a | From which place does the {line} Line lead to {b}? | Which station is at the other end from {b}?
? b | To which place does the {line} Line lead from {a}? | Which station is at the other end from {a}?
? mins | How many minutes does the {line} Line take? | What journey time in minutes is planned from {a} to {b}?
? cost | How many guineas did the {line} Line cost? | What sum in guineas restored the railway to {b}?
? p | Which enthusiast of the {line} Line is named? | Who is the rail lover in the story of {a} and {b}?
? animal | What is the animal of the {line} Line called? | Which animal entertained the guests between {a} and {b}?

# wheat blight
= blight:name p:person region:name tons:1200-9800 rye:name q:person pct:21-89
a Bread could become dearer, for {blight} rot is spreading across the fields of {region}.
a Farmers from {region} burn their own wheat this week to stop {blight} rot.
a Black ears and a smell of vinegar: {blight} rot has arrived in {region}.
b About {pct} percent of the crop is lost, the ministry estimates.
b Drones counted damage on {pct} percent of all acres surveyed.
b Insurance covers little, although {pct} percent of plants are beyond rescue.
c Botanist {p} recommends sowing {rye} rye, which the fungus dislikes.
c Salvation may be {rye} rye, an ancient grain that {p} discovered in a monastery attic.
c Under the microscope of {p}, a botanist, spores simply slide off {rye} rye.
d The government is releasing {tons} tons from silos reserved for sieges.
d Ships carrying {tons} tons were diverted here from the tropics.
d To calm bakers, officials bought {tons} tons abroad, sight unseen.
e "I shall grow lavender," vowed {q}, seventh generation on the same clay.
e Miller {q} has dismissed his apprentice and let the sails stand still.
e Grower {q} sprayed garlic water at full moon, so far without success.
f Churches hold special services, and scarecrows have been dressed in black.
f Whether the spores travelled by cargo or by songbird remains a mystery.
f Pastry chefs experiment with chestnuts, acorns and, less happily, seaweed.
? blight | What rot attacks the wheat of {region}? | Against which rot does {p} recommend another grain?
? region | In which region does {blight} rot spread? | Where are the fields that {p} wants to save?
? pct | What percentage is lost to {blight} rot? | How many percent of the wheat in {region} is damaged?
? p | Which botanist studies {blight} rot? | Who recommends {rye} rye?
? rye | Which rye resists {blight} rot? | What kind of rye does {p} favour?
? tons | How many tons of grain replace what {blight} rot destroyed? | What quantity in tons did officials find for {region}?
? q | Which local producer in {region} is quoted or described? | Who, besides {p}, appears in the report about {blight} rot?

# lighthouse keeper
= l:name p:person years:17-49 steps:130-970 ship:name day:date gift:thing
a After {years} years of solitude, {p} climbs down from the {l} lighthouse for the last time.
a {p}, guardian of the {l} lighthouse over {years} years, is retiring with a sore hip.
a The {l} lighthouse loses {p}, its keeper for {years} years, to automation.
b There are {steps} steps, counted aloud on each of innumerable ascents.
b A spiral of {steps} stairs kept visitors away and calves strong.
b Carrying paraffin up {steps} steps was, by all accounts, the worst chore.
c Fame came when the trawler {ship} ran aground and eleven sailors were hauled out by rope.
c Old hands still toast the rescue of the {ship}, whose crew clung to a mast.
c In one blizzard the schooner {ship} was guided home by nothing but a frying pan, beaten hard.
d From {day} a computer two hundred miles inland will switch the lamp.
d The lamp goes electronic on {day}, despite letters from poets.
d Technicians seal the tower on {day}; gulls will hardly notice.
e Coastguards presented a {gift}, engraved with the wrong initials.
e As a parting present the harbour board chose a {gift}, rather too heavy for the dinghy.
e Grateful fishermen clubbed together to buy a {gift}, delivered by seaplane.
f A cottage with a level floor and no staircase has been rented ashore.
f Logbooks kept there record ninety sorts of fog, each one lovingly described.
f The hardest adjustment, friends predict, is going to be neighbours.
? p | Who kept the {l} lighthouse? | Which keeper is remembered for the {ship}?
? l | Which lighthouse did {p} keep? | What lighthouse has {steps} steps?
? years | For how many years did {p} keep the light? | How long in years did the {l} lighthouse have its keeper?
? steps | How many steps does the {l} lighthouse have? | What number of stairs did {p} climb?
? ship | Which vessel did {p} save? | What ship is remembered at the {l} lighthouse?
? day | When does the {l} lighthouse become automatic? | From what date is {p} no longer needed?
? gift | What present did {p} receive? | Which object was given at the {l} lighthouse as a farewell?
"""
