"""More plots of the `stories` job; slots as in `_story_plots`."""

from __future__ import annotations

from smallfry.builtin._story_plots import Plot
from smallfry.builtin._story_words import CAKES, CLOTHES, INGREDIENTS, OBJECTS, THINGS, TOYS

STRAYED = Plot(
    THINGS,
    (
        (
            "{When}, {N} went {to} with {A}. {He} carried {his} {O}.",
            "The {kin} of {N} took {him} {to} {when}. {N} had {his} {O} with {him}.",
        ),
        (
            "{N} saw {lure0} and followed it.",
            "There was {lure0}. {N} wanted to see it from close by and walked after it.",
        ),
        ("After a while {he} turned around. {A_} was not there.", "Soon {he} did not know the way. Where was {A}?"),
        (
            "{N} was {sad}. {He} called, but nobody answered.",
            '"I am lost," {he} whispered. {He} held the {o} with both hands.',
        ),
        (
            'Then {he} remembered what {A} had said: "If you are lost, {rule0}."',
            '{A_} had told {him}, "{Rule0} when you are lost." {N} did not forget it.',
        ),
        ("So {he} {rule1}.", "That was what {he} did. {He} {rule1}."),
        ("To pass the time, {he} {pass0}.", "{He} tried to be brave and {pass0}."),
        ("It felt like hours.", "The minutes were long.", ""),
        ("Then {he} heard a voice. It was {A}!", "At last {A} came running."),
        (
            '"How did you find me?" asked {N}. "You {rule1}," said {A}, "that was clever."',
            '"You did the right thing," said {A}, "because you {rule1}."',
        ),
        (
            "{N} told {ahim} about {lure1}, and they went home hand in hand.",
            "On the way home, {N} held the {o} in one hand and the hand of {A} in the other.",
        ),
    ),
    ("Next time, {N} stayed close, even when {lure1} came by.", "{N} was {glad} to be home."),
    {
        "lure": (
            ("a bright butterfly", "the butterfly"),
            ("a man with many balloons", "the man with the balloons"),
            ("a line of ants", "the ants"),
            ("a white rabbit", "the rabbit"),
            ("a loud band", "the band"),
            ("a spotted frog", "the frog"),
            ("a lady with five dogs", "the lady with the dogs"),
        ),
        "rule": (
            ("stay where you are", "stayed in one place"),
            ("sit down and wait", "sat down and waited"),
            ("sing a loud song", "sang a loud song"),
            ("go to the nearest lamp", "went to the nearest lamp"),
            ("blow a whistle with your fingers", "whistled with two fingers"),
        ),
        "pass": (
            ("counted the stones on the ground",),
            ("said a rhyme",),
            ("told the {o} a story",),
            ("looked at the clouds",),
            ("thought about {food}",),
        ),
    },
)

SEED = Plot(
    THINGS,
    (
        ('The {kin} of {N} gave {him} a seed and said, "Plant it and wait."', "{When}, {N} got a tiny seed from {A}."),
        (
            "{N} planted it {spot} {at}. To mark the spot, {he} laid {his} {O} beside it.",
            "{He} dug a small hole {at}, {spot}, and put {his} {O} next to it as a sign.",
        ),
        ("{F} came to look.", "{His} friend {F} watched."),
        (
            "The first day nothing happened, and the second day nothing happened.",
            "Day after day, {he} looked, but there was only earth.",
        ),
        ('"It will never grow," said {N} and was {sad}.', '"Why does it take so long?" {he} asked.'),
        ('"Maybe {need0}," said {F}.', '{F} looked at the ground. "I think {need0}," {fhe} said.'),
        ("So every morning {N} {need1}.", "{N} nodded. From then on {he} {need1}."),
        (
            "One week later there was a little green leaf next to the {o}.",
            "Then, right beside the {o}, something green came up.",
        ),
        ("The plant grew and grew until it was as tall as {F}.", "By the end of summer it was taller than {N}."),
        (
            "It was {plant0}! {N} gave the first {plant1} to {F}.",
            'One day it had {plant2}. "So it is {plant0}!" said {N}, and {he} shared with {F}.',
        ),
    ),
    (
        "{N} took the {o} home, for nobody needed a sign any more.",
        "Good things need time.",
        "Both were {glad}, and they saved new seeds for the next year.",
    ),
    {
        "need": (
            ("it is thirsty", "gave it water"),
            ("it needs more light", "cut the weeds that stood in its light"),
            ("the birds disturb it", "chased the birds away"),
            ("it is cold at night", "covered it with straw"),
            ("the earth is too hard", "made the earth loose with a fork"),
        ),
        "plant": (
            ("a sunflower", "flower", "flowers"),
            ("a tomato plant", "tomato", "tomatoes"),
            ("a bean plant", "bean", "beans"),
            ("a pumpkin plant", "pumpkin", "pumpkins"),
            ("a strawberry plant", "strawberry", "strawberries"),
            ("a pea plant", "pea", "peas"),
        ),
    },
)

