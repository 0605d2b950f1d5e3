"""Plots of the `stories` job: beats in order, each with several ways to be told, over facts that stay the same.

Slots: {N} hero, {he} {him} {his}; {F} friend, {fhe} {fhim} {fhis}; {A} somebody of the family ("his mother"), {ahe}
{ahim}; {o} object, {O} object with adjective; {place}, {at} ("in the park"), {to} ("to the park"); {spot}, {spot2},
{spot3}; {animal}; {food}; {sad}, {glad}; and {fact0}, {fact1} ... of the plot's own facts. A capital ({He}) or a
trailing underscore ({A_}) asks for a capital letter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from smallfry.builtin._story_words import OBJECTS, THINGS, TOYS

Facts = dict[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Plot:
    """One family of stories.

    Args:
        objects: What the story may turn on.
        beats: Each a tuple of ways to tell it; an empty way leaves the beat out.
        morals: Last sentences, true for this plot only.
        facts: Name -> choices; one choice is drawn, its parts are {name0}, {name1}, ...
        outdoors: Whether it can only happen outdoors.
    """

    objects: tuple[str, ...]
    beats: tuple[tuple[str, ...], ...]
    morals: tuple[str, ...]
    facts: Facts = field(default_factory=dict)
    outdoors: bool = True


LOST = Plot(
    OBJECTS,
    (
        (
            "{N} had a {O} that {he} [took everywhere|loved more than anything|never lent to anybody].",
            "{N} owned a {O}. [It was a gift from {A}|{A_} had made it|It came from {A}].",
        ),
        (
            "{When}, {he} went {to} with {his} friend {F}.",
            "{When}, {N} and {his} friend {F} walked {to} together.",
            "{When}, {F} asked {N} to come {to}.",
        ),
        (
            "{N} put the {o} {spot} because {he} wanted to {act0}.",
            "To {act0}, {N} laid the {o} {spot}.",
        ),
        ("They {act1} until [the sun went down|they were tired|it was late].", "They {act1} and forgot the time."),
        (
            'Then {N} cried, "My {o} is gone!" {He} [felt very {sad}|was {sad}|began to cry].',
            'When they wanted to go home, the {o} was gone. "I lost my {o}," said {N}, and {he} was {sad}.',
        ),
        (
            '"We will find it," said {F}. "Let us look everywhere."',
            '"Do not cry," said {F}. "I will help you."',
            '{F} took {his} hand. "Let us search together," {fhe} said.',
        ),
        (
            "They looked {spot2}, but the {o} was not there. They looked {spot3}, but found only [leaves|dust|an "
            "ant|a {animal}].",
            "First they searched {spot2} and then {spot3}. There was nothing.",
        ),
        (
            '{F} asked, "What did you do before we {act1}?" {N} [thought hard|closed {his} eyes|scratched {his} head].',
            '"Where did you go first?" asked {F}. {N} thought about it for a while.',
        ),
        (
            '"I wanted to {act0}!" said {N}. {He} ran back and looked {spot}. There was the {o}!',
            "Suddenly {he} remembered. {He} hurried back, and the {o} was still {spot}.",
        ),
        (
            "{N} hugged {F} and was {glad}.",
            '"Thank you, {F}," said {N}, and both were {glad}.',
            "They laughed all the way home.",
        ),
    ),
    (
        "From then on, {N} always [looked back|checked] before going home.",
        "{N} never left the {o} {spot} again.",
        "Two pairs of eyes see more than one.",
    ),
    {
        "act": (
            ("play tag", "played tag"),
            ("climb a tree", "climbed a tree"),
            ("jump rope", "jumped rope"),
            ("race", "raced"),
            ("play hide and seek", "played hide and seek"),
            ("pick flowers", "picked flowers"),
            ("dig a hole", "dug a hole"),
            ("catch bugs", "caught bugs"),
            ("dance", "danced"),
        )
    },
)

BROKEN = Plot(
    TOYS,
    (
        ("{When}, {N} played with {his} {O} {at}.", "{N} took {his} {O} {to} {when}."),
        (
            "{His} friend {F} came to watch.",
            "{F} was there too and wanted to see the {o}.",
            "{F}, {his} best friend, sat beside {him}.",
        ),
        ("Suddenly {why0}, and the {o} broke.", "But then {why0}. Crack! The {o} was broken."),
        (
            '"Oh no!" cried {N}. "It broke because {why0}!"',
            "{N} looked at the pieces and was {sad}.",
            "{N} held the broken {o} and could not speak.",
        ),
        (
            '"Maybe we can fix it with {fix0}," said {F}.',
            '{F} thought for a moment. "All we need is {fix0}," {fhe} said.',
        ),
        ("They asked {A} for {fix0}. {Ahe} had some in a drawer.", "{A_} gave them {fix0} and showed them what to do."),
        (
            "Slowly and with care, they {fix1}. It took [an hour|all afternoon|a long time].",
            "{N} held the parts while {F} worked. Together they {fix1}.",
        ),
        (
            "In the evening, the {o} was whole again.",
            "At last the {o} looked almost as good as before.",
            "When they were done, the {o} worked again.",
        ),
        (
            '"It is even better now," said {N}, "because we fixed it together."',
            "{N} was {glad} and thanked {F} twice.",
            "Both of them were {glad}.",
        ),
    ),
    ("After that day, {N} {why1}.", "{N} learned that broken things can be mended, and {he} {why1}."),
    {
        "why": (
            ("a dog jumped on it", "kept it away from dogs"),
            ("the wind blew it against a wall", "left it at home in strong wind"),
            ("it fell on a stone", "held it with both hands"),
            ("a cart rolled over it", "never left it on the road"),
            ("somebody stepped on it", "never left it on the ground"),
            ("it dropped from a branch", "never took it up a tree"),
            ("the rain made it wet and weak", "kept it dry"),
            ("a goat bit it", "kept it away from goats"),
        ),
        "fix": (
            ("glue", "glued the parts together"),
            ("strong tape", "taped the parts together"),
            ("needle and thread", "sewed the parts together"),
            ("a small nail", "nailed the parts together"),
            ("some wire", "tied the parts with wire"),
            ("a piece of string", "tied the parts together"),
            ("a screw", "screwed the parts together"),
        ),
    },
)

RESCUE = Plot(
    OBJECTS,
    (
        ("{When}, {N} went {to} with {his} {O}.", "{N} was {at} {when} and carried a {O}."),
        (
            "{F} came along.",
            "{His} friend {F} walked beside {him}.",
            "On the way {he} met {F}, and they went on together.",
        ),
        (
            "Then they heard a [small|weak|strange] sound. A {animal} was {trap0}.",
            '"Listen!" said {F}. A {animal} was {trap0}.',
        ),
        ("The poor {animal} {cry}.", "It {cry} and could not get out.", "The {animal} was {sad} and afraid."),
        (
            '"We must help it," said {N}.',
            '"How can we get it out?" asked {F}.',
            '"Do not be afraid, little {animal}," whispered {N}.',
        ),
        (
            "First {F} tried to reach it, but {fhis} arms were too short.",
            "{F} called it softly, but it did not move.",
            "",
        ),
        (
            "Then {N} had an idea. {He} put the {o} down {spot} and {trap1}.",
            '"I know!" said {N}. {He} left the {o} {spot}, and then {he} {trap1}.',
        ),
        ("Slowly the {animal} came out. It was free!", "At last the {animal} was free."),
        (
            "The {animal} shook itself and [licked {his} hand|looked at them|made a happy sound].",
            "It jumped around {N} and {F} three times.",
            "The {animal} ran home to its mother.",
        ),
        (
            "{N} took the {o} from where it was, {spot}, and they walked home.",
            "Then {N} fetched the {o}, which was still {spot}.",
        ),
    ),
    (
        "{N} and {F} were {glad} that the {animal} was safe.",
        "Every week the {animal} came to see them.",
        "Even a small helper can do a big thing.",
    ),
    {
        "trap": (
            ("stuck in the mud", "pulled it out with a rope"),
            ("caught in a net", "cut the net with a stone"),
            ("stuck under a fence", "dug a hole under the boards"),
            ("trapped in a deep hole", "pushed a long branch down like a ladder"),
            ("stuck between two rocks", "moved one rock with a stick"),
            ("high on a roof and afraid to come down", "climbed up on a ladder and carried it down"),
            ("caught in a thorny bush", "bent the thorns aside"),
            ("sitting on a tiny island in the water", "built a bridge of boards"),
        )
    },
)

GIFT = Plot(
    THINGS,
    (
        ("It was almost the birthday of {F}, the best friend of {N}.", "{N} knew that {F} had a birthday soon."),
        ('"I want to give {fhim} something special," said {N}.', "{N} wanted to find the right present."),
        (
            "{When}, {he} went {to} and saw a {O}. It was perfect, because {F} {want0}.",
            "{N} looked for a {o}, because {F} {want0}. {He} found a {O} {at}.",
        ),
        ("But it cost more than {he} had.", "But {N} had only three coins.", "The price was too high for {him}."),
        ("So {N} {job0} for {A} to earn money.", "{N} asked {A} for work. For a week {he} {job0}."),
        (
            "It was hard, but {he} did not give up.",
            "After that, {his} arms hurt, but {his} pocket was full.",
            "{A_} was proud of {him}.",
        ),
        (
            "Then {he} bought the {o} and hid it {spot}.",
            "{N} paid for the {o}, wrapped it in paper, and hid it {spot}.",
        ),
        (
            'On the birthday, {N} said, "Look {spot}!"',
            '"Close your eyes," said {N} on the big day, and {he} took the present from its place {spot}.',
        ),
        (
            '{F} found the {o} and {fhis} eyes grew wide. "How did you know?"',
            '{F} opened the paper. "A {o}!" {fhe} shouted.',
        ),
        ('"I {job0} for it," said {N}, and they both laughed.', "{F} hugged {N} and was {glad}."),
    ),
    (
        "{F} kept the {o} for many years.",
        "The best part was not the {o} but the friend who gave it.",
        "{N} was as {glad} as {F}.",
    ),
    {
        "want": (
            ("had lost an old one",),
            ("always talked about one",),
            ("had never owned one",),
            ("had drawn a picture of one",),
            ("dreamed of having one",),
            ("had given away the last one",),
        ),
        "job": (
            ("washed windows",),
            ("swept the yard",),
            ("carried wood",),
            ("fed the hens",),
            ("sold lemonade",),
            ("watered the flowers",),
            ("picked berries",),
            ("polished shoes",),
            ("raked leaves",),
        ),
    },
    outdoors=False,
)

FEAR = Plot(
    THINGS,
    (
        ("{N} was afraid of {fear0}.", "There was one thing {N} did not like at all, and that was {fear0}."),
        ("{When}, {he} was {at} with {F} when {fear1}.", "{When}, {N} and {F} were {at}, and {fear1}."),
        (
            "{N} [began to shake|wanted to run away|hid behind {F}]. {He} held {his} {O} tight.",
            "{N} pressed the {O} to {his} chest and closed {his} eyes.",
        ),
        (
            '"Why are you afraid?" asked {F}. "Because {fear2}," said {N}.',
            '"I am scared," said {N}. "I think that {fear2}."',
        ),
        ("{F} did not laugh.", "{F} listened and nodded.", '"I was afraid of that too," said {F}.'),
        ('"Let me show you something," {fhe} said. "{fear3}."', '{Fhe} smiled and said, "{fear3}."'),
        (
            "{N} took a deep breath. {He} gave the {o} to {F} and took one step. Then {he} took another.",
            "{N} counted to ten. {F} held the {o}, and {N} went forward alone.",
        ),
        ("Nothing bad happened.", "It was not so bad after all.", "To {his} surprise, it was almost fun."),
        (
            '"I did it!" shouted {N}. {F} gave the {o} back and clapped.',
            "{F} gave the {o} back to {him}. {N} did not need to hold it so tight now.",
        ),
    ),
    (
        "After that, {N} was not afraid of {fear0} any more.",
        "{N} was {glad}, for {fear0} had become a friend.",
        "Being brave is easier with a friend.",
    ),
    {
        "fear": (
            ("the dark", "it grew dark", "there are monsters in it", "In the dark you can see the stars"),
            ("thunder", "a storm began", "the sky will fall", "Thunder is only the sky clapping its hands"),
            (
                "deep water",
                "they had to cross a stream",
                "the water will swallow me",
                "The water carries you if you lie still",
            ),
            ("big dogs", "a big dog came near", "it wants to bite me", "A dog that wags its tail wants to play"),
            ("high places", "they had to cross a high bridge", "the bridge will break", "Look ahead and not down"),
            ("spiders", "a spider crawled over the path", "it will jump at me", "Spiders are shy and build fine nets"),
            ("loud noise", "a band began to play", "my ears will burst", "Clap along and the noise becomes music"),
            ("masks", "a man with a mask came by", "there is no face under it", "Under each mask there is a smile"),
        )
    },
)

SKILL = Plot(
    OBJECTS,
    (
        (
            "{N} wanted to learn how to {skill0}.",
            "More than anything, {N} wished to {skill0}.",
            "All the other children could {skill0}, but {N} could not.",
        ),
        ("{When}, {he} went {to} to try. {F} came with {him}.", "{When}, {N} asked {F} to come {to} and help."),
        (
            '"If you can {skill0}, you may have my {O}," said {F}.',
            '{F} held up a {O}. "This {o} is the prize," {fhe} said.',
        ),
        ("The first time, {N} failed because {skill1}.", "{N} tried, but {skill1}."),
        ("{He} was {sad} and wanted to stop.", '"I will never learn it," said {N}.', "Some children laughed."),
        ('"You must {skill2}," said {F}.', '{F} had watched with care. "Try to {skill2}," {fhe} said.'),
        (
            "So {N} practiced every day for a week.",
            "{N} tried again, and again, and again.",
            "Morning and evening, {N} practiced.",
        ),
        (
            "This time {he} did not forget to {skill2}, and it worked!",
            "At last {N} managed to {skill2}. {He} could {skill0}!",
        ),
        ("{F} cheered and gave {him} the {o}.", '"You earned it," said {F}, and {fhe} gave {N} the {o}.'),
        ("{N} was {glad}.", "{N} showed it to {A} the same evening.", ""),
    ),
    (
        "Now {N} can {skill0} better than anybody {at}.",
        "When you fail, try once more.",
        "{N} put the {o} on a shelf to remember that day.",
    ),
    {
        "skill": (
            ("ride a horse", "{he} leaned too far back", "sit up straight"),
            ("walk on stilts", "{he} took big steps", "take small steps"),
            ("whistle", "{he} blew too hard", "blow softly"),
            ("ride on one wheel", "{he} looked at {his} feet", "look ahead"),
            ("juggle", "{he} threw too high", "throw low"),
            ("catch a butterfly", "{he} made too much noise", "keep still"),
            ("climb a rope", "{he} used only {his} arms", "use your legs"),
            ("paint a horse", "{he} began with the tail", "begin with the body"),
            ("tie a knot", "{he} pulled too soon", "make the loop first"),
            ("jump far", "{he} started too slowly", "run faster"),
            ("sing in tune", "{he} sang too loud", "listen first"),
        )
    },
)

QUARREL = Plot(
    TOYS,
    (
        (
            "{N} and {F} were friends. {When}, they found a {O} {at}.",
            "{When}, {N} and {F} were {at}. {spot_}, they saw a {O}.",
        ),
        (
            '"I saw it first!" said {N}. "No, I did!" said {F}.',
            '"The {o} is mine!" they both shouted.',
            "Both of them wanted the {o}.",
        ),
        ("{N} pulled on one side and {F} pulled on the other.", "{F} grabbed it, and {N} grabbed it back."),
        ("Then {hurt0}.", "They pulled so hard that {hurt0}."),
        ("They stopped at once and looked at each other.", "It was very quiet now.", "{N} was {sad}, and so was {F}."),
        ('"I am sorry," said {N}. "A {o} is not worth a fight."', '{F} spoke first. "I am sorry," {fhe} said.'),
        ("{N} helped, and soon {hurt1}.", "Side by side they worked until {hurt1}."),
        (
            '"{plan0}," said {F}.',
            '{N} had an idea. "{plan0}," {he} said.',
            '"How can we share it?" asked {N}. "{plan0}," answered {F}.',
        ),
        ("And so they did. {plan1}.", "It was a good plan. {plan1}."),
        ("They played with the {o} until it was dark.", "Both were {glad}, and the {o} belonged to both of them."),
    ),
    (
        "Sharing made the {o} twice as much fun.",
        "They never fought over the {o} again.",
        "A friend is worth more than a {o}.",
    ),
    {
        "hurt": (
            ("{F} fell and scratched {fhis} knee", "the knee was clean and had a bandage"),
            ("{F} tore {fhis} sleeve", "the sleeve was sewn again"),
            ("they knocked over a pot of paint", "the floor was clean again"),
            ("they broke a flower pot", "the flower stood in a new pot"),
            ("{F} dropped {fhis} lunch in the mud", "{F} had half of the lunch of {N}"),
            ("they bumped their heads", "both had a cool cloth on their heads"),
        ),
        "plan": (
            ("You take it today and I take it tomorrow", "Each day it changed hands"),
            ("Let us use it together", "One held it and one ran beside"),
            ("You have it in the morning and I have it after lunch", "At noon it changed hands"),
            ("Let us keep it at school for everybody", "Soon all the children played with it"),
        ),
    },
    outdoors=False,
)

TRUTH = Plot(
    THINGS,
    (
        ("The {kin} of {N} had a {O} that nobody was allowed to touch.", "The {kin} of {N} kept a {O} in a drawer."),
        ("{When}, {N} took it {to} to show it to {F}.", '"Show me the {o}," said {F} {when}. So {N} brought it {to}.'),
        ("While they looked at it, {bad0}.", "They were careful, but {bad0}."),
        ('"What shall we do?" whispered {F}.', '"Nobody saw us," said {F}.', "{F} turned pale."),
        (
            "{N} put the {o} back and said nothing.",
            "{N} hid the {o} under {his} bed and went to dinner without a word.",
        ),
        ("But {he} could not {cannot0}.", "That night {he} could not {cannot0}. {He} was {sad}."),
        ("In the morning {he} went to {A}.", "At last {N} stood up and looked for {A}."),
        (
            '"I took your {o}, and {bad0}," {he} said. "I am sorry."',
            "{He} told the whole truth: {bad0}, and it was because of {him}.",
        ),
        ("{A_} was quiet for a while.", "For a moment it was very quiet.", ""),
        ('Then {ahe} said, "Thank you for telling me. {bad1}"', '"I am glad that you told me," {ahe} said. "{bad1}"'),
        ("{N} felt {glad} and light.", "{N} told {F}, and {fhe} helped too."),
    ),
    (
        "The truth is heavy at first, but light later.",
        "{N} never took the {o} again without asking.",
        "That night {N} slept very well.",
    ),
    {
        "bad": (
            ("it got a deep scratch", "We can polish it together."),
            ("it fell and got a crack", "We can glue it together."),
            ("it got wet", "We can dry it by the fire."),
            ("a part of it came off", "We can put the part back on."),
            ("it got a dark spot", "We can wash it with soap."),
            ("it was bent", "We can make it straight again."),
        ),
        "cannot": (("eat",), ("sleep",), ("play",), ("laugh",), ("think of anything else",)),
    },
    outdoors=False,
)

PLOTS_ONE: dict[str, Plot] = {
    "lost": LOST,
    "broken": BROKEN,
    "rescue": RESCUE,
    "gift": GIFT,
    "fear": FEAR,
    "skill": SKILL,
    "quarrel": QUARREL,
    "truth": TRUTH,
}
