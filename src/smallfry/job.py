"""A job: what a model must do, as examples with a kind, a metric and a target."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

Kind = Literal["classify", "transform", "generate"]
Metric = Literal["accuracy", "exact_match", "bleu", "bits_per_byte"]
SplitName = Literal["train", "valid", "test"]

METRIC_OF_KIND: dict[Kind, Metric] = {"classify": "accuracy", "transform": "exact_match", "generate": "bits_per_byte"}


class LoadOptions(TypedDict, total=False):
    """What :meth:`Job.load` and :meth:`Job.from_rows` accept; :func:`smallfry.loading.load_job` says what each does."""

    input_column: str
    output_column: str
    references_column: str | None
    kind: Kind | None
    metric: Metric | None
    where: Mapping[str, str] | None
    seed: int
    name: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a job.

    Args:
        input: What the model is given (may be empty for open generation).
        output: What it must answer; for several accepted answers, the preferred one.
        references: Every accepted answer. Empty means ``(output,)``.
    """

    input: str
    output: str
    references: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[str, ...]:
        """All outputs that count as right."""
        return self.references or (self.output,)


@dataclass(frozen=True)
class Job:
    """Examples in three splits, and how an answer is judged.

    Args:
        name: Short name for tables and file names.
        kind: ``classify`` (closed set), ``transform`` (one right output) or ``generate`` (open text).
        train: Rows a candidate may learn from.
        valid: Rows for choosing between settings.
        test: Rows for the verdict; no choice is ever made on them.
        metric: How answers are scored; by default the kind's own metric.
        source: Path, built-in name or hub name the rows came from.
        notes: What loading decided (a seeded split, an inferred kind, dropped rows), one sentence each.
    """

    name: str
    kind: Kind
    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    test: tuple[Example, ...]
    metric: Metric
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def load(cls, source: str | Path, **options: Unpack[LoadOptions]) -> Job:
        """A job from a file, ``hf:owner/name`` or a built-in name; see :func:`smallfry.loading.load_job`.

        Raises:
            SmallfryError: Anything wrong with the source, in one line.
        """
        from smallfry.loading import load_job

        return load_job(source, **options)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], **options: Unpack[LoadOptions]) -> Job:
        """A job from rows in memory; see :func:`smallfry.loading.job_from_rows`.

        Raises:
            SmallfryError: Anything wrong with the rows, in one line.
        """
        from smallfry.loading import job_from_rows

        return job_from_rows(rows, **options)

    @property
    def labels(self) -> tuple[str, ...]:
        """The sorted distinct outputs of train (the closed set of a ``classify`` job)."""
        return tuple(sorted({e.output for e in self.train}))

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each split's rows, in order: what an assessment was measured on."""
        return {"train": sha256_rows(self.train), "valid": sha256_rows(self.valid), "test": sha256_rows(self.test)}


def sha256_rows(rows: Iterable[Example]) -> str:
    """SHA-256 over rows; fields are length-prefixed so that no two row lists share a digest by concatenation."""
    digest = hashlib.sha256()
    for row in rows:
        for text in (row.input, row.output, *row.references):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        digest.update(b"\n")
    return digest.hexdigest()