RACE = Plot(
    OBJECTS,
    (
        ("{When}, there was a {race0} {at}. The prize was a {O}.", "The winner of the {race0} {at} would get a {O}."),
        ("{N} wanted the {o} very much. So did {F}.", "{N} and {F} both wanted to win."),
        ("They had trained for weeks.", "{N} had practiced with {A} every evening.", ""),
        ('"Ready, steady, go!" They were off.', "A whistle blew, and everybody started."),
        ("{N} was ahead, and {F} was close behind.", "Soon {N} and {F} were in front of all the others."),
        ("Then {F} {fall0}.", "But halfway, {F} {fall0}."),
        (
            "{N} heard {fhim} cry out. {He} could win now, but {he} stopped.",
            "{N} looked back. The prize was near, but a friend was nearer.",
        ),
        ('"Are you hurt?" asked {N}, and {he} {fall1}.', "{He} ran back and {fall1}."),
        ("Somebody else won the race.", "All the others passed them.", "They came in last, side by side."),
        (
            'But the winner said, "You two should have the {o}."',
            'The judge came over and said, "The {o} is for you, because you helped."',
        ),
        ("{N} and {F} held the {o} up together.", "{F} and {N} decided to share the {o}."),
    ),
    (
        "{N} was {glad}, for {he} had won something better than a race.",
        "Helping is a way to win.",
        "They keep the {o} one week each.",
    ),
    {
        "race": (("foot race",), ("sack race",), ("relay race",), ("egg race",), ("long race",), ("three mile run",)),
        "fall": (
            ("fell and hurt {fhis} knee", "put a cloth around the knee"),
            ("got something in {fhis} eye", "washed the eye with clean water"),
            ("twisted {fhis} foot", "let {F} lean on {his} arm"),
            ("had no breath left", "gave {fhim} a drink and fanned {fhim}"),
            ("got a thorn in {fhis} hand", "pulled the thorn out"),
        ),
    },
)

BAKING = Plot(
    CLOTHES,
    (
        (
            "{When}, {N} wanted to bake a {cake0} for {A}. {F}, who lived next door, watched through the window.",
            "{N} planned a surprise for {A}: a {cake0}. Only {F}, who lived next door, knew about it.",
        ),
        (
            "{N} put on {his} {O} to feel like a real cook and began.",
            "{N} put on {his} {O} for luck and opened the cupboard.",
        ),
        ("But there was no {need0} in the house!", "Then {he} saw that the {need0} was gone."),
        (
            '"Without {need0} there will be no {cake0}," {he} said and was {sad}.',
            "{N} looked in every jar, but found no {need0}.",
        ),
        (
            "With the {o} still on, {he} went next door to {F}.",
            "{He} did not even take the {o} off and ran to the house of {F}.",
        ),
        ('"Can you give me some {need0}?" {he} asked.', '"I have no {need0} for my {cake0}," {he} told {fhim}.'),
        ('"I have {need0}," said {F}, "but {deal0}."', '{F} smiled. "You can have the {need0}, but {deal0}."'),
        ("So {N} {deal1}, and {F} gave {him} the {need0}.", "{N} {deal1}. Then {he} got the {need0}."),
        (
            "Together they mixed everything in a bowl and put it in the oven.",
            "They stirred and stirred until the dough was smooth.",
        ),
        (
            "Soon the whole house smelled sweet. The {cake0} was ready.",
            "After an hour, the {cake0} was brown and warm.",
        ),
        ('{A_} came home and took a bite. "How good!" {ahe} said.', "{A_} ate two pieces and was {glad}."),
        (
            "There was flour all over the {o}, but nobody minded.",
            "Nobody said a word about the flour on the {o}.",
            "The {o} was white with flour, and they all laughed.",
        ),
    ),
    (
        "{N} saved the biggest piece for {F}.",
        "And the {o}? It was washed the next day.",
        "A {cake0} tastes best when it is shared.",
    ),
    {
        "cake": tuple((c,) for c in CAKES),
        "need": tuple((i,) for i in INGREDIENTS),
        "deal": (
            ("you must help me sweep the floor", "swept the floor"),
            ("first I need help with the dishes", "washed the dishes"),
            ("you must sing me a song", "sang a song"),
            ("I want to bake with you", "promised to bake together"),
            ("please feed my {animal} first", "fed the {animal}"),
            ("tell me a joke first", "told a joke"),
        ),
    },
    outdoors=False,
)

