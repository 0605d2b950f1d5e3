"""The closed world of the built-in conversations: facts with one right word each, and what lies outside of it."""

from __future__ import annotations

from dataclasses import dataclass

from smallfry.builtin._words import MONTHS, ONES, WEEKDAYS, words


@dataclass(frozen=True, slots=True)
class Topic:
    """Facts of one kind.

    Args:
        facts: What is asked about -> the right word.
        questions: Templates; {x} is what is asked about.
        answers: Templates; {a} is the right word.
    """

    facts: dict[str, str]
    questions: tuple[str, ...]
    answers: tuple[str, ...]


def _pairs(text: str) -> dict[str, str]:
    """``the_sky:blue a_frog:green`` as a table; an underscore stands for a space."""
    found = dict(pair.split(":") for pair in text.split())
    return {about.replace("_", " "): right.replace("_", " ") for about, right in found.items()}


def _both_ways(text: str) -> dict[str, str]:
    table = _pairs(text)
    return table | {right: about for about, right in table.items()}


def _next(names: tuple[str, ...], step: int, around: bool = True) -> dict[str, str]:
    count = len(names)
    return {name: names[(i + step) % count] for i, name in enumerate(names) if around or 0 <= i + step < count}


COLORS = words("red blue green yellow orange purple pink brown black white gray gold")
DAYS = tuple(day.capitalize() for day in WEEKDAYS)
MONTH_NAMES = tuple(month.capitalize() for month in MONTHS)
_NUMBERS = ONES[:20]
_AFTER = (
    "What comes after {x}?",
    "[Which|What] {kind} comes after {x}?",
    "[Which|What] {kind} is after {x}?",
    "Do you know [which|what] {kind} comes after {x}?",
    "Tell me the {kind} after {x}.",
    "What is the next {kind} after {x}?",
    "If it is {x}, what comes next?",
)
_BEFORE = (
    "What comes before {x}?",
    "[Which|What] {kind} comes before {x}?",
    "[Which|What] {kind} is before {x}?",
    "Do you know [which|what] {kind} comes before {x}?",
    "Tell me the {kind} before {x}.",
    "What is the {kind} right before {x}?",
)


