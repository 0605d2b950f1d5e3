"""Phrases of the `commands` job: how closed values are said, and what surrounds a request without changing it."""

from __future__ import annotations

# argument -> form -> value -> phrases. A phrase of one value is never a phrase of another in the same argument.
CLOSED: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "state": {
        "verb": {
            "on": ("turn on", "switch on", "put on", "flip on"),
            "off": ("turn off", "switch off", "kill", "shut off", "put out"),
            "dim": ("dim", "turn down", "lower", "soften"),
            "bright": ("brighten", "turn up", "crank up", "max out"),
        },
        "adj": {
            "on": ("on", "lit", "switched on"),
            "off": ("off", "out", "switched off"),
            "dim": ("dimmed", "low", "turned down", "nice and soft"),
            "bright": ("bright", "turned up", "at full power", "as bright as possible"),
        },
        "set": {
            "on": ("on",),
            "off": ("off", "zero"),
            "dim": ("dim", "low", "a soft glow", "night level"),
            "bright": ("bright", "full", "maximum", "one hundred percent"),
        },
    },
    "power": {
        "verb": {
            "on": ("turn on", "switch on", "start up", "fire up", "power up"),
            "off": ("turn off", "switch off", "shut down", "kill", "power down", "cut the power to"),
        },
        "adj": {
            "on": ("on", "running", "powered up", "switched on"),
            "off": ("off", "shut down", "powered down", "unpowered"),
        },
        "it": {
            "on": ("turn it on", "switch it on", "start it", "fire it up"),
            "off": ("turn it off", "switch it off", "shut it down", "kill it"),
        },
    },
    "unit": {
        "after": {
            "celsius": (" celsius", " degrees celsius", " degrees c", " centigrade"),
            "fahrenheit": (" fahrenheit", " degrees fahrenheit", " degrees f"),
        }
    },
    "repeat": {
        "when": {
            "daily": ("every day", "each day", "daily", "seven days a week"),
            "weekdays": ("on weekdays", "monday to friday", "on every working day", "on workdays"),
            "weekends": ("on weekends", "every saturday and sunday", "on saturdays and sundays", "each weekend"),
        }
    },
    "channel": {
        "verb": {
            "sms": ("text", "send a text to", "shoot a text to"),
            "email": ("email", "send an email to", "write an email to"),
            "chat": ("send a chat message to", "drop a chat message to", "write in the chat to"),
        },
        "by": {
            "sms": ("by text", "by sms", "as a text"),
            "email": ("by email", "by mail", "as an email"),
            "chat": ("on chat", "by chat", "in the chat app"),
        },
    },
    "list": {
        "to": {
            "shopping": ("shopping list", "grocery list", "groceries", "list for the store", "supermarket list"),
            "packing": ("packing list", "suitcase list", "list for the trip", "luggage list", "travel list"),
            "wishes": ("wish list", "gift ideas", "birthday wishes", "list of presents", "present ideas"),
        }
    },
    "mode": {
        "by": {
            "car": ("by car", "driving", "in the car"),
            "foot": ("on foot", "walking", "by foot"),
            "bike": ("by bike", "cycling", "on the bicycle"),
            "transit": ("by public transport", "by bus", "using the subway", "by tram"),
        }
    },
    "avoid": {
        "no": {
            "tolls": ("tolls", "toll roads", "paying on the way"),
            "highways": ("highways", "motorways", "the freeway"),
            "ferries": ("ferries", "boats", "any ferry"),
        }
    },
    "line": {
        "on": {
            "mobile": ("on the mobile", "on the cell", "on the cell phone"),
            "work": ("at work", "at the office", "on the office line"),
            "home": ("at home", "on the landline", "on the home number"),
        }
    },
    "call_type": {
        "with": {
            "video": ("on video", "with the camera on", "face to face", "as a video call"),
            "speaker": ("on speaker", "hands free", "on speakerphone", "on loudspeaker"),
        }
    },
    "measure": {
        "ask": {
            "rain": ("will it rain", "do i need an umbrella", "is it going to be wet", "will it pour"),
            "snow": ("will it snow", "is any snow coming", "are there going to be snowflakes"),
            "wind": ("how windy is it", "is it going to be gusty", "how strong is the wind"),
            "temperature": ("how hot is it", "how cold will it be", "how many degrees is it", "how warm will it get"),
        },
        "noun": {
            "rain": ("chance of rain", "rainfall"),
            "snow": ("amount of snow", "snowfall"),
            "wind": ("wind speed", "strength of the wind"),
            "temperature": ("temperature", "number of degrees"),
        },
    },
    "language": {
        "in": {
            "french": ("french", "the language of france"),
            "german": ("german", "the language of germany"),
            "spanish": ("spanish", "the language of spain"),
            "italian": ("italian", "the language of italy"),
            "japanese": ("japanese", "the language of japan"),
            "polish": ("polish", "the language of poland"),
            "turkish": ("turkish", "the language of turkey"),
            "dutch": ("dutch", "the language of holland"),
        },
        "adj": {
            "french": ("french",),
            "german": ("german",),
            "spanish": ("spanish",),
            "italian": ("italian",),
            "japanese": ("japanese",),
            "polish": ("polish",),
            "turkish": ("turkish",),
            "dutch": ("dutch",),
        },
    },
    "file_type": {
        "noun": {
            "pdf": ("pdf", "pdf file", "acrobat file"),
            "spreadsheet": ("spreadsheet", "excel file", "excel sheet"),
            "slides": ("slide deck", "powerpoint", "slide show"),
            "image": ("picture", "photo", "image"),
        }
    },
}

