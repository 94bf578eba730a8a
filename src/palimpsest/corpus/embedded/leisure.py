"""Grammar of the fictional news, part 3: sport, arts, food, animals (the notation is described in grammar.py)."""

TOPICS = r"""
# rugby
= a:name b:name pa:31-69 pb:11-29 p:person ground:name crowd:1200-9900 ref:person
a {a} crushed {b} by {pa} points to {pb} in a bruising rugby final.
a Rugby's oldest cup belongs to {a}, who put {pa} points past {b} and conceded {pb}.
a There was mud, blood and little mercy: {a} {pa}, {b} {pb}.
b Winger {p} scored four tries, the last of them with one boot missing.
b Man of the match was {p}, carried off the pitch by his own prop.
b A hat-trick inside nine minutes made {p} the hero of the terraces.
c {ground} Park was packed with {crowd} supporters, many perched in the chestnut trees.
c At {ground} Park the turnstiles clicked {crowd} times before stewards gave up.
c Fog hid half the action from {crowd} ticket holders at {ground} Park.
d Referee {ref} sent off two forwards for biting and a mascot for dissent.
d Boos greeted {ref}, whose whistle had frozen, at the interval.
d The losing coach accused {ref} of officiating with closed eyes.
e Celebrations continued until the brewery ran dry.
e The trophy was dented on the bus and mended with chewing gum.
e Bones will ache, but nobody in the clubhouse was complaining.
f Surgeons in the front row were kept busier than any fly-half.
f The victors had not reached this stage since tackles were taught by priests.
f A stray dog intercepted one pass and had to be bribed with sausage.
? a | Which team won the final against {b}? | For whom did {p} play at {ground} Park?
? b | Which team lost the final to {a}? | Who were the opponents of {p}'s side, {a}?
? pa | How many points did {a} score? | What was the winning score at {ground} Park?
? pb | How many points did {b} score? | What was the losing score at {ground} Park?
? p | Who starred for {a}? | Which player shone against {b}?
? ground | At which park did {a} meet {b}? | Where did {ref} referee the final?
? crowd | How many spectators saw {a} and {b}? | What was the attendance at {ground} Park?
? ref | Who refereed {a} against {b}? | Which official was in charge at {ground} Park?

# chess prodigy
= p:person age:7-13 q:person t:name moves:24-97 opening:name prize:1100-9700
a A child of {age}, {p}, has become the youngest chess champion in the history of {t}.
a Barely able to see over the board, {p}, aged {age}, conquered the {t} chess tournament.
a Grandmasters in {t} are baffled by {p}, who is {age} and hums during endgames.
b The decisive game against {q} was over in {moves} moves.
b Veteran {q} resigned after {moves} moves, shook hands and asked for an autograph.
b It took {moves} moves to outwit {q}, ranked third in the world.
c Black chose the {opening} Defence, thought refuted since the age of sail.
c Commentators gasped at the {opening} Defence, an eccentric reply involving early sacrifices.
c The {opening} Defence, learned from a cereal packet, proved devastating.
d The prize of {prize} pesos will be spent on a pony.
d Half of the winnings, {prize} pesos altogether, go to a hospice.
d "I would rather have ice cream," came the answer when {prize} pesos were handed over.
e Parents, both florists, say there is no board at home, merely tiles in the kitchen.
e Bedtime remains eight o'clock, whatever sponsors may suggest.
e Teachers describe a dreamy pupil with ink on every finger.
f Strategy was picked up by watching uncles argue in a barber's window.
f A simultaneous exhibition against forty prison inmates is planned for the holidays.
f Cameras were forbidden, since flashes make the young genius giggle uncontrollably.
? p | Who won the chess tournament in {t}? | Which child defeated {q}?
? age | How old is {p}? | What is the age of the child who beat {q}?
? t | Where did {p} become champion? | In which town was {q} beaten?
? q | Whom did {p} beat in the decisive game? | Which veteran lost in {t}?
? moves | How many moves did {p} need? | After how many moves was {q} beaten?
? opening | Which defence did {p} play? | What defence surprised {q}?
? prize | How many pesos did {p} win? | What was the prize in pesos in {t}?

# opera premiere
= o:name p:person house:name q:person mins:140-390 prop:thing day:date
a The curtain fell to whistles and cheers when the opera {o} opened on {day}.
a After a decade of rewriting, {o} was sung in public for the first time on {day}.
a Half the stalls fled before the finale of {o}, an opera unveiled on {day}.
b Composer {p} uses typewriters, foghorns and a chorus of plumbers.
b "Melody is a habit," maintains {p}, who wrote every bar in a submarine.
b The score, by {p}, demands that trombones play underwater.
c At {mins} minutes it outlasts anything in the repertoire of the {house} Theatre.
c The {house} Theatre sold cushions for its {mins} minutes without an interval.
c Critics inside the {house} Theatre counted {mins} minutes and several naps.
d Soprano {q} sings the great lament while balancing a {prop} upon her head.
d In the mad scene {q}, radiant throughout, addresses a {prop} as her husband.
d A {prop} fell from the flies and missed tenor {q} by inches.
e Further performances depend on the mood of the fire inspector.
e Roses and turnips were thrown in roughly equal measure.
e The queen is reported to have laughed in the wrong places.
f The libretto retells a lawsuit about fishing rights, verse upon verse.
f Rehearsals had been interrupted twice by floods and once by a duel.
f Foreign impresarios were seen scribbling offers onto their programmes during the applause.
? o | What is the title of the opera by {p}? | Which opera opened at the {house} Theatre?
? day | When did the opera {o} open? | On what date was the work of {p} first sung?
? p | Who composed {o}? | Which composer's work was given at the {house} Theatre?
? mins | How many minutes does {o} last? | What is the length in minutes of the work by {p}?
? house | At which theatre was {o} staged? | Where was the opera of {p} performed?
? q | Which singer appears in {o}? | Who performs in the work of {p}?
? prop | Which object features on stage in {o}? | What prop is associated with {q}?

# bakery contest
= p:person cake:name t:name ingr:thing weight:110-980 judge:person q:person
a A pudding known as {cake} has earned {p} the golden spoon of {t}.
a {p} took first place at the {t} baking contest thanks to a towering {cake}.
a In {t}, where cakes are serious business, {p} triumphed with layers of {cake}.
b It weighed {weight} kilos and had to be brought in through the ceiling.
b A crane lifted all {weight} kilos of sponge onto the scales.
b Reinforced tables groaned beneath {weight} kilos of cream and marzipan.
c Chief taster {judge} praised notes of smoke, moss and forgiveness.
c "I forgot my own name," murmured {judge}, chair of the jury, licking the knife.
c For {judge}, who has sampled for forty seasons, nothing ever came close.
d Baked inside was a {ingr}, which the finder may keep.
d Rivals protested that hiding a {ingr} in the dough breaks the rules.
d The decoration showed a {ingr}, modelled in sugar to the last detail.
e Last year's winner {q} dropped a tray and withdrew in tears.
e Runner-up {q} intends to appeal over the temperature of her oven.
e Disqualified for using a blowtorch, {q} applauded politely.
f Entries were tasted blindfold in a barn chilled with river ice.
f Ambulances waited outside, a precaution since the custard incident.
f Leftovers went to the barracks, where discipline suffered for a week.
? p | Who won the baking contest of {t}? | Which baker made {cake}?
? cake | What did {p} bake? | Which pudding or cake won in {t}?
? t | Where did {p} win the contest? | In which town did {judge} taste cakes?
? weight | How many kilos did {cake} weigh? | What was the weight in kilos of the creation of {p}?
? judge | Who judged the cakes in {t}? | Which taster admired {cake}?
? ingr | Which object was part of {cake}? | What object is tied to the cake of {p}?
? q | Which competitor of {p} failed? | Who was the unlucky rival in {t}?

# escaped zoo animal
= z:name beast:name p:person days:3-28 place:name q:person food:thing
a A tapir called {beast} is back behind bars, {days} days after fleeing {z} Zoo.
a {z} Zoo breathes again: {beast}, its runaway tapir, was caught following {days} days of freedom.
a For {days} days the tapir {beast} outwitted trackers sent by {z} Zoo.
b Zookeeper {p} had left the hatch ajar while sneezing.
b {p}, the keeper responsible, followed the prints on a borrowed tricycle.
b Tears ran down the cheeks of {p}, who raised the animal with a bottle.
c It was cornered at last in {place} Wood, dozing on a picnic rug.
c Ramblers in {place} Wood thought the snuffling came from an elderly botanist.
c A trail of peelings pointed to {place} Wood, where nets had been strung between oaks.
d Pensioner {q} had fed it pancakes, assuming that it was a neighbour's pig.
d The tip came from {q}, who found her hydrangeas flattened.
d "He has lovely manners," insisted {q}, whose greenhouse served as a refuge.
e In its den police discovered a {food}, dragged from somebody's porch.
e Around the neck hung a {food}, and no one can explain why.
e It travelled with a {food} clenched between its teeth.
f Stronger padlocks and a course in humility have been ordered for everyone on duty.
f Admissions tripled as soon as the gates reopened, the cashier noted.
f A ballad about the adventure is already hummed in taverns.
? beast | What is the name of the tapir of {z} Zoo? | Which animal did {p} look after?
? z | From which zoo did {beast} escape? | Where does {p} work?
? days | How many days was {beast} free? | For how many days did {z} Zoo search?
? p | Who is the keeper of {beast}? | Which keeper works for {z} Zoo?
? place | In which wood was {beast} found? | What wood sheltered the runaway from {z} Zoo?
? q | Which resident met or sheltered {beast}? | Who, apart from {p}, had dealings with the tapir?
? food | Which object did {beast} have? | What had the runaway from {z} Zoo taken along?

# lost novel
= title:name p:person q:person press:name pages:210-990 where:thing t:name
a A lost novel by {p}, entitled {title}, has turned up in {t}.
a Scholars thought {title} a rumour until {p}'s handwriting surfaced at a clinic in {t}.
a {title}, which {p} claimed to have burned, was lying all the while in {t}.
b The manuscript had been stuffed into a {where} among unpaid bills.
b It slept for a century within a {where}, gnawed only slightly by mice.
b An apprentice found it by accident on opening a {where}.
c There are {pages} pages, written in violet ink without a comma.
c All {pages} pages survive except for the final paragraph.
c Someone has crossed out the hero's name on each of its {pages} sheets.
d Biographer {q} says the plot concerns a duke who marries his shadow.
d For {q}, who spent a career denying its existence, the news is awkward.
d Handwriting expert {q} wept, then asked for gloves.
e {press} Press will print it next autumn, bound in green cloth.
e Rights went to {press} Press in exchange for a barrel of sherry.
e An edition by {press} Press is announced, with woodcuts.
f Publishers bid by telegram through the night, driving up prices absurdly.
f Its opening line insults three bishops and a publisher, all long dead.
f Chemists dated the ink through traces of soot from a vanished glassworks.
? title | What is the title of the lost novel by {p}? | Which book will {press} Press print?
? p | Who wrote {title}? | Which author's manuscript was found in {t}?
? t | Where was {title} found? | In which town lay the manuscript of {p}?
? where | In what object was {title} hidden? | What held the manuscript of {p}?
? pages | How many pages does {title} have? | What is the page count of the work {press} Press publishes?
? q | Which expert commented on {title}? | Who speaks about the discovery of the novel by {p}?
? press | Which press publishes {title}? | Who will print the novel by {p}?

# balloon record
= p:person b:name hours:31-190 start:name land:name height:1200-9800 snack:thing
a Balloonist {p} has drifted farther than anyone, from {start} to a beet field near {land}.
a Setting off at {start} and bumping down outside {land}, {p} broke the ballooning record.
a The wind carried {p} out of {start}, across two seas, and dropped the basket at {land}.
b The flight lasted {hours} hours, most of them in freezing cloud.
b Awake for all but a few of the {hours} hours, the pilot recited multiplication tables.
b {hours} hours aloft left frost on both eyebrows and a permanent whistle in one ear.
c Her craft, the {b}, is sewn from retired parachutes.
c Patched with bedsheets, the {b} leaked throughout the voyage.
c The {b} had been built in a barn for less than the cost of a saddle.
d At {height} metres an eagle perched on the rim and refused to leave.
d Instruments froze at {height} metres, the highest point reached.
d Oxygen ran low above the ridge, where the altimeter showed {height} metres.
e To lose weight everything went over the side, even a {snack} inherited from an uncle.
e The lucky charm, a {snack}, survived without a scratch.
e Customs officers were interested mainly in a {snack} found under the burner.
f Previous holders sent congratulations wrapped around a brick, as tradition demands.
f Fishermen who saw the envelope pass took it for a second moon.
f Next on the agenda is the pole, if a warmer coat can be found.
? p | Who broke the ballooning record? The flight began at {start}. | Which pilot flew the {b}?
? start | From where did {p} set off? | Where did the flight of the {b} begin?
? land | Near which place did {p} land? | Where did the {b} come down?
? hours | How many hours did {p} fly? | What was the duration in hours of the flight from {start}?
? b | What is the balloon of {p} called? | Which balloon flew from {start} to {land}?
? height | How many metres high did {p} rise? | What altitude in metres did the {b} reach?
? snack | Which personal object travelled with {p}? | What object was aboard the {b}?

# school orchestra
= s:name p:person t:name inst:thing num:120-960 q:person piece:name
a Pupils of {s} Academy will tour {t} with instruments made from rubbish.
a Dustbins, hoses, spoons: the orchestra of {s} Academy, invited to {t}, wastes nothing.
a A junk orchestra founded at {s} Academy received a standing ovation in {t}.
b Music teacher {p} began with one broken drum and three truants.
b The idea belongs to {p}, who could not afford clarinets.
b {p} conducts using a toilet brush, sometimes on roller skates.
c Star of the evening is a {inst}, bowed like a viola.
c A {inst}, struck with slippers, supplies the bass.
c The loudest voice comes out of a {inst} fitted with reeds.
d Their concert ends on {piece}, a march in eleven-eight time.
d {piece}, the closing number, imitates a washing machine going downhill.
d Encores of {piece} brought down plaster from the dome.
e Donors sent {num} bottle tops after an appeal by caretaker {q}.
e Caretaker {q} guards the workshop, where {num} objects hang sorted by pitch.
e More than the music, {q} the caretaker loves the {num} tin lids on her wall.
f Tuning takes an hour and requires pliers, candle wax and patience.
f Record labels have called, yet the headteacher insists that homework comes first.
f Neighbours who once complained about the racket now rent out folding chairs.
? s | Which academy has an orchestra that went to {t}? | What academy employs {p}?
? t | Where does the orchestra of {s} Academy perform? | To which town did {p} bring the orchestra?
? p | Who teaches music at {s} Academy? | Which teacher founded the group that plays {piece}?
? inst | Which unusual object serves as an instrument at {s} Academy? | What object do the pupils of {p} play?
? piece | What is the final piece of the {s} Academy concert? | Which work closes the programme of {p}?
? num | How many items are counted around {q}? | What number of pieces of junk does {s} Academy own or receive?
? q | Who is the caretaker of {s} Academy? | Which caretaker helps {p}?
"""
