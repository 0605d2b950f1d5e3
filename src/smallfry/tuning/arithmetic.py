"""Word problems that are generated: six levels, GSM8K's spelling, and a test set with names and numbers of its own.

A solution is written as in GSM8K (Cobbe et al. 2021): a line a step, every result marked ``<<3*4=12>>12`` so that a
calculator can fill it in, and ``#### 12`` at the end.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smallfry.builtin._split import choose, part_of, pick
from smallfry.builtin._words import words
from smallfry.calculator import calculate
from smallfry.errors import SmallfryError
from smallfry.job import SplitName

LEVELS = (1, 2, 3, 4, 5, 6)
NAMES = words(
    "Ada Ali Amir Anna Ben Bella Carl Cara Dan Dora Eli Emma Finn Fay Gus Gina Hugo Hana Ian Iris Jack June Kai Kim "
    "Leo Lily Max Mia Ned Nora Omar Olga Paul Pia Quinn Rosa Sam Sara Tom Tina Uma Vera Will Wendy Yusuf Yara Zane Zoe "
    "Oscar Ruth Felix Helen Jonas Maria Peter Alice Victor Laura Simon Clara"
)
THINGS = words(
    "apples pears plums lemons eggs nuts beads marbles stamps coins cards stickers pencils pens books shells stones "
    "buttons balls toys cookies cakes candles flowers roses tickets photos keys ribbons balloons"
)
BOXES = words("boxes bags baskets jars drawers packs crates trays")
_CALL = re.compile(r"\[([^\]]+)\]")

Numbers = tuple[int, ...]
Draw = Callable[[random.Random], Numbers]


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of problem.

    Args:
        level: How hard it is.
        numbers: Draws its numbers, which stand as ``{a}``, ``{b}``, ... in the texts.
        question: With ``{name}``, ``{other}``, ``{thing}`` and ``{box}`` too.
        steps: A line a step; ``[{a}+{b}]`` is computed, and later steps may use it as ``{r1}``, ``{r2}``, ...
    """

    level: int
    numbers: Draw
    question: str
    steps: tuple[str, ...]


def generate(
    split: SplitName, count: int, seed: int, levels: Sequence[int] = LEVELS
) -> list[tuple[str, str, str, int]]:
    """Problems of one split, no two alike.

    Which split a problem may be in is decided by a hash of its first two numbers, whatever their order, so train, valid
    and test share no pair of them; half of the names and things of valid and test do not occur in train either.

    Args:
        split: For which they are.
        count: How many.
        seed: Of the draws; the first n of more problems are those of n.
        levels: Which of `LEVELS`, in equal parts.

    Returns:
        (question, final answer, solution, level) each.

    Raises:
        SmallfryError: There is no such level, or the levels have not so many problems.
    """
    if not levels or not set(levels) <= set(LEVELS):
        raise SmallfryError(f"levels {', '.join(map(str, levels)) or 'none'}: expected some of 1 to {LEVELS[-1]}")
    rng = random.Random(f"smallfry:arithmetic:{split}:{seed}:{sorted(set(levels))}")
    by_level = [[t for t in TEMPLATES if t.level == level] for level in sorted(set(levels))]
    seen: set[str] = set()
    found: list[tuple[str, str, str, int]] = []
    misses = 0
    while len(found) < count:
        fitting = by_level[len(found) % len(by_level)]
        made = _make(rng, fitting[int(rng.random() * len(fitting))], split)
        if made is None or made[0] in seen:
            misses += 1
            if misses > 20_000 + 200 * count:
                raise SmallfryError(
                    f"arithmetic: levels {', '.join(map(str, levels))} have only {len(found):,} different {split} "
                    f"problems, {count:,} were asked for; ask for fewer or more levels"
                )
            continue
        seen.add(made[0])
        found.append(made)
    return found


def _make(rng: random.Random, template: Template, split: SplitName) -> tuple[str, str, str, int] | None:
    """A problem, or None where its numbers belong to another split."""
    numbers = template.numbers(rng)
    if part_of("{} {}".format(*sorted(numbers[:2]))) != split:
        return None
    name, other = pick(rng, NAMES, split), pick(rng, NAMES, split)
    if name == other:
        return None
    values = {
        "name": name, "other": other, "thing": pick(rng, THINGS, split), "box": choose(rng, BOXES),
        **dict(zip("abcde", map(str, numbers), strict=False)),
    }  # fmt: skip
    lines: list[str] = []
    for number, step in enumerate(template.steps, start=1):
        text = step.format(**values)
        call = _CALL.search(text)
        assert call is not None
        result = calculate(call[1])
        assert result is not None
        values[f"r{number}"] = result
        lines.append(text.replace(call[0], f"{call[1]} = <<{call[1]}={result}>>{result}"))
    answer = values[f"r{len(template.steps)}"]
    return template.question.format(**values), answer, "\n".join([*lines, f"#### {answer}"]), template.level