WEATHER = Plot(
    TOYS,
    (
        (
            "{N} and {F} had a plan. {When}, they wanted to go {to} with the {O} of {N}.",
            "{N} had a new {O} and wanted to try it {at} with {F}.",
        ),
        ("They packed {food} and a big bottle of water.", "{A_} packed {food} for them."),
        ("But when they opened the door, {sky0}.", "Then {sky0}."),
        ('"Our day is ruined," said {N}.', '"Now we cannot go {to}," said {F}, and both were {sad}.'),
        ("They sat at the window and sighed.", "{N} put the {o} in a corner.", ""),
        ('Then {A} said, "{Idea0}."', '"{Idea0}," said {A} with a smile.'),
        ("So they {idea1}.", "They liked that. They {idea1}."),
        (
            "The {o} was part of it too.",
            "They used the {o} as well, and it was great fun.",
            "{N} fetched the {o} from the corner and played with it.",
        ),
        (
            "They ate the {food} on the floor.",
            "The {food} tasted better than ever.",
            '"I never ate better {food}," said {F}.',
        ),
        ("When they looked up, {sky1}.", "In the end {sky1}, but nobody wanted to leave."),
    ),
    (
        "It was the best day of the week.",
        "{N} was {glad} that {sky0}.",
        "A ruined plan can make room for a better one.",
    ),
    {
        "sky": (
            ("it began to rain", "the rain had stopped"),
            ("a storm came up", "the storm was over"),
            ("it started to snow", "the snow had stopped"),
            ("thick fog covered the street", "the fog was gone"),
            ("hail fell from the sky", "the hail had melted"),
        ),
        "idea": (
            ("build a tent under the table", "built a tent under the table"),
            ("have a picnic on the carpet", "had a picnic on the carpet"),
            ("make a theater from a box", "made a theater from a box"),
            ("play pirates on the sofa", "played pirates on the sofa"),
            ("open a shop in the hall", "opened a shop in the hall"),
            ("paint a giant picture", "painted a giant picture"),
        ),
    },
)

