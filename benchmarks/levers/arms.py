"""What is trained: tasks, sizes, arms and seeds, with the tokens of each, and what an arm switches off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from smallfry.errors import SmallfryError
from smallfry.sizes import parse_size

VERSION = 1  # of the definitions here and in `material`: results of others are not gone on with
TaskName = Literal["clinc150", "commands", "stories"]
ArmName = Literal["full", "vocabulary", "domain", "task", "data", "tuning", "tuning-alone"]

TASKS: tuple[TaskName, ...] = ("clinc150", "commands", "stories")
SIZES = ("1m", "5m")
SEEDS = 3
SEQ_LEN = 512  # tokens of a row of running text


@dataclass(frozen=True, slots=True)
class Lever:
    """One lever and how it is switched off.

    Args:
        arm: The arm in which it is off.
        number: Its place in the founding document's list; a letter where there are two readings.
        sentence: The founding document's own words.
        title: In a few words, for tables.
    """

    arm: ArmName
    number: str
    sentence: str
    title: str


LEVERS = (
    Lever("vocabulary", "1", "Restricted Vocabulary: 1K-5K tokens (vs 65K)", "restricted vocabulary"),
    Lever("domain", "2", "Domain-Specific Training: Focus on one narrow area", "one domain"),
    Lever("task", "3", "Simplified Tasks: Very specific use cases", "simple task"),
    Lever("data", "4", "Quality Over Quantity: Small, high-quality dataset", "small clean data"),
    Lever("tuning", "5a", "Heavy Fine-Tuning: Extensive task-specific training", "heavy tuning, equal tokens"),
    Lever("tuning-alone", "5b", "Heavy Fine-Tuning: Extensive task-specific training", "heavy tuning, a tenth alone"),
)
ARMS: tuple[ArmName, ...] = ("full", *(lever.arm for lever in LEVERS))

# By size: a vocabulary of the task's own text, and one of general text that a model of the size can just about hold.
VOCAB = {"1m": (2048, 8192), "5m": (4096, 16_384)}
# By size: training tokens, padding included, of a job and of stories.
TOKENS = {"1m": (2_500_000, 2_500_000), "5m": (1_500_000, 1_750_000)}
STORIES = 2500  # documents of the small clean set; a job's is half of its training rows
LIGHT = 0.1  # of the tokens that light tuning has
OWN_SHARE, OTHER_JOBS_SHARE = 0.5, 0.25  # of the tokens where there is not one domain; the rest is general text
SPOILED = 1 / 3  # of the rows of the large set


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the results beside the units themselves.

    Args:
        data: Folder that holds ``narrow/``, ``stories/`` and ``text/``.
        tokens: Training tokens of every unit instead of `TOKENS`, for a quick look.
        limit: At most this many training rows, test rows and questions, for a quick look.
    """

    data: Path
    tokens: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """One training and what it is asked.

    Args:
        task: What is learned.
        size: Parameters, as a rung is called.
        arm: Which lever is off.
        seed: Of the choice of rows, of weights and of order.
    """

    task: TaskName
    size: str
    arm: ArmName
    seed: int

    @property
    def key(self) -> str:
        """File-system safe identity."""
        return f"{self.task}-{self.size}-{self.arm}-s{self.seed}"

    def vocab(self) -> int:
        """Tokens of the vocabulary, without labels and tags."""
        own, general = VOCAB.get(self.size, (512, 2048))
        return general if self.arm == "vocabulary" else own

    def tokens(self, settings: Settings) -> int:
        """Training tokens, padding included; a batch more or less.

        Raises:
            SmallfryError: The size has no budget and none was given.
        """
        whole = settings.tokens
        if whole is None:
            if self.size not in TOKENS:
                raise SmallfryError(
                    f"size {self.size}: has no budget of tokens; use {' or '.join(TOKENS)}, or give --tokens"
                )
            whole = TOKENS[self.size][self.task == "stories"]
        return round(LIGHT * whole) if self.arm == "tuning-alone" else whole

    def identity(self, settings: Settings) -> dict[str, Any]:
        """What must be the same for a finished unit to count."""
        # Labels and tags begin anew before the light tuning since version 2: general text had pushed their rows away.
        version = 2 if self.arm == "tuning" and self.task != "stories" else VERSION
        return {"version": version, "tokens": self.tokens(settings), "limit": settings.limit}


def units(
    tasks: Sequence[TaskName] = TASKS, sizes: Sequence[str] = SIZES, arms: Sequence[ArmName] = ARMS, seeds: int = SEEDS
) -> list[Unit]:
    """Every unit, one seed of everything before the next.

    Raises:
        SmallfryError: A size is none.
    """
    for size in sizes:
        parse_size(size)
    return [Unit(t, s, a, seed) for seed in range(seeds) for s in sizes for t in tasks for a in arms]
