"""Arithmetic with small numbers in GSM8K-like steps: ``<<3+4=7>>7`` where a calculator may step in, then ``#### 7``."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from smallfry.builtin._grammar import fill
from smallfry.builtin._split import choose, part_of
from smallfry.builtin._story_words import BOYS, GIRLS
from smallfry.builtin._words import words
from smallfry.job import SplitName

THINGS = words(
    "apples pears plums cookies marbles balloons shells stamps books pencils coins stones flowers eggs cards nuts "
    "cakes buttons "
    "stickers ribbons"
)
BOXES = words("boxes bags baskets jars bowls rows")
MOST = 20  # of sums and what is taken away from
_WORDS = {"+": ("plus",), "-": ("minus", "take away"), "*": ("times",), "/": ("divided by",)}


@dataclass(frozen=True, slots=True)
class Sum:
    """One problem.

    Args:
        question: In words.
        answer: The steps and the last line.
        value: The number that is right.
    """

    question: str
    answer: str
    value: int


def step(a: int, op: str, b: int) -> tuple[str, int]:
    """``3 + 4 = <<3+4=7>>7`` and 7."""
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op]
    return f"{a} {op} {b} = <<{a}{op}{b}={value}>>{value}", value


def _owned(a: int, op: str, b: int, part: SplitName) -> bool:
    """Whether a split may have a step: 3 + 4 and 4 + 3 are one."""
    if op in "+*":
        a, b = min(a, b), max(a, b)
    return part_of(f"{a}{op}{b}") == part


def _numbers(rng: random.Random, op: str, part: SplitName, first: int | None = None) -> tuple[int, int]:
    """Two numbers for an operation that ``part`` may have; the first may be given."""
    for _ in range(1000):
        if op == "+":
            a = rng.randint(1, MOST - 1) if first is None else first
            b = rng.randint(1, max(1, MOST - a))
        elif op == "-":
            a = rng.randint(2, MOST) if first is None else first
            b = rng.randint(1, max(1, a - 1))
        elif op == "*":
            a, b = rng.randint(2, 10), rng.randint(2, 10)
        else:
            b = rng.randint(2, 10)
            a = b * rng.randint(2, 10)
        if _owned(a, op, b, part):
            return a, b
    return (0, 0)  # the given first number has no partner in this part


def make(rng: random.Random, part: SplitName) -> Sum:
    """Draw a problem whose every step belongs to one split."""
    while True:
        kind = choose(rng, ("plain", "plain", "change", "change", "groups", "share", "more", "two", "two", "left"))
        found = _KINDS[kind](rng, part)
        if found is not None:
            return found


def _who(rng: random.Random) -> dict[str, str]:
    girl = rng.random() < 0.5
    name, other = rng.sample(GIRLS if girl else BOYS, 2)
    return {
        "N": name, "M": other, "he": "she" if girl else "he", "He": "She" if girl else "He",
        "things": choose(rng, THINGS), "boxes": choose(rng, BOXES),
    }  # fmt: skip


def _told(rng: random.Random, question: str, answer: str, value: int, facts: dict[str, str]) -> Sum:
    return Sum(fill(rng, question, facts.__getitem__), fill(rng, answer, facts.__getitem__) + f"\n#### {value}", value)


def _plain(rng: random.Random, part: SplitName) -> Sum:
    op = choose(rng, "++--**/")
    a, b = _numbers(rng, op, part)
    text, value = step(a, op, b)
    word = choose(rng, (op, *_WORDS[op]))
    asked = "[What is {sum}?|How much is {sum}?|Please work out {sum}.|Can you work out {sum}?|{sum}?]"
    return _told(rng, asked, text, value, {"sum": f"{a} {word} {b}"})


def _change(rng: random.Random, part: SplitName) -> Sum:
    facts = _who(rng)
    op = choose(rng, "+-")
    a, b = _numbers(rng, op, part)
    text, value = step(a, op, b)
    verb = "[gets|finds|buys|is given] {b} more" if op == "+" else "[gives away|loses|sells] {b} of them"
    question = f"{{N}} has {a} {{things}}. {{He}} {verb}. How many {{things}} does {{he}} have now?"
    return _told(rng, question, f"{{N}} has {text} {{things}}.", value, facts | {"b": str(b)})


def _groups(rng: random.Random, part: SplitName) -> Sum:
    a, b = _numbers(rng, "*", part)
    text, value = step(a, "*", b)
    question = (
        f"[There are|{{N}} has|I have] {a} {{boxes}} with {b} {{things}} in each. "
        "How many {things} are there[| in all]?"
    )
    return _told(rng, question, f"There are {text} {{things}}.", value, _who(rng))


def _share(rng: random.Random, part: SplitName) -> Sum:
    a, b = _numbers(rng, "/", part)
    text, value = step(a, "/", b)
    question = (
        f"[{b} children share {a} {{things}}. How many does each child get?|{{N}} puts {a} {{things}} into {b} "
        "{boxes}, the same number in each. How many are in each?]"
    )
    return _told(rng, question, f"Each gets {text} {{things}}.", value, _who(rng))


def _more(rng: random.Random, part: SplitName) -> Sum:
    a, b = _numbers(rng, "-", part)
    text, value = step(a, "-", b)
    question = f"{{N}} has {a} {{things}} and {{M}} has {b}. How many more does {{N}} have?"
    return _told(rng, question, f"{{N}} has {text} more.", value, _who(rng))


def _two(rng: random.Random, part: SplitName) -> Sum | None:
    """Up, then down."""
    facts = _who(rng)
    a, b = _numbers(rng, "+", part)
    first, middle = step(a, "+", b)
    c, d = _numbers(rng, "-", part, middle)
    if not c:
        return None
    second, value = step(middle, "-", d)
    question = (
        f"{{N}} has {a} {{things}}. {{He}} [gets|finds|buys] {b} more. Then {{he}} [gives away|loses|sells] {d}. How "
        "many {things} does {he} have [now|left]?"
    )
    return _told(rng, question, f"First {{N}} has {first} {{things}}. Then {{he}} has {second}.", value, facts)


def _left(rng: random.Random, part: SplitName) -> Sum | None:
    """Groups, of which some go."""
    a, b = _numbers(rng, "*", part)
    first, middle = step(a, "*", b)
    c, d = _numbers(rng, "-", part, middle)
    if not c or middle > 2 * MOST:
        return None
    second, value = step(middle, "-", d)
    question = (
        f"{{N}} buys {a} {{boxes}} with {b} {{things}} in each. {{He}} gives {d} {{things}} to {{M}}. "
        "How many {things} are left?"
    )
    return _told(rng, question, f"There are {first} {{things}}. After that, {second} are left.", value, _who(rng))


_KINDS: dict[str, Callable[[random.Random, SplitName], Sum | None]] = {
    "plain": _plain, "change": _change, "groups": _groups, "share": _share, "more": _more, "two": _two, "left": _left,
}  # fmt: skip