BORROWED = Plot(
    OBJECTS,
    (
        ('"May I borrow your {O}?" {N} asked {F} {when}.', "{When}, {N} asked {F} for {fhis} {O}."),
        ('"Yes," said {F}, "but bring it back {due0}."', '{F} gave it to {him}. "I need it back {due0}," {fhe} said.'),
        ('"I promise," said {N}, and {he} took the {o} {to}.', "{N} promised and went {to} with the {o}."),
        (
            "There {he} had so much fun that {he} forgot the promise.",
            "{He} used it all day long and did not think of {F}.",
        ),
        (
            "{N} left the {o} {spot} and went home to eat {food}.",
            "When {he} was hungry, {he} put the {o} {spot} and ran home.",
        ),
        ("{due1}, {F} waited and waited. {Fhe} was {sad}.", "{due1}, {F} stood at the door, but {N} did not come."),
        ('Then {N} {recall0}. "The {o}!" {he} cried.', "{N} {recall0}, and suddenly {he} remembered {his} promise."),
        ("{He} ran back {to}. The {o} was still {spot}.", "{He} hurried {to} and looked {spot}. There was the {o}."),
        ('"I am late, and I am sorry," {he} said to {F}.', "{He} brought it to {F} and said that {he} was sorry."),
        ('"I was worried," said {F}, "but you came."', "{F} was not angry for long."),
        ("To say sorry, {N} gave {fhim} some {food}.", "{N} also cleaned the {o} until it was like new.", ""),
    ),
    (
        "A promise is like a {o}: you must not leave it lying around.",
        "The next time, {N} was back early.",
        "Then both were {glad}.",
    ),
    {
        "due": (
            ("before dinner", "At dinner time"),
            ("tomorrow", "The next day"),
            ("by noon", "At noon"),
            ("before the sun goes down", "When the sun was down"),
            ("on Sunday", "On Sunday"),
        ),
        "recall": (
            ("saw a picture of {F}",),
            ("heard the clock strike",),
            ("found a note from {F}",),
            ("looked at {his} empty hands",),
            ("heard {A} talk about {F}",),
            ("dreamed about it",),
        ),
    },
)

SICK = Plot(
    OBJECTS,
    (
        ("{When}, {F} was not at school. {Fhe} had {ill0}.", "{F} had to stay in bed because {fhe} had {ill0}."),
        (
            "{N}, {fhis} friend, was {sad}, for they had wanted to go {to}.",
            '"Without {F} it is no fun {at}," said {N}.',
        ),
        ('"What can I do for {fhim}?" {he} asked {A}.', "{N} wanted to help and asked {A}."),
        ('"{Cure0} helps against {ill0}," said {A}.', '{A_} said, "When I had {ill0}, {cure0} made me well."'),
        ("So {N} made {cure0} and put it in a basket.", "{N} prepared {cure0} and let it cool a little."),
        (
            "{He} also took {his} {O}, because sick people are often bored.",
            "Then {he} took {his} {O} from the shelf to lend it to {F}.",
        ),
        (
            '"Here is {cure0}, and here is my {o}," {he} said at the bed of {F}.',
            "{F} sat up in bed when {N} came in with the basket and the {o}.",
        ),
        ('{F} {ill1} and said, "Thank you."', '"How nice of you," said {F} and {ill1}.'),
        (
            "{Fhe} took three spoons and played with the {o} until {fhe} fell asleep.",
            "The {o} made {fhim} laugh, and soon {fhe} was asleep.",
        ),
        (
            "Two days later, {F} was well again and brought the {o} back.",
            'After a few days {F} knocked at the door. "I am well," {fhe} said, "and here is your {o}."',
        ),
        ("Then they went {to} together.", "Now they could go {to} at last."),
    ),
    ("{N} was {glad}.", "Kindness is good medicine.", "And when {N} was sick in winter, {F} came with a basket."),
    {
        "ill": (
            ("a cold", "sneezed"),
            ("a fever", "wiped {fhis} hot face"),
            ("a bad cough", "coughed"),
            ("a sore throat", "tried to smile"),
            ("a stomach ache", "held {fhis} belly"),
            ("a headache", "opened {fhis} eyes"),
        ),
        "cure": (
            ("warm soup",),
            ("tea with honey",),
            ("hot milk",),
            ("a bowl of porridge",),
            ("lemon juice",),
            ("rice with salt",),
        ),
    },
)