# Openings that change nothing: a slot names a value kind, which must not be an unfilled argument of the function.
LEAD_INS: tuple[str, ...] = (
    "i am busy with the {label} so",
    "i am finally done with the {label} so",
    "my sister is visiting and",
    "the kids are finally asleep so",
    "i am in the {room} right now so",
    "we spent all day in the {room} so",
    "i was just talking to {person} and",
    "{person} just left so",
    "my neighbor {person} asked me, so",
    "i had lunch with {person} and now",
    "it is already {time} so",
    "i have been awake since {time} so",
    "i got home at {time} so",
    "i have waited for {duration} now so",
    "i only slept for {duration} so",
    "the trip took {duration} so",
    "we are back from {city} and",
    "my cousin moved to {city} so",
    "i left {city} {@day} and",
    "the {title} went well and now",
    "after the {title} i am tired so",
    "i bought {item} {@day} and now",
    "we ran out of {item} but anyway",
    "i fixed the {device} {@day} and now",
    "the {device} is making a strange noise, anyway",
    "i just came back from {place} and",
    "i walked past {place} so",
    "i am tired so",
    "my hands are full so",
    "i am running late so",
    "this morning was a mess, anyway",
    "guests are coming over so",
    "i cannot find my glasses so",
    "i sang {song} all day, anyway",
    "there were {people} people in front of me, anyway",
    "i finished the {query} and now",
    "i lost the {query}, whatever,",
    "my back hurts today so",
    "since you are listening,",
    "one more thing,",
    "while i think of it,",
    "before i go,",
)

# Mentions of another function that is not wanted, with the functions they must not precede.
DENIALS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("i do not need an alarm, just", ("set_alarm",)),
    ("forget the timer,", ("set_timer",)),
    ("never mind the music,", ("play_music",)),
    ("no need to call anyone,", ("call_contact", "send_message")),
    ("skip the weather report,", ("get_weather",)),
    ("leave the lights alone and", ("set_light",)),
    ("do not touch the thermostat, just", ("set_thermostat",)),
    ("i do not want directions, just", ("navigate",)),
    ("no reminder this time, just", ("set_reminder",)),
    ("do not send any message,", ("send_message", "call_contact")),
    ("nothing to translate today,", ("translate",)),
    ("this is not for the calendar,", ("create_event", "cancel_event")),
    ("the shopping list is fine,", ("add_to_list",)),
    ("i already booked the room, now", ("book_room",)),
    ("i already found the file, now", ("search_files",)),
    ("i already turned off the lights, now", ("set_light", "control_device")),
    ("i already called the office, now", ("call_contact", "send_message")),
    ("the calendar is full, so", ("create_event", "cancel_event")),
    ("the alarm woke me up already, now", ("set_alarm",)),
    ("stop the music later, first", ("play_music",)),
)

HELLOS = (
    "hey",
    "ok",
    "um",
    "alright",
    "listen",
    "hello",
    "hi there",
    "right",
    "well",
    "good morning",
    "assistant",
    "so",
)
POLITE = (
    "please",
    "could you",
    "can you",
    "would you",
    "i need you to",
    "go ahead and",
    "i want you to",
    "do me a favor and",
    "could you please",
    "can you quickly",
    "it would help if you",
    "kindly",
    "try to",
    "you should",
    "will you",
)
THANKS = (
    "please",
    "thanks",
    "thank you",
    "if you can",
    "if possible",
    "cheers",
    "ok",
    "thanks a lot",
    "if that is alright",
)
REASONS = (
    "because guests are coming",
    "since it is getting late",
    "because i am busy",
    "as usual",
    "before i forget",
    "because my hands are wet",
    "so i can relax",
    "as i promised",
    "since nobody else will",
    "because it matters to me",
)
# A correction in place: {x} the wrong value, {y} the right one.
FIXES = (
    "{x}, no wait, {y}",
    "{x}, sorry, i mean {y}",
    "{x}, scratch that, {y}",
    "{x}, i mean {y}",
    "not {x} but {y}",
    "{x}, actually {y}",
    "{x}, um, no, {y}",
    "{x}, or rather {y}",
    "{y} and not {x}",
    "{y}, not {x},",
    "{y} instead of {x}",
)
# A correction at the end of the sentence.
LATE_FIXES = (
    ", no wait, make that {y}",
    ", hmm, actually make that {y}",
    ", sorry, i meant {y}",
    ", oh no, i mean {y}",
    ", or let us say {y} instead",
    ", wait, {y} is better",
)
