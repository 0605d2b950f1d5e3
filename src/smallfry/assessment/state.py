"""What an assessment is asked for, what it has found so far, and whom it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from smallfry.assessment.work import Outcome, RungTask
from smallfry.candidates import Predictor
from smallfry.forms import FormName
from smallfry.record import PlanStep
from smallfry.train import Progress

DEFAULT_RUNGS = ("0.25m", "1m", "5m")


class Watcher(Protocol):
    """What an assessment tells whoever looks on; the command line draws it."""

    def plan(self, steps: Sequence[PlanStep]) -> None:
        """The plan, before anything is fitted."""

    def started(self, key: str, seconds: float) -> None:
        """A task began that is expected to take ``seconds``."""

    def progress(self, key: str, progress: Progress) -> None:
        """A training went on."""

    def say(self, key: str, text: str) -> None:
        """Something went wrong with a task and was mended."""

    def finished(self, key: str, text: str) -> None:
        """A task ended; ``text`` says how."""


class Silent:
    """A watcher that shows nothing."""

    def plan(self, steps: Sequence[PlanStep]) -> None:
        """Ignore."""

    def started(self, key: str, seconds: float) -> None:
        """Ignore."""

    def progress(self, key: str, progress: Progress) -> None:
        """Ignore."""

    def say(self, key: str, text: str) -> None:
        """Ignore."""

    def finished(self, key: str, text: str) -> None:
        """Ignore."""


@dataclass(frozen=True)
class AssessSettings:
    """What the user can set.

    Args:
        target: Score that makes a candidate workable; None for the kind's default (0.95, none for open text).
        rungs: Rungs to climb, smallest first.
        budget: Seconds the whole assessment may take, about.
        seeds: Seeds of a rung on which the verdict hangs.
        seed: The first seed.
        out: Directory to write.
        force: Replace an existing directory.
        resume: Go on with an interrupted assessment in ``out``.
        workers: Processes; 0 for one a core.
        form: Use this output form instead of piloting.
        vocab: Use this vocabulary instead of piloting.
        baselines: Names of the baselines to fit; None for all that fit the job.
        command: The command line, for the record.
    """

    target: float | None = None
    rungs: tuple[str, ...] = DEFAULT_RUNGS
    budget: float = 900.0
    seeds: int = 3
    seed: int = 0
    out: Path = Path("runs/assessment")
    force: bool = False
    resume: bool = False
    workers: int = 0
    form: FormName | None = None
    vocab: int | None = None
    baselines: tuple[str, ...] | None = None
    command: str = ""


@dataclass
class State:
    """Everything an assessment has found so far."""

    baselines: dict[str, tuple[Outcome, Predictor]] = field(default_factory=dict)
    pilots: list[tuple[RungTask, Outcome]] = field(default_factory=list)
    chosen: RungTask | None = None
    rungs: dict[str, dict[int, Outcome]] = field(default_factory=dict)
    combined: dict[int, Outcome] = field(default_factory=dict)
    combined_of: tuple[str, str] | None = None
    failures: dict[str, str] = field(default_factory=dict)
