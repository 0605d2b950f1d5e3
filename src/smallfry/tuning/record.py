"""What a tuning is asked, what it tells while it goes, and what it gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from smallfry.errors import SmallfryError
from smallfry.pretraining.plan import Line
from smallfry.pretraining.record import MAX_SEQ_LEN, MIN_SEQ_LEN
from smallfry.train import Progress, Recipe

MOST_MIX = 0.95


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """What is asked of a tuning; None is decided from the rest.

    Args:
        model: A model directory, ``shipped:NAME``, or a size such as ``1m`` for fresh weights.
        data: Chat data, or one job: see `smallfry.tuning.tune`.
        tokens: Padded tokens to train on, repetitions counted.
        epochs: Passes over the data, instead of ``tokens``.
        lr_scale: Factor on the learning rates that pretraining of this size takes.
        seq_len: Longest row in tokens; by default what the model was made for.
        limit: At most so many conversations of each source, or rows of each split of a job.
        seed: Of the order, and of what is held out where the data does not say.
        mix: ``CORPUS:SHARE``: a corpus directory that pretraining made, and its share of the tokens.
        form: Of a job: ``text``, ``units`` or ``inline``.
        vocab: Vocabulary of a job on fresh weights.
        input_column: Of a job.
        output_column: Of a job.
        teacher: Models to learn from: directories, ``hf:owner/name`` or ``http(s)://.../v1``.
        teacher_model: The model's name at an address.
        teacher_share: Of the loss that is the teachers'.
        temperature: Of the teachers' distributions.
        unlabelled: A file with inputs that the teacher answers.
        write: New examples of a job that the teacher writes.
        max_new: Most tokens of a teacher's answer.
    """

    model: str = ""
    data: tuple[str, ...] = ()
    tokens: int | None = None
    epochs: float | None = None
    lr_scale: float | None = None
    seq_len: int | None = None
    limit: int | None = None
    seed: int = 0
    mix: str | None = None
    form: str | None = None
    vocab: int | None = None
    input_column: str = "input"
    output_column: str = "output"
    teacher: tuple[str, ...] = ()
    teacher_model: str | None = None
    teacher_share: float = 0.5
    temperature: float = 2.0
    unlabelled: str | None = None
    write: int = 0
    max_new: int = 256

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            SmallfryError: In one line.
        """
        if not self.model:
            raise SmallfryError("no model; name a model directory, or a size such as 1m for a job")
        if not self.data:
            raise SmallfryError("no data; name chat data (a .jsonl with messages), a built-in set, or a job")
        if self.seed < 0:
            raise SmallfryError(f"--seed {self.seed}: expected 0 or more")
        if self.tokens is not None and self.epochs is not None:
            raise SmallfryError("--tokens and --epochs: both say how long; give one")
        for name, count, such in (("--tokens", self.tokens, "5m"), ("--limit", self.limit, "1000")):
            if count is not None and count < 1:
                raise SmallfryError(f"{name} {count}: expected at least 1, such as {such}")
        for name, value in (("--epochs", self.epochs), ("--lr-scale", self.lr_scale)):
            if value is not None and not 0 < value < 1e6:
                raise SmallfryError(f"{name} {value:g}: expected more than 0")
        if self.seq_len is not None and not MIN_SEQ_LEN <= self.seq_len <= MAX_SEQ_LEN:
            raise SmallfryError(f"--seq-len {self.seq_len}: expected {MIN_SEQ_LEN} to {MAX_SEQ_LEN} tokens")
        if self.form not in (None, "text", "units", "inline"):
            raise SmallfryError(f"--form {self.form}: expected text, units or inline")
        self._check_teaching()
        if self.mix is not None:
            self.mixed()

    def _check_teaching(self) -> None:
        if not 0 < self.teacher_share <= 1:
            raise SmallfryError(f"--teacher-share {self.teacher_share:g}: expected a share such as 0.5, at most 1")
        if not 0.1 <= self.temperature <= 100:
            raise SmallfryError(f"--temperature {self.temperature:g}: expected a number such as 2")
        for name, given in (
            ("--teacher-model", self.teacher_model), ("--unlabelled", self.unlabelled), ("--write", self.write)
        ):  # fmt: skip
            if given and not self.teacher:
                raise SmallfryError(f"{name}: needs a --teacher")

    def mixed(self) -> tuple[str, float]:
        """The corpus of ``mix`` and its share.

        Raises:
            SmallfryError: It is not ``CORPUS:SHARE``.
        """
        path, _, share = (self.mix or "").rpartition(":")
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not path or not 0 < value <= MOST_MIX:
            raise SmallfryError(f"--mix {self.mix}: expected CORPUS:SHARE such as made/corpus:0.2, at most {MOST_MIX}")
        return path, value

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> TuneSettings:
        """From plain data.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        return TuneSettings(**{**data, "data": tuple(data["data"]), "teacher": tuple(data["teacher"])})


@dataclass(frozen=True)
class Plan:
    """Everything that decides a tuning, once its data is read.

    Args:
        recipe: How it is trained; its epochs are stretches between two measurements.
        seq_len: Longest row; 0 where the data decides.
        steps: Batches of the whole run.
        stretch: Batches between two measurements.
        lines: Every setting with its reason.
    """

    recipe: Recipe
    seq_len: int
    steps: int
    stretch: int
    lines: tuple[Line, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "recipe": self.recipe.to_dict(), "seq_len": self.seq_len, "steps": self.steps, "stretch": self.stretch,
            "lines": [asdict(line) for line in self.lines],
        }  # fmt: skip

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: It is damaged.
        """
        return Plan(
            Recipe.from_dict(data["recipe"]), int(data["seq_len"]), int(data["steps"]), int(data["stretch"]),
            tuple(Line(**line) for line in data["lines"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answers:
    """How well a model knows held-out answers.

    Args:
        loss: Nats a token of the answers.
        ci: 95% interval over them; None where there are too few.
        n: How many conversations, or rows of a job.
        tokens: Of their answers.
    """

    loss: float
    ci: tuple[float, float] | None
    n: int
    tokens: int

    @property
    def perplexity(self) -> float:
        """A token: among how many equally likely ones the model would be as unsure."""
        return math.exp(min(50.0, self.loss))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "perplexity": self.perplexity}

    @staticmethod
    def from_dict(data: Mapping[str, Any] | None) -> Answers | None:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        if data is None:
            return None
        ci = data["ci"]
        return Answers(float(data["loss"]), ci and (ci[0], ci[1]), int(data["n"]), int(data["tokens"]))


@dataclass(slots=True)
class Tuned:
    """A finished tuning.

    Args:
        out: The model directory.
        kind: ``chat`` or ``job``.
        tuned_from: Name and weights' hash of what it began with; None for fresh weights.
        params: Parameters.
        vocab_size: Of the tokenizer.
        steps: Of the optimizer.
        tokens: Trained on, padding and repetitions counted.
        seconds: Of training, measuring left out.
        before: Held-out answers before the first step; None where nothing was held out, and for fresh weights.
        after: The same at the end.
        better: 95% interval of how much the loss fell on the same conversations; None where it was not measured twice.
        job: Of a job: ``name``, ``kind``, ``metric``, ``form``, ``score``, ``ci``, ``n``, ``valid_loss_before``,
            ``valid_loss``; None for chat data.
        data: Names, counts and hashes of what was learned from.
        curve: One point a measurement.
        notes: What went wrong and was mended.
    """

    out: str
    kind: str
    tuned_from: dict[str, Any] | None
    params: int
    vocab_size: int
    steps: int
    tokens: int
    seconds: float
    before: Answers | None = None
    after: Answers | None = None
    better: tuple[float, float] | None = None
    job: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            **asdict(self), "before": self.before and self.before.to_dict(),
            "after": self.after and self.after.to_dict(),
            "commands": use(self),
        }  # fmt: skip

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Tuned:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        plain = {k: v for k, v in data.items() if k != "commands"}
        plain |= {name: Answers.from_dict(plain[name]) for name in ("before", "after")}
        plain["better"] = plain["better"] and tuple(plain["better"])
        return Tuned(**plain)


def use(done: Tuned) -> list[str]:
    """Commands that use the model."""
    if done.job is None:
        return [f"smallfry chat {done.out}"]
    return [f'smallfry run {done.out} "{done.job["example"]}"', f"smallfry export {done.out} --to web --out page.html"]


class Watcher(Protocol):
    """Who is told how a tuning goes."""

    def say(self, text: str) -> None:
        """One sentence."""

    def read(self, lines: Sequence[tuple[str, str]]) -> None:
        """What the data is and what was left out."""

    def decided(self, lines: Sequence[Line]) -> None:
        """Every setting and its reason."""

    def step(self, progress: Progress) -> None:
        """A step of the training."""

    def measured(self, progress: Progress, found: str) -> None:
        """What was measured on held-out data on the way."""


class Silent:
    """Tells nobody."""

    def say(self, text: str) -> None:
        """Nothing."""

    def read(self, lines: Sequence[tuple[str, str]]) -> None:
        """Nothing."""

    def decided(self, lines: Sequence[Line]) -> None:
        """Nothing."""

    def step(self, progress: Progress) -> None:
        """Nothing."""

    def measured(self, progress: Progress, found: str) -> None:
        """Nothing."""