# ---- numbers --------------------------------------------------------------------------------------------------------


def _up_to(*limits: int) -> Draw:
    """Each from 2 to its limit."""
    return lambda rng: tuple(2 + int(rng.random() * (limit - 1)) for limit in limits)


def _less(limit: int) -> Draw:
    """Two, the second smaller than the first."""

    def draw(rng: random.Random) -> Numbers:
        first = 3 + int(rng.random() * (limit - 2))
        return first, 1 + int(rng.random() * (first - 1))

    return draw


def _parts(times: int, each: int) -> Draw:
    """A multiple of the second number, and that number."""

    def draw(rng: random.Random) -> Numbers:
        count, size = _up_to(times, each)(rng)
        return count * size, count

    return draw


def _then(first: Draw, value: Callable[[Numbers], int], limit: int | None = None) -> Draw:
    """A further number from 2 to ``limit``, or to below what the first step gives."""

    def draw(rng: random.Random) -> Numbers:
        numbers = first(rng)
        top = limit if limit is not None else value(numbers) - 1
        return *numbers, 2 + int(rng.random() * max(1, top - 1))

    return draw


def _sum(n: Numbers) -> int:
    return n[0] + n[1]


def _difference(n: Numbers) -> int:
    return n[0] - n[1]


def _product(n: Numbers) -> int:
    return n[0] * n[1]


def _quotient(n: Numbers) -> int:
    return n[0] // n[1]


# ---- templates ------------------------------------------------------------------------------------------------------

_HOW_MANY = "How many {thing} does {name} have"

