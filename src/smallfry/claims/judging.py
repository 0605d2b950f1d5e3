"""From a claim and what was measured to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .criteria import Found
from .model import Claim, Claims
from .results import Results

Verdict = Literal["supported", "refuted", "undecided", "not measured yet", "not testable here"]
VERDICTS: tuple[Verdict, ...] = ("supported", "refuted", "undecided", "not measured yet", "not testable here")


@dataclass(frozen=True, slots=True)
class Judgement:
    """A claim, judged.

    Args:
        claim: The claim.
        verdict: What the measurements say of it.
        why: In one sentence.
        found: The measurements that decide.
        beside: Those that are shown and do not.
        missing: Names of measurements that are still to be made.
    """

    claim: Claim
    verdict: Verdict
    why: str
    found: tuple[Found, ...] = ()
    beside: tuple[Found, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def seen(self) -> bool:
        """Whether something that decides was known when its criterion was written."""
        return any(one.seen for one in self.found)


def judge(claims: Claims, results: Results) -> list[Judgement]:
    """Hold every claim against what was measured.

    Args:
        claims: The claims.
        results: The measurements.

    Returns:
        One judgement a claim, in the founding document's order.
    """
    return [judge_claim(claim, results) for claim in claims.claims]


def judge_claim(claim: Claim, results: Results) -> Judgement:
    """Hold one claim against what was measured."""
    if claim.untestable:
        return Judgement(claim, "not testable here", claim.untestable)
    found: list[Found] = []
    missing: list[str] = []
    for reference in claim.readings:
        here = results.find(reference)
        found += here
        if not here:
            missing.append(reference.text)
    beside = [one for reference in claim.beside for one in results.find(reference)]
    verdict, why = decide(claim, found, missing)
    return Judgement(claim, verdict, why, tuple(found), tuple(beside), tuple(missing))


def decide(claim: Claim, found: Sequence[Found], missing: Sequence[str]) -> tuple[Verdict, str]:
    """The verdict and its reason.

    A claim is supported or refuted when one of its conditions holds; where one of each does, or none of either, it is
    undecided, unless something is still to be measured.
    """
    for_it = [c.text for c in claim.supports if c.holds(found, len(missing))]
    against = [c.text for c in claim.refutes if c.holds(found, len(missing))]
    if for_it and against:
        return "undecided", f"both `{for_it[0]}` and `{against[0]}` hold"
    if for_it:
        return "supported", f"`{for_it[0]}` holds"
    if against:
        return "refuted", f"`{against[0]}` holds"
    if missing:
        return "not measured yet", f"{len(missing)} of {len(claim.readings)} measurements are missing"
    return "undecided", "no criterion is met either way"
