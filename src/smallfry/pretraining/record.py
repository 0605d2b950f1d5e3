"""What a pretraining is asked, what it tells while it goes, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from smallfry.corpus import parse_steps
from smallfry.corpus.build import Progress as CorpusProgress
from smallfry.corpus.measure import Measured
from smallfry.errors import SmallfryError
from smallfry.pretraining.plan import Line
from smallfry.sizes import parse_size
from smallfry.tokenizer import MAX_VOCAB, MIN_VOCAB
from smallfry.train import Progress

MIN_SEQ_LEN, MAX_SEQ_LEN = 8, 8192


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """What is asked of a pretraining; None is decided from the rest.

    Args:
        corpora: Files, folders, ``hf:owner/name``, each with ``:WEIGHT`` where wanted; or one corpus directory that an
            earlier pretraining made.
        size: A rung or any size such as 750k.
        vocab: Vocabulary size.
        tokens: Tokens to train on, repetitions counted.
        seq_len: Tokens a row.
        seed: Of weights and order.
        valid: Share of the documents that are held out.
        minutes: Time the training may take.
        column: The column of rows that holds the text.
        separator: What stands between documents of text files; see `smallfry.corpus.Reading`.
        skip: Cleaning steps that are left out, separated by commas, or ``all``.
        data_dir: Folder of the suites' data, whose items are kept out of the corpus.
        tokenizer: A ``tokenizer.json`` to use instead of training one.
    """

    corpora: tuple[str, ...]
    size: str = "1m"
    vocab: int | None = None
    tokens: int | None = None
    seq_len: int = 256
    seed: int = 0
    valid: float | None = None
    minutes: float | None = None
    column: str = "text"
    separator: str = "auto"
    skip: str = ""
    data_dir: str | None = None
    tokenizer: str | None = None

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            SmallfryError: In one line.
        """
        if not self.corpora:
            raise SmallfryError("nothing to train on; name a text, .jsonl, .parquet, a folder or hf:owner/name")
        parse_size(self.size)
        parse_steps(self.skip)
        if self.vocab is not None and not MIN_VOCAB <= self.vocab <= MAX_VOCAB:
            raise SmallfryError(f"--vocab {self.vocab}: expected {MIN_VOCAB} (plain bytes) to {MAX_VOCAB}")
        if not MIN_SEQ_LEN <= self.seq_len <= MAX_SEQ_LEN:
            raise SmallfryError(f"--seq-len {self.seq_len}: expected {MIN_SEQ_LEN} to {MAX_SEQ_LEN} tokens")
        if self.seed < 0:
            raise SmallfryError(f"--seed {self.seed}: expected 0 or more")
        if self.tokens is not None and self.tokens < 1:
            raise SmallfryError(f"--tokens {self.tokens}: expected at least 1, such as 20m")
        if self.valid is not None and not 0 <= self.valid < 1:
            raise SmallfryError(f"--valid {self.valid:g}: expected a share such as 0.01; 0 holds nothing out")
        if self.minutes is not None and not self.minutes > 0:
            raise SmallfryError(f"--minutes {self.minutes:g}: expected more than 0")


@dataclass(slots=True)
class Pretrained:
    """A finished pretraining.

    Args:
        out: The model directory.
        size: What was asked for.
        params: Parameters.
        vocab_size: Of the tokenizer.
        steps: Of the optimizer.
        tokens: Trained on, repetitions counted.
        passes: Over the training text.
        seconds: Of training, measuring left out.
        held_out: Bits per byte of the held-out documents; None where none are held out.
        corpus: Hash, tokens, documents, and what cleaning left out.
        curve: One point a measurement.
        notes: What went wrong and was mended, and what must be known to read the measurement aright.
    """

    out: str
    size: str
    params: int
    vocab_size: int
    steps: int
    tokens: int
    passes: float
    seconds: float
    held_out: Measured | None
    corpus: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bits_per_byte(self) -> float | None:
        """Of the held-out documents."""
        return self.held_out.bits_per_byte if self.held_out else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {**asdict(self), "bits_per_byte": self.bits_per_byte, "commands": use(self)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Pretrained:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError: It is damaged.
        """
        plain = {k: v for k, v in data.items() if k not in ("bits_per_byte", "commands")}
        if (held := plain["held_out"]) is not None:
            plain["held_out"] = Measured(**{**held, "ci": held["ci"] and tuple(held["ci"])})
        return Pretrained(**plain)


def use(done: Pretrained) -> list[str]:
    """Commands that use the model."""
    commands = [f'smallfry run {done.out} "Once upon a time" --temperature 0.7', f"smallfry chat {done.out}"]
    if done.held_out is not None:
        commands.append(f"smallfry eval {done.out} --suite bpb --text {done.corpus['path']}/held-out.jsonl")
    return commands


class Watcher(Protocol):
    """Who is told how a pretraining goes."""

    def say(self, text: str) -> None:
        """One sentence."""

    def made(self, progress: CorpusProgress) -> None:
        """How far the corpus is."""

    def cleaned(self, lines: Sequence[tuple[str, str]]) -> None:
        """What is in the corpus and what was left out."""

    def decided(self, lines: Sequence[Line]) -> None:
        """Every setting and its reason."""

    def step(self, progress: Progress) -> None:
        """A step of the training."""

    def measured(self, progress: Progress, bits: float) -> None:
        """Bits per byte on the sample of held-out documents."""


class Silent:
    """Tells nobody."""

    def say(self, text: str) -> None:
        """Nothing."""

    def made(self, progress: CorpusProgress) -> None:
        """Nothing."""

    def cleaned(self, lines: Sequence[tuple[str, str]]) -> None:
        """Nothing."""

    def decided(self, lines: Sequence[Line]) -> None:
        """Nothing."""

    def step(self, progress: Progress) -> None:
        """Nothing."""

    def measured(self, progress: Progress, bits: float) -> None:
        """Nothing."""
