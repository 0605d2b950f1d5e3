"""`commands`: one sentence to an assistant of a home and an office, answered by one JSON call.

Open arguments (names, messages, times, places, ...) are verbatim spans of the sentence, always without a leading
article or "my"; closed arguments (on/off/dim, language, ...) are words of a small set that the phrasing expresses. What
is corrected ("six, no wait, seven"), denied ("not the kitchen but the den") or mentioned in passing ("i am in the
kitchen so") is never an argument. Held out for valid and test are values, some words in values, some passing remarks
and the combinations of a template with optional arguments and closed phrases (a bare template is everybody's).
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from itertools import pairwise

from smallfry.builtin._command_functions import FUNCTIONS, Function
from smallfry.builtin._command_phrases import (
    CLOSED,
    DENIALS,
    FIXES,
    HELLOS,
    LATE_FIXES,
    LEAD_INS,
    POLITE,
    REASONS,
    THANKS,
)
from smallfry.builtin._command_words import Value, value
from smallfry.builtin._grammar import Slot, flatten
from smallfry.builtin._split import choose, collect, part_of, pick
from smallfry.builtin._words import MONTHS, WEEKDAYS
from smallfry.job import Example, SplitName

# Values that may end anywhere: nothing may follow them that is not marked.
FREE = frozenset({"message", "song", "text", "task"})
FIXABLE = frozenset(
    {
        "room",
        "device",
        "temperature",
        "duration",
        "time",
        "day",
        "person",
        "place",
        "city",
        "title",
        "item",
        "meeting_room",
    }
)
LATE_FIXABLE = frozenset(
    {"room", "device", "temperature", "duration", "time", "day", "person", "place", "city", "meeting_room"}
)
LATE_ARTICLE = {"room": "the ", "device": "the ", "meeting_room": "the "}
HELD_REMARKS = 0.1  # chance that a passing remark of a held-out row is one that train never has
PROPER_KINDS = frozenset({"person", "city", "place", "artist", "meeting_room"})
# How often a sentence is dressed or made harder: often enough to defeat word lists and windows of two words, rarely
# enough for a model of a quarter of a million parameters to learn it all within a minute or two.
SHARES = {
    "greeting": 0.15,
    "lead-in": 0.1,
    "courtesy": 0.3,
    "correction": 0.05,
    "closed correction": 0.02,
    "late correction": 0.04,
    "reason": 0.05,
    "thanks": 0.12,
}
_NAMES = tuple(FUNCTIONS)
_PROPER = re.compile(rf"\b(?:{'|'.join((*WEEKDAYS, *MONTHS, *CLOSED['language']['adj']))}|i)\b")
_WORD = re.compile(r"\w+")
_DETERMINER = re.compile(r"\b(the|my|a) $")


@dataclass(slots=True)
class Piece:
    """A stretch of the sentence: literal text, the value of `arg`, or (no arg, but a kind) a mere mention."""

    text: str
    arg: str | None = None
    kind: str | None = None


@dataclass(slots=True)
class _Plan:
    """The choices that make a combination: what is held out together."""

    key: str
    name: str
    function: Function
    template: str
    order: bool
    front: str
    closed: dict[str, str]
    phrases: dict[str, str]


def _plan(rng: random.Random, part: SplitName) -> _Plan:
    """Draw function, template, arguments, clauses and closed phrases until the combination belongs to `part`."""
    while True:
        name = choose(rng, _NAMES)
        function = FUNCTIONS[name]
        order = rng.random() < 0.62
        core = choose(rng, function.orders if order else function.wishes)
        closed: dict[str, str] = {}
        phrases: dict[str, str] = {}
        free = {a: c for a, c in function.clauses.items() if f"{{{a}" not in core}
        clauses = {a: choose(rng, c) for a, c in free.items() if rng.random() < 0.5}
        for one, other in function.together:
            if one in clauses and other in clauses:
                del clauses[one if rng.random() < 0.5 else other]
        for slot in _slot_names("".join((core, *clauses.values()))):
            arg, _, form = slot.partition(":")
            if form:
                closed.setdefault(arg, choose(rng, tuple(CLOSED[arg][form])))
                phrases[slot] = choose(rng, CLOSED[arg][form][closed[arg]])
        key = "|".join((name, core, *sorted(clauses.values()), *phrases.values()))
        # A bare template is everybody's, or a template with few combinations could be missing from train.
        if part_of(key) == part or not (clauses or phrases):
            break
    front = ""
    if order and "day" in clauses and "<*>" not in core and rng.random() < 0.2:
        front = clauses.pop("day") + ", "
    return _Plan(key, name, function, _assemble(rng, function, core, clauses), order, front, closed, phrases)


def _slot_names(template: str) -> list[str]:
    return re.findall(r"\{([^}]*)\}", template)


def _assemble(rng: random.Random, function: Function, core: str, clauses: dict[str, str]) -> str:
    """Put the clauses of the optional arguments where the core wants them."""
    rest = []
    for arg, clause in clauses.items():
        if f"<{arg}>" in core:
            core = core.replace(f"<{arg}>", clause)
        else:
            rest.append(" " + clause)
    for arg, text in function.absent.items():
        core = core.replace(f"<{arg}>", text)
    if "artist" not in clauses:  # "song by artist" must stay together
        rng.shuffle(rest)
    tail = "".join(rest)
    return core.replace("<*>", tail) if "<*>" in core else core + tail


def _render(rng: random.Random, plan: _Plan, template: str, part: SplitName, fixes: dict[str, Value]) -> list[Piece]:
    """Fill a template; an argument named in `fixes` is said wrong here, and `fixes` keeps the right value for later."""
    pieces: list[Piece] = []
    for node in flatten(rng, template):
        if not isinstance(node, Slot):
            pieces.append(Piece(node))
            continue
        name = node.name.removeprefix("@")
        if name in plan.phrases:
            pieces += _closed(rng, plan, name)
            continue
        kind = plan.function.kinds.get(name, name)
        drawn = value(kind, rng, part)
        lead = drawn.preposition + drawn.article if node.name[0] == "@" else drawn.article
        if name in fixes:
            fixes[name] = value(kind, rng, part)
            pieces += [Piece(lead), Piece(drawn.text, None, kind)]
        elif kind in FIXABLE and rng.random() < SHARES["correction"]:
            pieces += _fixed(rng, kind, name, drawn, value(kind, rng, part), pieces, node.name[0] == "@")
        else:
            pieces += [Piece(lead), Piece(drawn.text, name, kind)]
    return pieces


def _closed(rng: random.Random, plan: _Plan, slot: str) -> list[Piece]:
    arg, _, form = slot.partition(":")
    wrong = choose(rng, tuple(CLOSED[arg][form]))
    once = sum(s.startswith(arg + ":") for s in plan.phrases) == 1
    if (
        once
        and wrong != plan.closed[arg]
        and arg not in ("unit", "measure")
        and rng.random() < SHARES["closed correction"]
    ):
        said = choose(rng, CLOSED[arg][form][wrong])
        return [Piece(f"{said}, {choose(rng, ('no wait', 'sorry', 'no', 'i mean'))}, {plan.phrases[slot]}")]
    return [Piece(plan.phrases[slot])]


def _fixed(
    rng: random.Random, kind: str, arg: str, right: Value, wrong: Value, before: list[Piece], at_day: bool
) -> list[Piece]:
    """Say `wrong` and correct it to `right`, or deny it, each with the determiner the sentence gives."""
    determiner = ""
    if before and before[-1].arg is None and (found := _DETERMINER.search(before[-1].text)):
        determiner = found.group()
        before[-1].text = before[-1].text[: found.start()]

    def lead(v: Value) -> str:
        return (v.preposition if at_day else "") + (determiner or v.article)

    shown = wrong.text
    unit = right.text.rpartition(" ")[2]
    if kind == "duration" and wrong.text.count(" ") == 1 and wrong.text.endswith(unit) and rng.random() < 0.5:
        shown = wrong.text.partition(" ")[0]  # "ten, no wait, twenty minutes"
    out: list[Piece] = []
    for node in flatten(rng, choose(rng, FIXES)):
        if not isinstance(node, Slot):
            out.append(Piece(node))
        elif node.name == "x":
            out += [Piece(lead(wrong)), Piece(shown, None, kind)]
        else:
            out += [Piece(lead(right)), Piece(right.text, arg, kind)]
    return out


def _lead_in(rng: random.Random, plan: _Plan, args: set[str], part: SplitName) -> list[Piece]:
    """A remark before the request; its values are of kinds that cannot be taken for a missing argument."""
    if rng.random() < 0.3:
        texts = tuple(text for text, functions in DENIALS if plan.name not in functions)
        text = pick(rng, texts, part, HELD_REMARKS)
        return [Piece((text if plan.order else text.removesuffix(" just")) + " ")]
    template = pick(rng, LEAD_INS, part, HELD_REMARKS)
    pieces: list[Piece] = []
    missing = {plan.function.kinds.get(a, a) for a in plan.function.args} - {
        plan.function.kinds.get(a, a) for a in args
    }
    for node in flatten(rng, template):
        if isinstance(node, Slot):
            kind = node.name.removeprefix("@")
            if kind in missing:
                return []
            drawn = value(kind, rng, part)
            lead = drawn.preposition + drawn.article if node.name[0] == "@" else drawn.article
            pieces += [Piece(lead), Piece(drawn.text, None, kind)]
        else:
            pieces.append(Piece(node))
    return [*pieces, Piece(" ")]


def _sentence(rng: random.Random, part: SplitName) -> tuple[_Plan, list[Piece], str]:
    """Draw a whole sentence: its plan, its pieces and the mark at its end."""
    plan = _plan(rng, part)
    args = {n.removeprefix("@").partition(":")[0] for n in _slot_names(plan.front + plan.template)}
    late = [a for a in sorted(args) if plan.function.kinds.get(a, a) in LATE_FIXABLE]
    fixes: dict[str, Value] = (
        {choose(rng, late): Value("")} if late and rng.random() < SHARES["late correction"] else {}
    )
    question = plan.template.endswith("?")
    core = _render(rng, plan, plan.template.removesuffix("?"), part, fixes)
    front = _render(rng, plan, plan.front, part, fixes) if plan.front else []
    pieces = [Piece(choose(rng, HELLOS) + ", ")] if rng.random() < SHARES["greeting"] else []
    if rng.random() < SHARES["lead-in"] and not front:
        pieces += _lead_in(rng, plan, args, part)
    pieces += front
    if plan.order and rng.random() < SHARES["courtesy"]:
        polite = choose(rng, POLITE)
        question = polite.split()[0] in ("could", "can", "would", "will")
        pieces.append(Piece(polite + " "))
    pieces += core
    if core[-1].kind in FREE:
        if fixes:
            return _sentence(rng, part)
    else:
        pieces += _ending(rng, plan, fixes)
    return plan, pieces, "?" if question else "."


def _ending(rng: random.Random, plan: _Plan, fixes: dict[str, Value]) -> list[Piece]:
    pieces: list[Piece] = []
    if rng.random() < SHARES["reason"] and not fixes:
        pieces.append(Piece(" " + choose(rng, REASONS)))
    for arg, right in fixes.items():
        kind = plan.function.kinds.get(arg, arg)
        before, _, after = choose(rng, LATE_FIXES).partition("{y}")
        pieces += [
            Piece(before),
            Piece(LATE_ARTICLE.get(kind, right.article)),
            Piece(right.text, arg, kind),
            Piece(after),
        ]
    if rng.random() < SHARES["thanks"]:
        pieces.append(Piece(", " + choose(rng, THANKS)))
    return pieces


def _style(rng: random.Random, pieces: list[Piece], end: str) -> None:
    """Dress the pieces in place: as speech without punctuation, as typed, or as a proper sentence."""
    style = rng.random()
    for piece, following in pairwise(pieces):
        if piece.kind is None and re.search(r"\ba $", piece.text) and following.text[:1] in tuple("aeiou"):
            piece.text = piece.text[:-2] + "an "
    if style < 0.5:
        for piece in pieces:
            if piece.kind is None:
                piece.text = re.sub(r"[,?.!]", "", piece.text)
        return
    for piece in pieces:
        piece.text = re.sub(r",(?=,)", "", piece.text)
        if style > 0.78:
            piece.text = piece.text.title() if piece.kind in PROPER_KINDS else piece.text
            piece.text = _PROPER.sub(lambda m: m.group().capitalize(), piece.text)
    if style > 0.78:
        first = next(p for p in pieces if p.text)
        first.text = first.text[:1].upper() + first.text[1:]
    if style > 0.65:
        pieces[-1].text = pieces[-1].text.rstrip(",") if pieces[-1].kind is None else pieces[-1].text
        pieces.append(Piece(end))


def _row(rng: random.Random, part: SplitName) -> Example | None:
    plan, pieces, end = _sentence(rng, part)
    _style(rng, pieces, end)
    text = "".join(p.text for p in pieces)
    text = (
        re.sub(r" +", " ", text).replace(" ,", ",").replace(",,", ",").replace(",.", ".").replace(",?", "?").strip(" ,")
    )
    found = {p.arg: p.text for p in pieces if p.arg is not None} | plan.closed
    words = f" {'  '.join(_WORD.findall(text.lower()))} "
    for arg, said in found.items():
        # A value must stand at exactly one place, or its span would be a guess.
        if arg not in plan.closed and words.count(f" {'  '.join(_WORD.findall(said.lower()))} ") != 1:
            return None
    call = {"call": plan.name, "args": {a: found[a] for a in plan.function.args if a in found}}
    return Example(text, json.dumps(call, ensure_ascii=False))


def generate(seed: int, n_train: int, n_valid: int, n_test: int) -> tuple[list[Example], list[Example], list[Example]]:
    """Make the rows of the `commands` job.

    Args:
        seed: Seed of everything random; the same seed gives the same rows.
        n_train: Training rows.
        n_valid: Validation rows, with their own held-out values.
        n_test: Test rows, with values and combinations that occur in no other split.

    Returns:
        Train, valid and test rows.

    Raises:
        SmallfryError: More rows were asked for than there are different ones.
    """
    return (
        collect("commands", seed, "train", n_train, lambda rng: _row(rng, "train")),
        collect("commands", seed, "valid", n_valid, lambda rng: _row(rng, "valid")),
        collect("commands", seed, "test", n_test, lambda rng: _row(rng, "test")),
    )