TREASURE = Plot(
    THINGS,
    (
        (
            "{N} and {F} found an old map {when}. There was a red cross on it.",
            '{When}, {F} showed {N} an old map. "It is a treasure map," {fhe} whispered.',
        ),
        ('The map said, "{Clue0}, {at}."', 'Under the cross stood the words "{clue0}" and a drawing of the {place}.'),
        ("They took a lamp and some {food} and went {to}.", "So they walked {to} with a bag of {food}."),
        (
            '"What do you think it is?" said {wise0}. "Maybe a {O}," answered {wise1}, and they laughed.',
            '"I hope it is a {O}," said {wise1}.',
        ),
        ("First they looked {spot2}, but they found only {junk0}.", "{spot2_} there was nothing but {junk0}."),
        ("Then they tried {spot3}. Nothing.", "They also searched {spot3} without luck.", ""),
        (
            '"{Clue0}," read {N} again. "It means {clue1}!"',
            '{F} read the words once more. "Now I know," {fhe} said. "We must {clue2}!"',
        ),
        ("They did it and came to a place {spot}.", "It led them to a place {spot}."),
        ("There they dug with their hands until they hit a box.", "{N} moved the earth away. There was a box!"),
        (
            "In the box lay a {O}, just as {wise1} had said.",
            "They opened it. A {O}! It was just what {wise1} had said.",
        ),
        (
            'With it was a note: "For those who do not give up."',
            "{F} jumped up and down.",
            "{N} was {glad} and so was {F}.",
        ),
    ),
    (
        "They gave the {o} a place of honor.",
        "They put the map back in the box for other children, and the {o} went home with them.",
        "The {o} was nice, but the search was nicer.",
    ),
    {
        "clue": (
            ("follow the evening shadow", "that we must go east", "go east"),
            ("ten steps from the sound", "the water", "listen for water"),
            ("where the wind sleeps", "a place without wind", "find a place without wind"),
            ("look where the first light falls", "the morning sun", "think of the morning sun"),
            ("three giants guard it", "three tall trees", "find three tall trees"),
        ),
        "wise": (("{N}", "{F}"), ("{F}", "{N}")),
        "junk": (
            ("an old boot",),
            ("a rusty nail",),
            ("a snail",),
            ("a bone",),
            ("some broken glass",),
            ("a wet newspaper",),
        ),
    },
)

NEWCOMER = Plot(
    TOYS,
    (
        ("{F} was new in town and knew nobody.", "A new child called {F} came to the class of {N}."),
        (
            "{When}, {N} saw {fhim} {at}. {Fhe} sat alone, {spot}.",
            "{N} met {fhim} {at} {when}. {Fhe} was alone and looked {sad}.",
        ),
        ("{N} had {his} {O} with {him}.", "{N} carried a {O} under {his} arm."),
        (
            '"Hello," said {N}. "Do you want to play with my {o}?"',
            '{N} went over and asked, "Have you ever seen a {o} like this?"',
        ),
        ("But {F} only shook {fhis} head, because {shy0}.", "{F} looked away. {Shy0}."),
        ("{N} wondered what to do.", "{N} did not go away.", ""),
        ("Then {he} {try0}.", "{He} thought for a moment, and then {he} {try0}."),
        ("That made {F} smile.", "{F} began to laugh.", "{F} looked up with big eyes."),
        ('"{Shy1}," {fhe} said in a low voice.', '"I was quiet," {fhe} said, "because {shy2}."'),
        ('"That does not matter," said {N}.', '"I can help you with that," said {N}.'),
        ("They played with the {o} until the evening.", "{F} took the {o}, and {N} showed {fhim} how it worked."),
    ),
    (
        "The next day, {F} waited for {him}, and so it went all summer.",
        "A {o} and a kind word can start a friendship.",
        "{N} was {glad} to have a new friend.",
    ),
    {
        "shy": (
            ("{fhe} did not speak the language well", "I do not speak well yet", "I do not speak well"),
            ("{fhe} missed {fhis} old home", "I miss my old home", "I miss my old home"),
            ("{fhe} was afraid to break it", "I do not want to break it", "I did not want to break it"),
            ("{fhe} was very shy", "I am a little shy", "I am shy"),
            ("{fhe} had never had a friend", "I never had a friend", "I never had a friend"),
        ),
        "try": (
            ("made a funny face",),
            ("drew a cat in the dust",),
            ("shared {his} {food}",),
            ("stood on {his} head",),
            ("told a story about a lazy {animal}",),
            ("did a silly dance",),
            ("sang a song about {food}",),
        ),
    },
)

PLOTS_TWO: dict[str, Plot] = {
    "strayed": STRAYED,
    "seed": SEED,
    "race": RACE,
    "baking": BAKING,
    "weather": WEATHER,
    "borrowed": BORROWED,
    "sick": SICK,
    "treasure": TREASURE,
    "newcomer": NEWCOMER,
}
