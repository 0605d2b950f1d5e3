"""The criteria's language: what must hold of measured intervals for a claim to be supported or refuted.

A condition is an optional quantifier (``every``, which is meant where none stands, ``most``: more than half, ``few``:
one to half, ``some``: at least one) and one or more tests joined by ``and``, which must hold of the same measurement:

    low > chance + 0.05       the 95% interval's lower end; also ``high``, ``score`` and ``p``, a comparison's p-value
                              after Holm's correction, and ``paired``, the upper end of the difference from the best
                              baseline on the same items; ``<``, ``<=``, ``>``, ``>=``
    within 0.05 0.10          the whole interval lies there
    outside 0.05 0.10         the interval and the range do not meet
    workable, not             the whole interval, or none of it, meets the target
    falling                   of all measurements, in order: each interval lies below the one before
    rising                    some interval lies above the one before

Ends are numbers, or names with a number added or taken: ``chance`` is what guessing scores, ``controls`` the highest
upper end among candidates that know nothing, ``baseline`` the score of the best baseline, ``majority`` that of the most
frequent answer, ``reference`` what true texts have.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import SmallfryError
from ..evals.statistics import verdict

Interval = tuple[float, float]
QUANTIFIERS = ("every", "most", "few", "some")
TERMS = ("chance", "controls", "baseline", "majority", "reference")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_IN_ORDER = ("falling", "rising")
_NUMBER = r"-?\d+(?:\.\d+)?"
_END = rf"(?:{_NUMBER}|(?:{'|'.join(TERMS)})(?:\s*[+-]\s*\d+(?:\.\d+)?)?)"
_TEST = re.compile(
    rf"(?:(?P<side>low|high|score|paired|p)\s*(?P<sign><=|>=|<|>)\s*(?P<end>{_END})"
    rf"|(?P<range>within|outside)\s+(?P<first>{_END})\s+(?P<last>{_END})|(?P<word>workable|not|falling|rising))"
)


@dataclass(frozen=True, slots=True)
class Found:
    """One measurement.

    Args:
        label: What was measured, in words.
        file: Where it is stored, relative to the results.
        score: The value.
        ci: Its 95% interval; the value twice where it has none, as of a computed number.
        n: Items it rests on; 0 where that does not apply.
        target: What counts as workable.
        lower: Whether less is better.
        unit: ``share``, ``bits``, ``seconds``, ``count`` or ``plain``.
        terms: What the ends' names stand for, where it is known.
        controls: Candidates that know nothing, by name, with their intervals.
        baseline: Name of the best baseline.
        seen: Whether it was known when the criteria were written.
        seeds: Trainings it joins; 0 where that is not recorded.
        to_decide: Where the verdict is open: how many more items would make it clear if the score stayed; or None.
    """

    label: str
    file: str
    score: float
    ci: Interval
    n: int = 0
    target: float | None = None
    lower: bool = False
    unit: str = "share"
    terms: dict[str, float] = field(default_factory=dict)
    controls: dict[str, tuple[float, Interval | None]] = field(default_factory=dict)
    baseline: str = ""
    seen: bool = False
    seeds: int = 0
    to_decide: int | None = None

    @property
    def verdict(self) -> str:
        """``workable``, ``not`` or ``undecided``; empty without a target."""
        return "" if self.target is None else verdict(*self.ci, self.target, not self.lower)


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition.

    Args:
        text: As it is written.
        quantifier: Of how many measurements it must hold.
        tests: Each says of a measurement whether it holds.
    """

    text: str
    quantifier: str
    tests: tuple[re.Match[str], ...]

    def holds(self, found: Sequence[Found], missing: int = 0) -> bool:
        """Whether it holds of what was measured.

        Args:
            found: The measurements, in the order of the claim.
            missing: Measurements that are still to be made: only ``some`` can hold without them.
        """
        if not found or (missing and self.quantifier != "some"):
            return False
        if self.tests[0]["word"] in _IN_ORDER:
            pairs = list(itertools.pairwise(found))
            if self.tests[0]["word"] == "rising":
                return any(b.ci[0] > a.ci[1] for a, b in pairs)
            return bool(pairs) and all(b.ci[1] < a.ci[0] for a, b in pairs)
        count = sum(self.holds_of(one) for one in found)
        return {
            "every": count == len(found), "most": 2 * count > len(found),
            "few": count > 0 and 2 * count <= len(found), "some": count > 0,
        }[self.quantifier]  # fmt: skip

    def holds_of(self, found: Found) -> bool:
        """Whether its tests hold of one measurement; those that compare several hold of none alone."""
        return self.tests[0]["word"] not in _IN_ORDER and all(_holds(test, found) for test in self.tests)


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        SmallfryError: It is not of the language.
    """
    first, _, rest = text.strip().partition(" ")
    quantifier, body = (first, rest) if first in QUANTIFIERS else ("every", text.strip())
    tests = [_TEST.fullmatch(part.strip()) for part in body.split(" and ")]
    known = [test for test in tests if test is not None]
    if len(known) < len(tests) or (len(known) > 1 and any(test["word"] in _IN_ORDER for test in known)):
        raise SmallfryError(
            f"criterion {text!r}: expected such as `low > chance + 0.05`, `within 0.05 0.10` or `some workable`"
        )
    return Condition(text, quantifier, tuple(known))


def _holds(test: re.Match[str], found: Found) -> bool:
    low, high = found.ci
    if test["word"]:
        return found.verdict == test["word"]
    if test["range"]:
        first, last = _end(test["first"], found), _end(test["last"], found)
        if first is None or last is None:
            return False
        return first <= low and high <= last if test["range"] == "within" else high < first or low > last
    end = _end(test["end"], found)
    sides = {"low": low, "high": high, "score": found.score}
    value = sides.get(test["side"], found.terms.get(test["side"]))
    return end is not None and value is not None and _COMPARE[test["sign"]](value, end)


def _end(text: str, found: Found) -> float | None:
    """What an end stands for, or None where this measurement has no such thing: then nothing is decided by it."""
    match = re.fullmatch(rf"(?P<name>{'|'.join(TERMS)})(?:\s*(?P<sign>[+-])\s*(?P<by>[\d.]+))?", text)
    if match is None:
        return float(text)
    value = found.terms.get(match["name"])
    if value is None or not match["by"]:
        return value
    return value + float(match["by"]) * (1 if match["sign"] == "+" else -1)
