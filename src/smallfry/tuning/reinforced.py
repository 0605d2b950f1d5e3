"""What a reinforcement is asked and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from smallfry.errors import SmallfryError
from smallfry.evals.paired import Paired
from smallfry.tuning.arithmetic import LEVELS
from smallfry.tuning.passes import Passes
from smallfry.tuning.rollouts import Drawing


@dataclass(frozen=True, slots=True)
class ReinforceSettings:
    """What is asked of a reinforcement.

    Args:
        model: A model directory.
        problems: ``arithmetic``, or files of problems.
        steps: Of the optimizer.
        questions: Questions a step.
        samples: Answers drawn to each.
        lr_scale: Factor on the learning rates that pretraining of this size takes.
        levels: Of the built-in problems.
        max_new: Most tokens of an answer that the model may choose.
        temperature: Of the draws.
        top_k: Only the likeliest are drawn; 0 for all.
        tool: Whether the calculator finishes ``<<3*4=``.
        spread: Divide advantages by their question's standard deviation.
        kl: Weight of the distance from the model before; 0 for none.
        every: Steps between two measurements.
        shown: Validation problems that the curve is measured on.
        limit: Test problems at most.
        tries: Answers drawn to each when measuring: pass@k for this k.
        gsm8k: A file with GSM8K's test problems, measured before and after too.
        seed: Of problems, questions and draws.
    """

    model: str = ""
    problems: tuple[str, ...] = ()
    steps: int = 100
    questions: int = 16
    samples: int = 16
    lr_scale: float = 0.05
    levels: tuple[int, ...] = LEVELS
    max_new: int = 96
    temperature: float = 1.0
    top_k: int = 50
    tool: bool = True
    spread: bool = False
    kl: float = 0.0
    every: int = 20
    shown: int = 100
    limit: int = 200
    tries: int = 8
    gsm8k: str | None = None
    seed: int = 0

    @property
    def drawing(self) -> Drawing:
        """How answers are drawn for training."""
        return Drawing(
            self.questions, self.samples, self.max_new, self.temperature, self.top_k, self.tool, self.spread, self.kl,
            self.seed,
        )  # fmt: skip

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            SmallfryError: In one line.
        """
        if not self.model:
            raise SmallfryError("no model; name a model directory that was tuned on worked solutions")
        if not self.problems:
            raise SmallfryError("no problems; name arithmetic or a file with the columns question and answer")
        if not self.levels or not set(self.levels) <= set(LEVELS):
            raise SmallfryError(f"--levels {','.join(map(str, self.levels))}: expected some of 1 to {LEVELS[-1]}")
        for name in ("steps", "questions", "max_new", "every", "shown", "limit", "tries"):
            if getattr(self, name) < 1:
                raise SmallfryError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected at least 1")
        if self.seed < 0:
            raise SmallfryError(f"--seed {self.seed}: expected 0 or more")
        if self.samples < 2:
            raise SmallfryError(f"--samples {self.samples}: expected at least 2: an answer is held against the others")
        if not 0.0 < self.lr_scale < 1e3:
            raise SmallfryError(f"--lr-scale {self.lr_scale:g}: expected more than 0, such as 0.05")
        if not 0.01 <= self.temperature <= 10.0:
            raise SmallfryError(f"--temperature {self.temperature:g}: expected 0.01 to 10, such as 1")
        if self.top_k < 0 or not 0.0 <= self.kl < 1e3:
            raise SmallfryError(f"--top-k {self.top_k}, --kl {self.kl:g}: expected 0 or more")

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ReinforceSettings:
        """From plain data.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        lists = {name: tuple(data[name]) for name in ("problems", "levels")}
        return ReinforceSettings(**{**data, **lists})


@dataclass(slots=True)
class Reinforced:
    """A finished reinforcement.

    Args:
        out: The model directory.
        tuned_from: Name and weights' hash of what it began with.
        params: Parameters.
        steps: Of the optimizer.
        answers: Drawn for training.
        tokens: Trained on, padding counted.
        seconds: Of drawing and training, measuring left out.
        drawing_seconds: Of these, drawing.
        tests: By name (``test``, ``gsm8k``): ``before`` and ``after`` (`Passes`), and their paired differences
            ``greedy`` (exact McNemar) and ``drawn`` (bootstrap).
        data: Counts and hashes of the problems.
        curve: One point a measurement.
        notes: What went wrong and was mended.
    """

    out: str
    tuned_from: dict[str, Any]
    params: int
    steps: int
    answers: int
    tokens: int
    seconds: float
    drawing_seconds: float
    tests: dict[str, dict[str, Any]]
    data: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def answers_per_second(self) -> float:
        """While drawing."""
        return self.answers / max(1e-9, self.drawing_seconds)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            **asdict(self), "answers_per_second": self.answers_per_second,
            "commands": [f"smallfry chat {self.out}"],
        }  # fmt: skip

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Reinforced:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        plain = {k: v for k, v in data.items() if k not in ("answers_per_second", "commands")}
        plain["tests"] = {
            name: {
                "before": Passes.from_dict(found["before"]), "after": Passes.from_dict(found["after"]),
                "greedy": Paired(**found["greedy"]), "drawn": Paired(**found["drawn"]),
            }
            for name, found in plain["tests"].items()
        }  # fmt: skip
        return Reinforced(**plain)

    def rows(self) -> list[tuple[str, ...]]:
        """A table: what was measured, before, after, and the difference with its interval and p."""
        table: list[tuple[str, ...]] = []
        for name, found in self.tests.items():
            before, after = found["before"], found["after"]
            for what, key, paired in (
                ("likeliest answer", "greedy", found["greedy"]), ("pass@1, drawn", "drawn", found["drawn"]),
                (f"pass@{after.samples}", "any", None),
            ):  # fmt: skip
                change = ""
                if paired is not None:
                    change = (
                        f"{paired.difference:+.1%} ({paired.low:+.1%} to {paired.high:+.1%}), p {paired.p_value:.2g}"
                    )
                table.append((f"{name}: {what}", _share(before, key), _share(after, key), change))
        return table


def _share(passes: Passes, key: str) -> str:
    value, ci = getattr(passes, key), getattr(passes, f"{key}_ci")
    return f"{value:.1%}" + (f" ({ci[0]:.1%} to {ci[1]:.1%})" if ci else "")
