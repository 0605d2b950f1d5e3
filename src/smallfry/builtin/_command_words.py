"""Words and values for the `commands` job: what may stand in an open slot.

A value never begins with an article or "my", and never holds punctuation other than the colon of "7:30".
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from smallfry.builtin._grammar import fill
from smallfry.builtin._split import choose, part_of, pick
from smallfry.builtin._words import MONTHS, ONES, WEEKDAYS, number_words, words
from smallfry.job import SplitName

WORDS: dict[str, tuple[str, ...]] = {
    "first": words(
        "anna ben carla david elena felix grace hugo irene jonas kira leo maria nadia oscar paula quentin rosa simon "
        "tara ugo vera walter xenia yara zoe adam bella chris dora emil fiona george hannah ivan julia karl lena milo "
        "nora otto petra ralph sofia tom ursula victor wanda yusuf amina bruno chloe derek edith frank gita henry ines "
        "jamal kofi linda mateo nina olga pedro rachel sven tessa uma vikram wen yuki akira beatrice cyrus delia esther"
    ),
    "last": words(
        "lopez meyer silva novak chen okafor rossi jensen patel kowalski dubois tanaka murphy haddad larsen romero "
        "becker costa ivanov nguyen schmidt bianchi ferrari walsh moreau sato andersen pereira fischer kaya hansen "
        "marino bakker svensson torres weber petrov singh alvarez demir keller lindgren mancini navarro olsen palmer "
        "quinn reyes santos turner ueda vargas whitman yilmaz zimmer abbott barnes carver dawson ellison fletcher "
        "garner hobbs irwin jarvis knight lambert mercer norton osborne porter ramsey shelton tucker vaughn"
    ),
    "room": words(
        "kitchen bedroom bathroom hallway garage attic basement den study nursery pantry porch patio balcony library "
        "lounge cellar sunroom workshop laundry_room living_room dining_room guest_room playroom office conservatory "
        "foyer studio gym wardrobe corridor staircase veranda loft parlor greenhouse tv_room utility_room"
    ),
    "room_mod": words(
        "upstairs downstairs back front small big main second spare old new blue green yellow north south east west "
        "left right middle lower upper white red corner rear tiny largest smallest"
    ),
    "device": words(
        "fan heater kettle television radio printer dishwasher dryer toaster oven humidifier vacuum projector speaker "
        "blender fountain sprinkler freezer router scanner charger purifier dehumidifier pond_pump rice_cooker "
        "coffee_machine washing_machine air_conditioner game_console hot_tub water_heater fish_tank sewing_machine "
        "slow_cooker bread_maker ice_maker monitor amplifier treadmill jukebox"
    ),
    "device_mod": words(
        "ceiling desk portable electric smart spare big little old new black white silver wall floor travel mini tall "
        "wireless noisy quiet fancy cheap broken rented borrowed second wooden plastic steel"
    ),
    "dish": words(
        "pasta rice soup bread stew lasagna curry pizza chili risotto quiche porridge pancakes muffins brownies "
        "cookies salmon chicken potatoes noodles dumplings casserole meatballs lentils beans eggs waffles pie cake "
        "tart goulash paella couscous turkey biscuits scones pudding custard jam broth"
    ),
    "dish_mod": words(
        "lemon spicy tomato garlic brown wild apple cherry mushroom creamy baked roasted sweet green red chocolate "
        "pumpkin onion pepper herb coconut ginger honey almond smoked crispy slow vegan leek carrot"
    ),
    "activity": words(
        "yoga nap homework meditation laundry workout stretching reading piano revision bath break sprint plank "
        "drawing gardening vacuuming ironing breathing puzzle"
    ),
    "activity_mod": words("morning evening daily short long first last second quick deep slow weekly hard easy quiet"),
    "event": words(
        "meeting review appointment lesson interview party dinner lunch rehearsal workshop call checkup walkthrough "
        "demo training presentation briefing tasting barbecue picnic concert screening audit kickoff retrospective "
        "reunion inspection haircut hike tournament seminar lecture ceremony brunch consultation"
    ),
    "event_mod": words(
        "budget dentist piano project birthday team design marketing sales product yearly monthly guitar tennis choir "
        "wedding family garden safety spring summer board parent school chess swimming legal hiring science pottery "
        "opera roof history poetry cooking climbing salary insurance"
    ),
    "item": words(
        "milk eggs bread butter cheese apples bananas rice flour sugar salt coffee tea yogurt tomatoes onions garlic "
        "carrots spinach noodles olives honey oats soap shampoo toothpaste batteries candles napkins envelopes stamps "
        "sponges socks gloves sunscreen towels scissors tape markers notebooks mustard vinegar crackers walnuts "
        "lemons peppers mushrooms lentils raisins cereal ketchup detergent matches bandages slippers umbrellas pens "
        "almonds cucumbers grapes plums cabbage basil cinnamon vitamins lightbulbs screws"
    ),
    "item_mod": words(
        "fresh frozen organic green red brown dark white small large cheap sliced dried canned salted plain sweet "
        "whole spare thick soft local crunchy smoked ripe extra mild spicy raw paper cotton wool rubber wooden"
    ),
    "place_name": words(
        "harbor riverside maple oak sunset central union lincoln garden hillside lakeview victoria castle mill "
        "orchard station royal pioneer summit valley eagle willow market liberty cedar bridge coral meadow falcon "
        "granite juniper marble northgate pearl quarry raven sterling thornton umber violet winding ashford birch"
    ),
    "place_kind": words(
        "museum clinic bakery hospital library theater stadium pharmacy airport hotel cafe bookstore school zoo "
        "gallery gym church cinema supermarket aquarium courthouse brewery dentist florist diner post_office "
        "car_wash gas_station town_hall garden_center ice_rink bowling_alley train_station golf_club"
    ),
    "street": words("street avenue road lane drive square court boulevard alley terrace"),
    "city": words(
        "paris london tokyo madrid rome vienna oslo lisbon dublin prague athens cairo delhi seoul boston denver "
        "chicago toronto sydney lima bogota nairobi lagos jakarta manila hanoi geneva munich seville porto naples "
        "krakow riga tallinn helsinki bergen malmo ghent bruges lyon nantes turin bilbao leeds cardiff glasgow "
        "calgary austin dallas memphis portland tucson quito havana accra dakar kigali lusaka osaka kyoto busan"
    ),
    "city_head": words(
        "marl ash brook clif dun elm fair glen hart kings lang mel nor oak pres red stan thorn wal wes wood bar cran "
        "dal ever fern green hazel iron"
    ),
    "city_tail": words("ton ville burg field ford ham mouth port bury dale stead wick worth view crest"),
    "city_mod": words("new old port lake saint fort mount upper lower grand"),
    "noun": words(
        "river moon heart city train summer winter shadow dream ocean fire mirror garden thunder window highway "
        "mountain diamond stranger candle desert forest engine lantern meadow paper rocket silence sparrow tiger "
        "valley whisper anchor bottle circus feather harvest island jungle ladder"
    ),
    "plural": words(
        "lights stars doors alarms letters echoes wolves rivers mirrors engines rockets sparrows tigers lanterns "
        "foxes pilots robots oceans timers shadows ghosts sailors lemons castles bridges windows kites owls clocks "
        "trumpets violets comets pirates islands bells sirens"
    ),
    "adj": words(
        "silver golden broken lonely electric midnight crimson hollow velvet wild quiet burning frozen empty endless "
        "gentle hidden lazy neon paper restless rusty secret sleepy stolen tender twisted weary wooden yellow purple "
        "dizzy brave distant faded gloomy happy icy jolly"
    ),
    "adverb": words(
        "tomorrow tonight later never again slowly softly sometimes someday always gently forever yesterday sunday "
        "monday anyway outside twice"
    ),
    "verb": words("call wake find follow remember hold carry forget teach trust show save leave hear keep meet"),
    "verb_thing": words(
        "turn_off turn_on dim play cancel book count paint stop chase cross steal burn open close light translate "
        "kill switch_off find follow send"
    ),
    "topic": words(
        "budget contract invoice report roadmap proposal survey agenda payroll tax_return lease warranty menu "
        "schedule floor_plan inventory thesis resume recipe itinerary newsletter logo minutes receipt manual "
        "syllabus forecast brochure transcript certificate passport_scan guest_list price_list"
    ),
    "topic_mod": words(
        "quarterly final signed old draft updated summer marketing travel insurance medical project kitchen garden "
        "school office annual revised client vendor secret second german original winter legal board wedding music "
        "weather calendar training"
    ),
    "chore": words(
        "water_the_plants feed_the_cat walk_the_dog take_out_the_trash lock_the_back_door iron_the_shirts mow_the_lawn "
        "wash_the_car clean_the_oven fold_the_laundry sweep_the_porch defrost_the_chicken turn_off_the_lights "
        "take_my_pills charge_the_camera renew_the_passport pay_the_rent return_the_books pick_up_the_kids "
        "book_a_table cancel_the_gym_membership set_the_table empty_the_dishwasher stretch print_the_tickets "
        "call_the_plumber check_the_oven play_the_lottery change_the_filter open_the_windows turn_on_the_sprinkler "
        "back_up_the_laptop sign_the_form vote renew_the_insurance send_the_invoice weigh_the_parcel"
    ),
    "meeting_room": words(
        "maple cedar atlas orion apollo mercury coral amber sapphire falcon everest pacific baltic juniper lotus "
        "phoenix saturn tundra vega willow zenith aurora cobalt delta ember fjord glacier harbor indigo jasper"
    ),
}

# Patterns of the composed kinds; a slot names a list above, or a kind of `value`.
PATTERNS: dict[str, tuple[str, ...]] = {
    "person": ("{first}", "{first} {last}", "{first} {last}"),
    "room": ("{room}", "{room_mod} {room}", "{room_mod} {room}"),
    "device": ("{device}", "{device_mod} {device}", "{device_mod} {device}"),
    "label": ("{dish}", "{dish_mod} {dish}", "{activity_mod} {activity}", "{dish_mod} {dish}"),
    "title": ("{event_mod} {event}", "{event_mod} {event}", "{event_mod} and {event_mod} {event}"),
    "item": ("{item}", "{item_mod} {item}", "{item_mod} {item}", "{item} and {item}"),
    "place": ("{place_name} {place_kind}", "{place_name} {place_kind}", "{house} {place_name} {street}"),
    "city": ("{city}", "{city_head}{city_tail}", "{city_mod} {city_head}{city_tail}", "{city_head}{city_tail}"),
    "artist": ("{adj} {plural}", "{first} {last}", "{first} and [her|his] {plural}", "{noun} {plural}"),
    "query": ("{topic_mod} {topic}", "{topic_mod} {topic}", "{topic_mod} {topic_mod} {topic}"),
    "meeting_room": ("{meeting_room} room", "{meeting_room} lounge", "{room_mod} {meeting_room} room"),
    "song": (
        "{verb} me {adverb}",
        "{verb_thing} the {plural}",
        "{adj} {noun}",
        "{adj} {noun} {plural}",
        "{noun} of {plural}",
        "{verb} me when the {noun} sings",
        "dancing with {first}",
        "remind me of {first}",
        "{adj} hearts {adverb}",
        "no more {plural}",
        "{plural} over {city}",
        "what the {noun} said",
    ),
    "message": (
        "i am running {count} minutes late",
        "dinner is ready",
        "{first} is waiting at the {place_kind}",
        "we are out of {item}",
        "i will {chore}",
        "it would be nice to have {item_mod} {item}",
        "i left the keys under the {device}",
        "{first} still has the {topic_mod} {topic}",
        "everyone wishes you {adj} dreams",
        "you should {verb} me when you reach the {place_kind}",
        "i finally fixed the {device_mod} {device}",
        "train was cancelled so i am still in {city}",
        "i liked the {dish_mod} {dish}",
        "nobody can find the {topic}",
        "we want to play {plural} and {plural}",
        "i will {chore} and then come over",
        "{first} said yes",
        "you must set the {device} on the {noun} table",
        "everyone loved your {dish_mod} {dish}",
        "you have to turn off the {device} before you leave",
        "{first} needs {count} more {item}",
    ),
    "text": (
        "where is the {place_kind}",
        "how much is the {dish_mod} {dish}",
        "i would like {item_mod} {item}",
        "i am allergic to {item}",
        "good morning {first}",
        "can you call a doctor",
        "do not {chore}",
        "i lost my {topic}",
        "two tickets for {city}",
        "is the {place_kind} open",
        "we need {count} more {item}",
        "have you seen my {adj} {device}",
        "wake me {adverb}",
        "turn off the {adj} {device}",
        "your {noun} is very {adj}",
    ),
    "task": (
        "{chore}",
        "{chore} and {chore}",
        "buy {item_mod} {item}",
        "call {first} about the {topic_mod} {topic}",
        "send {first} the {topic_mod} {topic}",
        "turn off the {device_mod} {device}",
        "pick up {first} from the {place_kind}",
        "return the {device_mod} {device}",
        "order {dish_mod} {dish}",
        "bake a {dish_mod} cake",
        "prepare the {event_mod} {event}",
        "thank {first} for the {item_mod} {item}",
        "cancel the {event_mod} {event}",
    ),
}

# Chance that a word of a held-out value is itself held out; the value as a whole always is.
HELD_WORDS = 0.05
_REPEATABLE = frozenset({"the", "and", "a", "of", "my", "i", "me", "you"})
SHARED_DAYS = ("today", "tomorrow", "tonight", "day after tomorrow", *WEEKDAYS)


@dataclass(frozen=True, slots=True)
class Value:
    """An open value as written, with the article and the preposition that may stand before it (never part of it)."""

    text: str
    article: str = ""
    preposition: str = ""


def _count(rng: random.Random, low: int, high: int) -> str:
    n = rng.randrange(low, high)
    return str(n) if rng.random() < 0.4 else number_words(n)


def _duration(rng: random.Random) -> str:
    kind = rng.random()
    unit = choose(rng, ("seconds", "minutes", "minutes", "minutes", "hours"))
    if kind < 0.75:
        return f"{_count(rng, 2, 13 if unit == 'hours' else 100)} {unit}"
    if kind < 0.9:
        return f"{choose(rng, ('one hour', 'two hours', 'three hours'))} and {_count(rng, 2, 60)} minutes"
    return f"{number_words(rng.randrange(2, 20))} and a half {choose(rng, ('minutes', 'hours'))}"


def _time(rng: random.Random) -> str:
    kind, hour, minute = rng.random(), rng.randrange(1, 13), rng.randrange(1, 60)
    half = choose(rng, ("", " am", " pm", " pm", " in the morning", " in the evening"))
    if kind < 0.4:
        return f"{hour}:{minute:02d}{half}"
    if kind < 0.7:
        spoken = f"oh {ONES[minute]}" if minute < 10 else number_words(minute)
        return f"{number_words(hour)} {spoken}{half}"
    if kind < 0.85:
        lead = choose(rng, ("half past", "quarter past", "quarter to", "five past", "ten to", "twenty past"))
        return f"{lead} {number_words(hour)}{half}"
    return f"{hour if rng.random() < 0.5 else number_words(hour)}{half or ' pm'}"


def _day(rng: random.Random, part: SplitName) -> Value:
    if rng.random() < 0.2:
        text = choose(rng, SHARED_DAYS)
        return Value(text, "the " if "after" in text else "", "on " if text in WEEKDAYS else "")
    while True:
        month, n = choose(rng, MONTHS), rng.randrange(1, 29)
        ordinal = f"{n}{'th' if 10 < n < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"
        kind = rng.random()
        if kind < 0.45:
            value = Value(f"{month} {ordinal}", "", "on ")
        elif kind < 0.75:
            value = Value(f"{ordinal} of {month}", "the ", "on ")
        else:
            value = Value(f"{choose(rng, WEEKDAYS)} {month} {ordinal}", "", "on ")
        if part_of(value.text) == part:
            return value


def value(kind: str, rng: random.Random, part: SplitName) -> Value:
    """Draw an open value that only `part` may use (a few plain days such as "tomorrow" are everybody's).

    Args:
        kind: One of the keys of `PATTERNS`, or `day`, `time`, `duration`, `temperature`, `people`.
        rng: Source of the draw.
        part: The split the value is for.
    """
    if kind == "day":
        return _day(rng, part)
    while True:
        if kind == "time":
            text = _time(rng)
        elif kind == "duration":
            text = _duration(rng)
        elif kind == "temperature":
            text = _count(rng, 10, 95)
        elif kind == "people":
            text = _count(rng, 2, 60)
        else:
            text = fill(rng, choose(rng, PATTERNS[kind]), lambda name: _word(name, rng, part))
        content = [w for w in text.split() if w not in _REPEATABLE]
        if len(set(content)) == len(content) and part_of(text) == part:
            return Value(text, "the " if kind == "place" and not text[0].isdigit() else "")


def _word(name: str, rng: random.Random, part: SplitName) -> str:
    if name == "count":
        return _count(rng, 2, 60)
    if name == "house":
        return str(rng.randrange(1, 200))
    return pick(rng, WORDS[name], part, HELD_WORDS)
