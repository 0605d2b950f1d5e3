"""How many problems a model solves: with its likeliest answer, with one that is drawn, with one of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from smallfry.engine.decoding import Sampling
from smallfry.evals.paired import Paired, mcnemar, paired_bootstrap
from smallfry.evals.statistics import interval_of
from smallfry.evals.suites.chat import final_answer
from smallfry.evals.suites.code import pass_at_k
from smallfry.tuning.problems import Problem
from smallfry.tuning.rollouts import Answerer, describe

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Passes:
    """What a model solves of some problems.

    Args:
        n: Problems.
        samples: Answers drawn for each.
        greedy: Share solved by the likeliest answer.
        greedy_ci: 95% interval over problems (Wilson).
        drawn: pass@1: mean share of drawn answers that are right.
        drawn_ci: 95% interval over problems (bootstrap).
        any: pass@``samples``: share of problems that at least one of the drawn answers solves.
        any_ci: 95% interval over problems.
        formed: Share of likeliest answers that give any number behind ``####``; it earns nothing.
        length: Mean tokens that the model chose for a drawn answer.
        ended: Share of drawn answers that came to an end by themselves.
        entropy: Mean surprise of the chosen tokens in nats.
        right: Whether the likeliest answer solved each problem.
        shares: Share of each problem's drawn answers that are right.
        levels: By level of the problems: how many, and the share solved by the likeliest answer.
    """

    n: int
    samples: int
    greedy: float
    greedy_ci: Interval | None
    drawn: float
    drawn_ci: Interval | None
    any: float
    any_ci: Interval | None
    formed: float
    length: float
    ended: float
    entropy: float
    right: tuple[bool, ...]
    shares: tuple[float, ...]
    levels: dict[str, tuple[int, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any] | None) -> Passes | None:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        if data is None:
            return None
        lists: dict[str, Any] = {
            name: data[name] and tuple(data[name]) for name in ("greedy_ci", "drawn_ci", "any_ci", "right", "shares")
        }
        return Passes(**{**data, **lists, "levels": {k: tuple(v) for k, v in data["levels"].items()}})

    @property
    def numbers(self) -> dict[str, float]:
        """For a point of a curve."""
        return {"greedy": self.greedy, "pass@1": self.drawn, f"pass@{self.samples}": self.any, "length": self.length,
                "ended": self.ended, "entropy": self.entropy}  # fmt: skip


def measure(answerer: Answerer, problems: Sequence[Problem], samples: int, sampling: Sampling) -> Passes:
    """Ask every problem once greedily and ``samples`` times with draws.

    Args:
        answerer: Whom to ask.
        problems: What.
        samples: Answers drawn for each problem; pass@k is given for this k (`pass_at_k`, Chen et al. 2021).
        sampling: How they are drawn.
    """
    likeliest = answerer.ask(problems)
    right = answerer.rewards(problems, likeliest) > 0
    several = [p for p in problems for _ in range(samples)]
    answers = answerer.ask(several, sampling)
    correct = answerer.rewards(several, answers).reshape(len(problems), samples).sum(axis=1, dtype=np.float64)
    shares = correct / samples
    solved = np.array([pass_at_k(samples, int(c), samples) for c in correct])
    length, ended, entropy = describe(answers)
    formed = [final_answer(answerer.tokenizer.decode(answer.ids)) is not None for answer in likeliest]
    levels = {}
    for level in sorted({p.level for p in problems}):
        mine = np.array([p.level == level for p in problems])
        levels[str(level)] = (int(mine.sum()), float(right[mine].mean()))
    return Passes(
        len(problems), samples, float(right.mean()), interval_of(right), float(shares.mean()), interval_of(shares),
        float(solved.mean()), interval_of(solved), float(np.mean(formed)), length, ended, entropy,
        tuple(map(bool, right)), tuple(map(float, shares)), levels,
    )  # fmt: skip


def compare(before: Passes, after: Passes) -> tuple[Paired, Paired]:
    """After against before on the same problems: exact McNemar of the likeliest answers, bootstrap of the drawn."""
    return mcnemar(after.right, before.right), paired_bootstrap(after.shares, before.shares)
