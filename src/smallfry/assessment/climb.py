"""Which training comes next: up the ladder with one seed, then more seeds where the verdict hangs on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from smallfry.evals.statistics import Verdict

_CLOSE = 0.02  # share of the best validation score within which another rung may really be the best


@dataclass(slots=True)
class RungState:
    """What is known of a rung.

    Args:
        name: The rung.
        started: Seeds that were submitted.
        valid: Validation score of each finished seed.
        verdict: Of the finished seeds together; None without a target or a finished seed.
        too_long: Whether a training was left out because the budget could not hold it.
        failed: Whether a training broke off with an error.
    """

    name: str
    started: list[int] = field(default_factory=list)
    valid: dict[int, float] = field(default_factory=dict)
    verdict: Verdict | None = None
    too_long: bool = False
    failed: bool = False


class Climber:
    """Decides the order of trainings.

    One seed a rung from the smallest up, until a rung is workable; then the remaining seeds of that rung and of the one
    below it, whose refusal makes it the smallest. Where nothing is workable, the remaining seeds go to the rungs within
    chance of the best validation score, the largest first, else to the best that the budget still holds. Test scores
    decide when to stop, and so which rung is the smallest workable one.

    Args:
        rungs: From the smallest up.
        seeds: Seeds of each rung.
        higher_is_better: Direction of the validation score.
        estimate: Expected seconds of one training of a rung.
        seconds_left: Seconds of the budget that are left.
        workers: Trainings that run side by side.
        finished: Whether an earlier run left the outcome of a rung and seed: it costs nothing.
    """

    def __init__(
        self, rungs: Sequence[str], seeds: Sequence[int], higher_is_better: bool, estimate: Callable[[str], float],
        seconds_left: Callable[[], float], workers: int, finished: Callable[[str, int], bool] | None = None,
    ) -> None:  # fmt: skip
        self.rungs = [RungState(name) for name in rungs]
        self.seeds = list(seeds)
        self.sign = 1.0 if higher_is_better else -1.0
        self.estimate, self.seconds_left, self.workers = estimate, seconds_left, workers
        self.finished = finished or (lambda rung, seed: False)

    def __getitem__(self, name: str) -> RungState:
        return next(r for r in self.rungs if r.name == name)

    def record(self, name: str, seed: int, valid: float, verdict: Verdict | None) -> None:
        """Note a finished training and the verdict on its rung that follows."""
        state = self[name]
        state.valid[seed] = valid
        state.verdict = verdict

    def fail(self, name: str) -> None:
        """Note that a training of a rung cannot be finished: the rung is left as it is."""
        state = self[name]
        state.failed = True
        state.started = list(self.seeds)

    def next(self) -> tuple[str, int] | None:
        """The next training worth starting, or None: wait for what runs, or be done if nothing does."""
        step = self._upwards()
        if step is None:
            step = self._more_seeds()
        if step is not None:
            self[step[0]].started.append(step[1])
        return step

    def _fits(self, state: RungState, seed: int) -> bool:
        """Whether a training ends inside the budget. The smallest rung always runs, and what is finished is free."""
        if (state is self.rungs[0] and not state.started) or self.finished(state.name, seed):
            return True
        fits = self.estimate(state.name) <= self.seconds_left()
        state.too_long = state.too_long or (not fits and not state.started)
        return fits

    def _upwards(self) -> tuple[str, int] | None:
        for state in self.rungs:
            if state.verdict == "workable":
                return None
            if not state.started:
                return (state.name, self.seeds[0]) if self._fits(state, self.seeds[0]) else None
        return None

    def _more_seeds(self) -> tuple[str, int] | None:
        for state in self._focus():
            for seed in self.seeds:
                if seed not in state.started:
                    return (state.name, seed) if self._fits(state, seed) else None
        return None

    def _focus(self) -> list[RungState]:
        """Rungs whose further seeds matter, the most important first."""
        workable = next((i for i, r in enumerate(self.rungs) if r.verdict == "workable"), None)
        if workable is not None:
            below = self.rungs[workable - 1] if workable else None
            return [self.rungs[workable], *([below] if below is not None and below.valid else [])]
        started = [r for r in self.rungs if r.started]
        larger = next((r for r in self.rungs if not r.started), None)
        if len(started) == 1 and (larger is None or larger.too_long):
            return [r for r in started if self._rest_fits(r)]  # no other rung can come: there is nothing to wait for
        done = [r for r in self.rungs if r.valid]
        out = [r for r in started if not r.valid and not r.failed]
        if out == started[-1:] and (larger is None or larger.too_long):
            return [r for r in out if self._rest_fits(r)]  # the top of the ladder is the likeliest to need its seeds
        if not done or out:
            return []  # a first seed is still out: wait for it before choosing
        best = max(self.sign * v for r in done for v in r.valid.values())
        close = [r for r in done if max(self.sign * v for v in r.valid.values()) >= best - _CLOSE * abs(best)]
        # Validation rows cannot rank those within chance of each other: the largest is the likeliest to be the best.
        affordable = [r for r in reversed(close) if self._rest_fits(r)]
        if affordable:
            return affordable
        ranked = sorted(done, key=lambda r: -self.sign * max(self.sign * v for v in r.valid.values()))
        return [r for r in ranked if self._rest_fits(r)][:1]

    def _rest_fits(self, state: RungState) -> bool:
        missing = len([s for s in self.seeds if s not in state.started and not self.finished(state.name, s)])
        if not missing:
            return True
        waves = -(-missing // self.workers)
        return waves * self.estimate(state.name) <= self.seconds_left()
