"""Functions of the `commands` job and how people ask for them.

In a template `{x}` is an open value, `{@day}` a day with its preposition, `{x:form}` a closed value phrased as `form`,
`<x>` where the clause of the optional argument x goes, `<*>` where all remaining clauses go (by default the end).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Function:
    """One function: arguments in output order, and the sentences that call for it.

    Args:
        args: Argument names in output order.
        orders: Imperative templates (a "please" or "could you" may precede them).
        wishes: Statements and questions.
        clauses: For each optional argument the ways to add it.
        absent: Text at `<x>` when x is not given.
        together: Pairs of arguments that never occur together.
        kinds: The value kind of an open argument where it is not the argument's own name.
    """

    args: tuple[str, ...]
    orders: tuple[str, ...]
    wishes: tuple[str, ...]
    clauses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    together: tuple[tuple[str, str], ...] = ()
    kinds: dict[str, str] = field(default_factory=dict)


_DAY = ("{@day}",)
_TIME = ("at {time}",)

FUNCTIONS: dict[str, Function] = {
    "set_light": Function(
        ("room", "state"),
        (
            "{state:verb} the lights in the {room}",
            "{state:verb} the {room} lights",
            "{state:verb} the lamp in the {room}",
            "{state:verb} every light in the {room}",
            "{state:verb} all the lamps [over in|in] the {room}",
            "make sure the lights in the {room} are {state:adj}",
            "set the {room} lights to {state:set}",
            "set the lamps in the {room} to {state:set}",
            "have the {room} lights {state:adj}",
        ),
        (
            "i want the {room} lights {state:adj}",
            "i would like the lights in the {room} {state:adj}",
            "the {room} lights should be {state:adj}",
            "can the lamps in the {room} be {state:adj}?",
            "lights {state:adj} in the {room}",
            "in the {room}, i need the lights {state:adj}",
            "why are the {room} lights not {state:adj}, change that",
        ),
    ),
    "control_device": Function(
        ("device", "power", "room"),
        (
            "{power:verb} the {device}",
            "{power:verb} the {device} for me",
            "{power:verb} my {device}",
            "make sure the {device} is {power:adj}",
            "get the {device} {power:adj}",
            "have my {device} {power:adj}",
            "see to it that the {device}<*> is {power:adj}",
            "check that the {device}<*> is {power:adj} and if not {power:it}",
        ),
        (
            "i want the {device} {power:adj}",
            "i need my {device} {power:adj}",
            "the {device} should be {power:adj}",
            "is the {device} {power:adj}, if not {power:it}",
            "i would like the {device} to be {power:adj}",
            "can i have the {device} {power:adj}?",
        ),
        {"room": ("in the {room}", "over in the {room}")},
    ),
    "set_thermostat": Function(
        ("temperature", "unit", "room"),
        (
            "set the thermostat to {temperature}<unit>",
            "set the heating to {temperature}<unit>",
            "set the temperature<*> to {temperature}<unit>",
            "make it {temperature}<unit>",
            "warm things up to {temperature}<unit>",
            "cool things down to {temperature}<unit>",
            "keep the temperature at {temperature}<unit>",
            "bring the heat to {temperature}<unit>",
            "adjust the climate<*> to {temperature}<unit>",
            "change the thermostat<*> to {temperature}<unit>",
        ),
        (
            "i want it at {temperature}<unit>",
            "it should be {temperature}<unit>",
            "i would feel better with {temperature}<unit>",
            "how about {temperature}<unit>",
            "{temperature}<unit> would be comfortable",
        ),
        {"unit": ("{unit:after}",), "room": ("in the {room}", "for the {room}", "over in the {room}")},
        {"unit": "[|| degrees]"},
    ),
    "set_timer": Function(
        ("duration", "label"),
        (
            "set a timer for {duration}",
            "start a timer of {duration}",
            "set a countdown of {duration}",
            "put {duration} on the timer",
            "count down {duration}",
            "begin a countdown<*> with {duration}",
            "give me {duration} on the clock",
            "run the timer<*> for {duration}",
            "tell me when {duration} are up",
            "let me know when {duration} have passed",
            "buzz me in {duration}",
            "start the clock<*> with {duration}",
            "set a timer<*> to {duration}",
        ),
        (
            "i need a timer for {duration}",
            "i want a countdown of {duration}",
            "timer: {duration}",
            "{duration} on the timer",
        ),
        {
            "label": (
                "for the {label}",
                "for my {label}",
                "called {label}",
                "named {label}",
                "labeled {label}",
                "with the name {label}",
            )
        },
    ),
    "set_alarm": Function(
        ("time", "day", "repeat"),
        (
            "set an alarm for {time}",
            "set the alarm<*> to {time}",
            "wake me up at {time}",
            "wake me<*> at {time}",
            "get me up at {time}",
            "get me out of bed at {time}",
            "put an alarm on at {time}",
            "ring the alarm<*> at {time}",
            "make the alarm go off at {time}",
            "have an alarm ready for {time}",
            "add an alarm at {time}",
        ),
        (
            "i need to be up by {time}",
            "i have to get up at {time}",
            "i want an alarm at {time}",
            "alarm at {time}",
            "i must be awake by {time}",
        ),
        {"day": _DAY, "repeat": ("{repeat:when}",)},
        together=(("day", "repeat"),),
    ),
    "create_event": Function(
        ("title", "day", "time", "person"),
        (
            "schedule a {title} {@day}",
            "add a {title} to my calendar {@day}",
            "put a {title} on the calendar {@day}",
            "put the {title} down {@day}",
            "plan a {title} {@day}",
            "create an event {@day} called {title}",
            "set up a {title} {@day}",
            "enter the {title} in my calendar<*> {@day}",
            "block my calendar {@day}<*> for the {title}",
            "make an entry<*> {@day} for my {title}",
            "arrange a {title}<*> {@day}",
        ),
        (
            "i have a {title} {@day}<*>, put it in the calendar",
            "there is a {title} {@day}<*>, add it to the calendar",
            "new event {@day}: {title}<*>",
            "my calendar needs a {title} {@day}",
            "{@day} i have my {title}<*>, write that down",
        ),
        {"time": _TIME, "person": ("with {person}", "together with {person}")},
    ),
    "cancel_event": Function(
        ("title", "day"),
        (
            "cancel the {title}",
            "cancel my {title}",
            "delete the {title} from my calendar",
            "remove the {title} from the calendar",
            "take the {title}<*> off my calendar",
            "call off the {title}",
            "drop the {title}<*> from my schedule",
            "scrap the {title}",
            "get rid of the {title}",
            "clear the {title}<*> from the calendar",
        ),
        (
            "i cannot make it to the {title}<*>, cancel it",
            "the {title}<*> is off, delete it",
            "the {title}<*> is not happening, remove it",
            "i will not go to my {title}<*>, take it off the calendar",
            "no {title}<*> after all, delete the entry",
        ),
        {"day": _DAY},
    ),
    "send_message": Function(
        ("person", "message", "channel"),
        (
            "tell {person}<*> that {message}",
            "let {person} know<*> that {message}",
            "message {person}<*> saying {message}",
            "send {person} a message<*> saying {message}",
            "send a message to {person}<*> that says {message}",
            "{channel:verb} {person} that {message}",
            "{channel:verb} {person} saying {message}",
            "{channel:verb} {person} to say {message}",
            "write to {person}<*> that {message}",
            "drop {person} a line<*> saying {message}",
            "pass this on to {person}<*>: {message}",
            "get word to {person}<*> that {message}",
        ),
        (
            "i want to tell {person}<*> that {message}",
            "message for {person}<*>: {message}",
            "{person} should hear<*> that {message}",
            "i need {person} to know<*> that {message}",
            "{person} has to be told<*> that {message}",
        ),
        {"channel": ("{channel:by}",)},
    ),
    "play_music": Function(
        ("song", "artist", "room"),
        (
            "play {song}",
            "play the song {song}",
            "put on {song}",
            "put on the track {song}",
            "start the song {song}",
            "queue up {song}",
            "let me hear {song}",
            "play me {song}",
            "throw on the tune {song}",
            "start playing {song}",
            "play the track called {song}",
        ),
        (
            "i want to hear {song}",
            "i feel like listening to {song}",
            "i am in the mood for the song {song}",
            "music: {song}",
            "i would love to hear the track {song}",
            "next song should be {song}",
        ),
        {
            "artist": ("by {artist}", "by the artist {artist}"),
            "room": ("on the {room} speakers", "on the speakers in the {room}"),
        },
    ),
    "add_to_list": Function(
        ("item", "list"),
        (
            "add {item} to the {list:to}",
            "put {item} on the {list:to}",
            "add {item} to my {list:to}",
            "write {item} down under {list:to}",
            "include {item} in the {list:to}",
            "place {item} on my {list:to}",
            "append {item} to the {list:to}",
            "to the {list:to}, add {item}",
            "on my {list:to}, put {item}",
            "note {item} in my {list:to}",
            "stick {item} on the {list:to}",
        ),
        (
            "{item} should go on the {list:to}",
            "i want {item} on the {list:to}",
            "the {list:to} needs {item}",
            "there should be {item} on the {list:to}",
            "i forgot {item} on my {list:to}, add it",
            "i keep forgetting {item} for my {list:to}, add it",
        ),
    ),
    "navigate": Function(
        ("place", "mode", "avoid"),
        (
            "navigate to {place}",
            "take me to {place}",
            "guide me to {place}",
            "give me directions to {place}",
            "start navigation to {place}",
            "show me the way to {place}",
            "find a route to {place}",
            "get me to {place}",
            "plan a route<*> to {place}",
            "bring me to {place}",
            "lead the way to {place}",
        ),
        (
            "how do i get to {place}<*>?",
            "i need to go to {place}",
            "i want to get to {place}",
            "what is the best way<*> to {place}?",
            "i am heading to {place}<*>, show me the way",
            "which way is it to {place}<*>?",
        ),
        {"mode": ("{mode:by}",), "avoid": ("avoiding {avoid:no}", "without {avoid:no}")},
    ),
    "call_contact": Function(
        ("person", "line", "call_type"),
        (
            "call {person}",
            "phone {person}",
            "ring {person}",
            "give {person} a call",
            "dial {person}",
            "get {person} on the phone",
            "start a call with {person}",
            "place a call to {person}",
            "connect me with {person}",
            "try to reach {person}",
            "make a call to {person}",
            "put me through to {person}",
        ),
        (
            "i want to talk to {person}",
            "i need to speak with {person}",
            "i have to phone {person}",
            "can i get a call with {person}",
            "i would like to ring {person}",
        ),
        {"line": ("{line:on}",), "call_type": ("{call_type:with}",)},
    ),
    "get_weather": Function(
        ("city", "day", "measure"),
        (
            "tell me the weather in {city}",
            "give me the forecast for {city}",
            "check the weather<*> in {city}",
            "look up the {measure:noun} in {city}",
            "show me the {measure:noun}<*> for {city}",
            "find out the {measure:noun} for {city}",
            "tell me, {measure:ask} in {city}",
            "get the forecast<*> for {city}",
        ),
        (
            "what is the weather like in {city}<*>?",
            "{measure:ask} in {city}<*>?",
            "{measure:ask}<*> in {city}?",
            "what is the {measure:noun} in {city}<*>?",
            "what is the forecast<*> for {city}?",
            "how does the sky look in {city}<*>?",
            "i am flying to {city}, {measure:ask} there<*>?",
            "i wonder about the weather in {city}",
            "in {city}, {measure:ask}<*>?",
        ),
        {"day": _DAY},
    ),
    "translate": Function(
        ("text", "language"),
        (
            "translate {text} into {language:in}",
            "translate {text} to {language:in}",
            "translate the sentence {text} into {language:in}",
            "translate into {language:in} the words {text}",
            "put {text} into {language:in}",
            "tell me how to say {text} in {language:in}",
            "tell me in {language:in} the phrase {text}",
            "give me the {language:adj} version of {text}",
            "turn the phrase {text} into {language:in}",
            "say in {language:in} the sentence {text}",
            "convert {text} into {language:in}",
        ),
        (
            "how do you say {text} in {language:in}?",
            "how would i say {text} in {language:in}?",
            "in {language:in}, how do i say {text}?",
            "i need {text} in {language:in}",
            "i want to say {text} in {language:in}",
        ),
    ),
    "set_reminder": Function(
        ("task", "day", "time"),
        (
            "remind me<*> to {task}",
            "remind me to {task}<*>",
            "set a reminder<*> to {task}",
            "set a reminder to {task}<*>",
            "make sure i do not forget to {task}",
            "give me a nudge<*> to {task}",
            "add a reminder to {task}",
            "put in a reminder<*> to {task}",
            "nudge me<*> to {task}",
            "create a reminder<*> to {task}",
        ),
        (
            "i must not forget to {task}",
            "i need a reminder<*> to {task}",
            "i always forget to {task}<*>, remind me",
            "do not let me forget to {task}",
            "reminder<*>: {task}",
            "i have to remember to {task}<*>, set a reminder",
        ),
        {"day": _DAY, "time": _TIME},
    ),
    "search_files": Function(
        ("query", "file_type", "person"),
        (
            "find the {query}",
            "search for the {query}",
            "look for my {query}",
            "find the {file_type:noun} of the {query}",
            "search my files for the {query}",
            "look up the {file_type:noun} with the {query}",
            "open the {file_type:noun} of my {query}",
            "locate the {query}",
            "dig up the {query}",
            "pull up the {query}",
            "search the folders for my {query}",
        ),
        (
            "where is the {query}<*>?",
            "where did i save the {query}<*>?",
            "i cannot find the {query}",
            "i am looking for the {file_type:noun} of the {query}",
            "i need the {query}<*>, search for it",
            "which folder has the {query}<*>?",
        ),
        {
            "file_type": ("as a {file_type:noun}",),
            "person": ("from {person}", "that {person} sent", "shared by {person}"),
        },
    ),
    "book_room": Function(
        ("room", "day", "time", "people", "duration"),
        (
            "book the {room} {@day}",
            "reserve the {room} {@day}",
            "get me the {room} {@day}",
            "hold the {room} {@day}",
            "book me into the {room} {@day}",
            "make a booking<*> {@day} in the {room}",
            "make a reservation {@day}<*> for the {room}",
            "grab the {room} {@day}",
            "see if the {room} is free {@day}<*> and book it",
            "secure the {room} {@day}",
            "book {@day}<*> in the {room}",
        ),
        (
            "i need the {room} {@day}",
            "we want to use the {room} {@day}<*>, reserve it",
            "is the {room} free {@day}<*>, then book it",
            "we will need the {room} {@day}",
            "my team would like the {room} {@day}",
        ),
        {
            "time": ("at {time}", "from {time}"),
            "people": ("for {people} people", "for a group of {people}", "for {people} guests"),
            "duration": ("for {duration}",),
        },
        kinds={"room": "meeting_room"},
    ),
}