def _of(kind: str, templates: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(t.replace("{kind}", kind) for t in templates)


TOPICS: dict[str, Topic] = {
    "color": Topic(
        _pairs(
            "the_sky:blue the_sea:blue grass:green a_frog:green a_leaf:green a_cucumber:green snow:white milk:white "
            "a_swan:white "
            "salt:white a_cloud:white the_sun:yellow a_banana:yellow a_lemon:yellow butter:yellow a_chick:yellow "
            "blood:red "
            "a_strawberry:red a_tomato:red a_fire_truck:red coal:black the_night:black a_crow:black a_carrot:orange "
            "a_pumpkin:orange a_fox:orange chocolate:brown mud:brown wood:brown a_bear:brown an_elephant:gray "
            "a_mouse:gray "
            "a_stone:gray a_plum:purple a_pig:pink a_crown:gold"
        ),
        (
            "What [color|colour] is {x}?",
            "Which [color|colour] is {x}?",
            "[Do you know|Can you tell me] what [color|colour] {x} is?",
            "What is the [color|colour] of {x}?",
            "Tell me the [color|colour] of {x}.",
            "I forgot what [color|colour] {x} is. [Do you know?|Can you tell me?]",
        ),
        ("{X} is {a}.", "{X} is {a}. [That is easy.|I know that.]", "It is {a}."),
    ),
    "sound": Topic(
        _pairs(
            "cow:moo dog:woof cat:meow duck:quack sheep:baa pig:oink horse:neigh lion:roar bee:buzz owl:hoot "
            "frog:ribbit "
            "mouse:squeak snake:hiss crow:caw donkey:hee-haw bird:tweet wolf:howl goose:honk hen:cluck turkey:gobble"
        ),
        (
            "What does a {x} say?",
            "What sound does a {x} make?",
            "[How does a {x} sound?|Which noise does a {x} make?]",
            "[Do you know|Can you tell me] what a {x} says?",
            "What is the sound of a {x}?",
            "[Make the sound of a {x}.|Can you talk like a {x}?]",
        ),
        ("A {x} says {a}.", "A {x} says {a}! [It is loud.|That is funny.]", "{A}! That is what a {x} says."),
    ),
    "young": Topic(
        _pairs(
            "dog:puppy cat:kitten cow:calf horse:foal sheep:lamb goat:kid pig:piglet hen:chick duck:duckling bear:cub "
            "frog:tadpole deer:fawn goose:gosling kangaroo:joey"
        ),
        (
            "What is a [young|baby|little] {x} called?",
            "[What do you call|What is the name of] a [young|baby] {x}?",
            "[Do you know|Can you tell me] what a [young|baby] {x} is called?",
            "How do people call a [young|baby] {x}?",
            "[I wonder|I want to know] what a young {x} is called.",
        ),
        ("A young {x} is called a {a}.", "It is called a {a}."),
    ),
    "legs": Topic(
        _pairs(
            "dog:four cat:four cow:four horse:four frog:four mouse:four lion:four bird:two duck:two hen:two "
            "child:two spider:eight "
            "ant:six bee:six fly:six butterfly:six snake:no fish:no worm:no"
        ),
        (
            "How many legs does a {x} have?",
            "How many legs has a {x}?",
            "[Do you know|Can you tell me] how many legs a {x} has?",
            "Tell me how many legs a {x} has.",
            "Count the legs of a {x}.",
            "How many legs can you count on a {x}?",
            "[I wonder|I want to know] how many legs a {x} has.",
        ),
        ("A {x} has {a} legs.", "It has {a} legs."),
    ),
    "home": Topic(
        _pairs(
            "bee:hive bird:nest horse:stable spider:web rabbit:burrow cow:barn pig:sty dog:kennel ant:hill hen:coop"
        ),
        (
            "Where does a {x} live?",
            "[Do you know|Can you tell me] where a {x} lives?",
            "What is the home of a {x}?",
            "[Where is the home of a {x}?|Where would I find a {x}?]",
            "Where does a {x} sleep?",
            "[I wonder|I want to know] where a {x} lives.",
        ),
        ("A {x} lives in [a|its] {a}.", "You find a {x} in [a|its] {a}."),
    ),
    "opposite": Topic(
        _both_ways(
            "big:small hot:cold up:down day:night wet:dry fast:slow happy:sad full:empty open:closed hard:soft "
            "good:bad "
            "long:short high:low rich:poor loud:quiet strong:weak clean:dirty near:far left:right first:last "
            "early:late "
            "thick:thin true:false young:old awake:asleep inside:outside over:under begin:end win:lose push:pull "
            "buy:sell "
            "laugh:cry give:take come:go front:back sweet:sour smooth:rough wide:narrow deep:shallow bright:dark "
            "heavy:light"
        ),
        (
            "What is the opposite of {x}?",
            "[Do you know|Can you tell me] the opposite of {x}?",
            "Tell me the opposite of {x}.",
            "[Which word|What] is the opposite of {x}?",
            "The opposite of {x} is what?",
            "[Say|Name|I want to know] the opposite of {x}.",
            "What word means the opposite of {x}?",
            "Give me the opposite of {x}[.|, please.]",
        ),
        ("The opposite of {x} is {a}.", "It is {a}. {X} and {a} are opposites."),
    ),
    "day after": Topic(_next(DAYS, 1), _of("day", _AFTER), ("{a} comes after {x}.", "After {x} comes {a}.")),
    "day before": Topic(_next(DAYS, -1), _of("day", _BEFORE), ("{a} comes before {x}.", "Before {x} comes {a}.")),
    "month after": Topic(_next(MONTH_NAMES, 1), _of("month", _AFTER), ("{a} comes after {x}.", "After {x} comes {a}.")),
    "month before": Topic(
        _next(MONTH_NAMES, -1), _of("month", _BEFORE), ("{a} comes before {x}.", "Before {x} comes {a}.")
    ),
    "number after": Topic(
        _next(_NUMBERS, 1, False), _of("number", _AFTER), ("{A} comes after {x}.", "After {x} comes {a}.")
    ),
    "number before": Topic(
        _next(_NUMBERS, -1, False), _of("number", _BEFORE), ("{A} comes before {x}.", "Before {x} comes {a}.")
    ),
    "count": Topic(
        _pairs(
            "days_are_in_a_week:seven months_are_in_a_year:twelve fingers_are_on_one_hand:five "
            "wheels_does_a_car_have:four "
            "wheels_does_a_bicycle_have:two sides_does_a_triangle_have:three sides_does_a_square_have:four "
            "seasons_are_in_a_year:four eyes_do_you_have_in_your_face:two minutes_are_in_an_hour:sixty "
            "hours_are_in_a_day:twenty-four "
            "letters_are_in_the_alphabet:twenty-six toes_do_people_have:ten wings_does_a_bird_have:two "
            "noses_does_a_face_have:one"
        ),
        (
            "How many {x}?",
            "Do you know this: how many {x}?",
            "[Tell me|Please tell me|Say]: how many {x}?",
            "[Question|Quiz]: how many {x}?",
            "I want to know how many {x}.",
        ),
        ("The answer is {a}.", "{A}.", "{A}. [That is easy.|I know that.]"),
    ),
    "use": Topic(
        _pairs(
            "spoon:eat pen:write broom:sweep bed:sleep cup:drink book:read knife:cut spade:dig needle:sew ball:play "
            "oven:bake chair:sit "
            "brush:paint soap:wash towel:dry boat:sail bicycle:ride"
        ),
        (
            "What do you do with a {x}?",
            "What is a {x} [for|good for]?",
            "What can I do with a {x}?",
            "[Do you know|Can you tell me] what a {x} is for?",
            "Why do people have a {x}?",
            "What do people do with a {x}?",
            "[I wonder|I want to know] what a {x} is for.",
        ),
        ("You can use a {x} to {a}.", "A {x} is there to {a}."),
    ),
    "sort": Topic(
        _pairs(
            "dog:animal cow:animal horse:animal tiger:animal apple:fruit pear:fruit banana:fruit cherry:fruit "
            "carrot:vegetable "
            "onion:vegetable cabbage:vegetable rose:flower tulip:flower daisy:flower oak:tree pine:tree willow:tree "
            "hammer:tool "
            "saw:tool doll:toy kite:toy violin:instrument flute:instrument trumpet:instrument sparrow:bird owl:bird "
            "swan:bird "
            "ant:insect bee:insect"
        ),
        (
            "What is a {x}?",
            "[Do you know|Can you tell me] what a {x} is?",
            "What kind of thing is a {x}?",
            "[What sort of thing is|What would you call] a {x}?",
            "Tell me what a {x} is.",
            "[I wonder|I want to know] what a {x} is.",
            "What would people call a {x}?",
        ),
        ("A {x} is a kind of {a}.", "It is a kind of {a}."),
    ),
}

# Questions that the conversations do not answer.
_COUNTRIES = words(
    "France Spain Italy Japan China India Brazil Peru Egypt Kenya Norway Poland Greece Turkey Canada Mexico Chile "
    "Cuba Ghana Iran "
    "Ireland Iceland Finland Austria Hungary Nepal Vietnam Korea Jordan Morocco"
)
_CITIES = words(
    "Paris London Rome Tokyo Berlin Madrid Oslo Cairo Lima Delhi Vienna Boston Chicago Moscow Dublin Athens"
)
_PEOPLE = words(
    "Newton Einstein Mozart Napoleon Caesar Shakespeare Darwin Plato Columbus Beethoven Galileo Bach Edison Curie"
)
_LANGUAGES = words("French German Spanish Latin Greek Italian Chinese Russian Polish Swedish")
_HARD = words(
    "inflation democracy gravity electricity an_atom photosynthesis a_virus a_neuron quantum_physics a_black_hole"
)
_DEVICES = words("computer phone car printer oven washing_machine radio television camera bicycle")
OUTSIDE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("What is the capital of {x}?", _COUNTRIES),
    ("[Who is the president of|Who rules] {x}?", _COUNTRIES),
    ("How many people live in {x}?", _COUNTRIES + _CITIES),
    ("[How far is it|How do I get] to {x}?", _CITIES + _COUNTRIES),
    ("[What is the weather in|Is it raining in|What time is it in] {x}?", _CITIES),
    ("When was {x} born?", _PEOPLE),
    ("Who was {x}?", _PEOPLE),
    ("[When did|Where did] {x} live?", _PEOPLE),
    ("How do you say [hello|house|water|friend|tree] in {x}?", _LANGUAGES),
    ("Can you explain {x}[| to me]?", _HARD),
    ("How does {x} work?", _HARD),
    ("How do I repair my {x}?", _DEVICES),
    ("How much does a [new |]{x} cost?", _DEVICES),
    ("Who won the [game|race|match|election] [yesterday|last week|last year|today] in {x}?", _CITIES + _COUNTRIES),
    ("What [happened|is new] in {x} [today|this week|last year]?", _CITIES + _COUNTRIES),
)