TEMPLATES = (
    Template(1, _up_to(19, 19), "What is {a} plus {b}?", ("[{a}+{b}]",)),
    Template(1, _up_to(19, 19), "Add {a} and {b}.", ("[{a}+{b}]",)),
    Template(1, _less(19), "What is {a} minus {b}?", ("[{a}-{b}]",)),
    Template(1, _less(19), "Take {b} away from {a}.", ("[{a}-{b}]",)),
    Template(
        1, _up_to(19, 19), f"{{name}} has {{a}} {{thing}} and gets {{b}} more. {_HOW_MANY} now?",
        ("{name} has [{a}+{b}] {thing}.",),
    ),
    Template(
        1, _less(19), f"{{name}} has {{a}} {{thing}} and loses {{b}}. {_HOW_MANY} left?",
        ("{name} has [{a}-{b}] {thing} left.",),
    ),
    Template(
        2, _up_to(99, 99), f"{{name}} has {{a}} {{thing}}. {{other}} gives {{name}} {{b}} more. {_HOW_MANY} now?",
        ("{name} has [{a}+{b}] {thing}.",),
    ),
    Template(
        2, _up_to(99, 99),
        "{name} has {a} {thing} and {other} has {b}. How many {thing} do they have together?",
        ("Together they have [{a}+{b}] {thing}.",),
    ),
    Template(
        2, _less(99), f"{{name}} had {{a}} {{thing}} and sold {{b}} of them to {{other}}. {_HOW_MANY} left?",
        ("{name} has [{a}-{b}] {thing} left.",),
    ),
    Template(
        2, _less(99),
        "{name} has {a} {thing} and {other} has {b}. How many more {thing} does {name} have than {other}?",
        ("{name} has [{a}-{b}] {thing} more.",),
    ),
    Template(
        3, _up_to(12, 12), f"{{name}} has {{a}} {{box}} with {{b}} {{thing}} in each. {_HOW_MANY}?",
        ("{name} has [{a}*{b}] {thing}.",),
    ),
    Template(
        3, _up_to(12, 12), "{name} buys {a} {thing} for ${b} each. How many dollars does {name} pay?",
        ("{name} pays [{a}*{b}] dollars.",),
    ),
    Template(
        3, _parts(12, 12),
        "{name} puts {a} {thing} into {b} {box}, the same number in each. How many {thing} are in each of the {box}?",
        ("There are [{a}/{b}] {thing} in each.",),
    ),
    Template(
        3, _parts(12, 12),
        "{b} friends share {a} {thing} equally. How many {thing} does each of them get?",
        ("Each of them gets [{a}/{b}] {thing}.",),
    ),
    Template(
        4, _then(_up_to(60, 60), _sum),
        f"{{name}} has {{a}} {{thing}} and finds {{b}} more. Then {{name}} gives {{c}} to {{other}}. {_HOW_MANY} left?",
        ("{name} has [{a}+{b}] {thing} at first.", "{name} has [{r1}-{c}] {thing} left."),
    ),
    Template(
        4, _then(_less(90), _difference, 60),
        f"{{name}} had {{a}} {{thing}} and lost {{b}} of them. {{other}} brings {{c}} new ones. {_HOW_MANY} now?",
        ("{name} has [{a}-{b}] {thing} left.", "{name} has [{r1}+{c}] {thing} now."),
    ),
    Template(
        4, _then(_up_to(60, 30), _sum, 60),
        "{name} has {a} {thing}. {other} has {b} more than {name} and then gets {c} from a friend. How many {thing} "
        "does {other} have now?",
        ("{other} has [{a}+{b}] {thing} at first.", "{other} has [{r1}+{c}] {thing} now."),
    ),
    Template(
        5, _then(_up_to(12, 12), _product),
        f"{{name}} buys {{a}} {{box}} of {{b}} {{thing}} each and gives {{other}} {{c}} {{thing}}. {_HOW_MANY} left?",
        ("{name} buys [{a}*{b}] {thing}.", "{name} has [{r1}-{c}] {thing} left."),
    ),
    Template(
        5, _then(_up_to(12, 12), _product, 60),
        f"{{name}} fills {{a}} {{box}} with {{b}} {{thing}} each and has {{c}} {{thing}} left. {_HOW_MANY} in all?",
        ("There are [{a}*{b}] {thing} in the {box}.", "{name} has [{r1}+{c}] {thing} in all."),
    ),
    Template(
        5, _then(_parts(12, 12), _quotient, 30),
        "{b} friends, one of them {name}, share {a} {thing} equally. {name} had {c} {thing} before. "
        f"{_HOW_MANY} now?",
        ("Each friend gets [{a}/{b}] {thing}.", "{name} has [{r1}+{c}] {thing} now."),
    ),
    Template(
        5, _then(_up_to(12, 9), _product, 20),
        "{name} has {a} {thing}. {other} has {b} times as many and {c} more. How many {thing} does {other} have?",
        ("{b} times as many are [{a}*{b}] {thing}.", "{other} has [{r1}+{c}] {thing}."),
    ),
    Template(
        6, _then(_then(_up_to(12, 12), _product), _product, 20),
        f"{{name}} buys {{a}} {{box}} of {{b}} {{thing}} each, gives {{c}} {{thing}} to {{other}} and then finds {{d}} "
        f"more. {_HOW_MANY} now?",
        ("{name} buys [{a}*{b}] {thing}.", "After the gift there are [{r1}-{c}] {thing}.",
         "{name} has [{r2}+{d}] {thing} now."),
    ),
    Template(
        6, _then(_then(_up_to(40, 40), _sum, 8), _sum, 4),
        "{name} sold {a} {thing} on Monday and {b} on Tuesday, for ${c} each. How many dollars did {name} earn?",
        ("{name} sold [{a}+{b}] {thing}.", "{name} earned [{r1}*{c}] dollars."),
    ),
    Template(
        6, _then(_up_to(12, 6), _product, 9),
        "{name} makes {a} {thing} a day and sells each for ${b}. How many dollars does {name} earn in {c} days?",
        ("{name} earns [{a}*{b}] dollars a day.", "{name} earns [{r1}*{c}] dollars."),
    ),
    Template(
        6, _then(_then(_parts(12, 12), _quotient, 8), _quotient, 20),
        "{b} friends, one of them {name}, share {a} {thing} equally. {name} sells each of them for ${c} and had ${d} "
        "before. How many dollars does {name} have now?",
        ("Each friend gets [{a}/{b}] {thing}.", "{name} earns [{r1}*{c}] dollars.", "{name} has [{r2}+{d}] dollars."),
    ),
)  # fmt: skip
