"""Loading a job: the source, its rows, their split, the kind, and what is wrong with them."""

from __future__ import annotations

import difflib
import hashlib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from smallfry.errors import SmallfryError
from smallfry.job import Example, Job, Kind, Metric, SplitName
from smallfry.loading.hub import hub_table
from smallfry.loading.kinds import (
    UNSEEN_WARNING,
    default_metric,
    group_references,
    infer_kind,
    to_examples,
    unseen_labels,
)
from smallfry.loading.readers import ACCEPTED, Table, open_table
from smallfry.loading.rows import Columns, Row, collect
from smallfry.loading.splitting import SPLIT_OF_NAME, split_rows

MIN_ROWS = 20
USEFUL_TEST_ROWS = 200
"""A score of 95% on 200 rows has a 95% interval of about 3 points each way: the least that supports a verdict."""


@dataclass(frozen=True)
class _Settings:
    """What the user decided; ``None`` means: infer."""

    kind: Kind | None
    metric: Metric | None
    seed: int
    limit: int | None

    def __post_init__(self) -> None:
        for what, value, allowed in (("kind", self.kind, get_args(Kind)), ("metric", self.metric, get_args(Metric))):
            if value is not None and value not in allowed:
                raise SmallfryError(f"unknown {what} {value!r}; expected {', '.join(allowed)}")
        if self.limit is not None and self.limit < 1:
            raise SmallfryError(f"limit is {self.limit}; expected at least 1 row of each split")


def load_job(
    source: str | Path,
    *,
    input_column: str = "input",
    output_column: str = "output",
    references_column: str | None = None,
    kind: Kind | None = None,
    metric: Metric | None = None,
    where: Mapping[str, str] | None = None,
    seed: int = 0,
    name: str | None = None,
    limit: int | None = None,
) -> Job:
    """A job from a file, a hub data set or a built-in name. A file that exists wins over a built-in name.

    Args:
        source: A ``.jsonl``, ``.json`` (one object a line), ``.csv`` or ``.tsv`` file, also gzipped, a ``.parquet``
            file, ``hf:owner/name`` or ``hf:owner/name:config``, or a built-in job's name.
        input_column: Column of the inputs; ``""`` says the job has none (open generation).
        output_column: Column of the outputs.
        references_column: Column of further accepted outputs: a list, or texts joined by ``|||``.
        kind: ``classify``, ``transform`` or ``generate``; inferred by default, and ``Job.notes`` says why.
        metric: How answers are scored; by default the kind's own.
        where: Keep only rows whose column equals the value; compared as lower-case text, so ``oos=false`` fits a
            JSON boolean.
        seed: Seed of the split, where the data has none, and of ``limit``.
        name: The job's name; by default the file's.
        limit: At most this many rows of each split, a seeded sample, for a quick look.

    Returns:
        The job. Everything decided on the way is a sentence in ``Job.notes``.

    Raises:
        SmallfryError: Anything wrong with the source, in one line: what, where (file and line), what to do.
    """
    settings = _Settings(kind, metric, seed, limit)
    columns = Columns(input_column, output_column, references_column)
    where = where or {}
    text = str(source)
    if text.startswith("hf:"):
        table = hub_table(text, output_column, columns.wanted(where))
        short = text.removeprefix("hf:").split(":")[0].rsplit("/", 1)[-1]
        return _build(table, columns, where, settings, name or short, text)
    path = Path(source)
    try:
        is_directory, exists = path.is_dir(), path.exists()
    except OSError as error:  # a text that no file can be called
        raise SmallfryError(f"{text[:80]!r}: is no file name ({error.strerror}); give a path or a name") from error
    named = not path.suffix and len(path.parts) == 1  # a path otherwise, and no built-in job is called like one
    if named and (is_directory or not exists) and text in (builtin := _builtin_names()):
        return _load_builtin(text, where, settings, name)
    if not exists:
        raise _unknown_name(text, builtin) if named else _no_file(path)
    table = open_table(path, columns.wanted(where))
    return _build(table, columns, where, settings, name or Path(path.name.removesuffix(".gz")).stem, text)


def job_from_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    input_column: str = "input",
    output_column: str = "output",
    references_column: str | None = None,
    kind: Kind | None = None,
    metric: Metric | None = None,
    where: Mapping[str, str] | None = None,
    seed: int = 0,
    name: str | None = None,
    limit: int | None = None,
) -> Job:
    """A job from rows in memory, treated like the rows of a file; see :func:`load_job`.

    Args:
        rows: Mappings with the columns ``input``, ``output`` and, if there is a split, ``split``.
        input_column: See :func:`load_job`, as for all further arguments.
        output_column: Column of the outputs.
        references_column: Column of further accepted outputs.
        kind: Inferred by default.
        metric: By default the kind's own.
        where: Keep only rows whose column equals the value.
        seed: Seed of the split and of ``limit``.
        name: The job's name, ``rows`` by default.
        limit: At most this many rows of each split.

    Raises:
        SmallfryError: Anything wrong with the rows, with the number of the row (from 1).
    """
    settings = _Settings(kind, metric, seed, limit)
    columns = Columns(input_column, output_column, references_column)
    table = Table(name or "rows", iter(()))

    def numbered() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, Mapping):
                raise SmallfryError(f"{table.at(number)}: a {type(row).__name__}, expected a mapping with the columns")
            table.columns.update(dict.fromkeys(row))
            yield number, dict(row)

    table.rows = numbered()
    return _build(table, columns, where or {}, settings, name or "rows", "")


def _builtin_names() -> list[str]:
    return sorted(importlib.import_module("smallfry.builtin").BUILTIN)


def _load_builtin(builtin: str, where: Mapping[str, str], settings: _Settings, name: str | None) -> Job:
    if where:
        raise SmallfryError(f"{builtin}: --where needs a file or a hub data set, a built-in job has no further columns")
    job: Job = importlib.import_module("smallfry.builtin").load_builtin(builtin, settings.seed)
    notes = list(job.notes)
    parts: dict[SplitName, list[Example]] = {"train": list(job.train), "valid": list(job.valid), "test": list(job.test)}
    parts = _limited(parts, settings, notes)
    kind = settings.kind or job.kind
    metric = settings.metric or (job.metric if kind == job.kind else _metric_of_examples(kind, parts))
    return replace(
        job,
        name=name or job.name,
        kind=kind,
        metric=metric,
        train=tuple(parts["train"]),
        valid=tuple(parts["valid"]),
        test=tuple(parts["test"]),
        notes=tuple(notes),
    )


def _metric_of_examples(kind: Kind, parts: Mapping[SplitName, list[Example]]) -> Metric:
    return default_metric(kind, {"test": [Row(e.input, e.output, (), None, 0) for e in parts["test"]]})


def _no_file(path: Path) -> SmallfryError:
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    hint = f"did you mean {path.with_name(near[0])}?" if near else "check the path"
    return SmallfryError(f"{path}: no such file; {hint}")


def _unknown_name(text: str, builtin: list[str]) -> SmallfryError:
    near = difflib.get_close_matches(text, builtin, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return SmallfryError(
        f"{text!r}: neither a file nor a built-in job; {hint}built-in: {', '.join(builtin) or 'none'}; "
        f"files: {ACCEPTED}; hub: hf:owner/name"
    )


def _build(
    table: Table, columns: Columns, where: Mapping[str, str], settings: _Settings, name: str, source: str
) -> Job:
    rows, notes = collect(table, columns, where, SPLIT_OF_NAME)
    if len(rows) < MIN_ROWS:
        after = " after --where" if where else ""
        raise SmallfryError(
            f"{table.label}: {len(rows)} rows{after}, at least {MIN_ROWS} are needed, and about {USEFUL_TEST_ROWS} "
            "for testing alone before a verdict means much; add rows"
        )
    parts, decisions = split_rows(rows, settings.seed, table.label)
    kind, metric, why = _kind_and_metric(parts, settings)
    notes = [*table.notes, *notes, *decisions, *why]
    _check_inputs(table, parts, kind)
    examples: dict[SplitName, list[Example]] = {split: to_examples(part) for split, part in parts.items()}
    if kind == "generate":
        for split in ("valid", "test"):
            examples[split] = group_references(parts[split])
            if len(examples[split]) < len(parts[split]):
                notes.append(
                    f"The {len(parts[split]):,} {split} rows are {len(examples[split]):,} inputs with one or more "
                    "references each."
                )
    examples = _limited(examples, settings, notes)
    _check_outputs(table, examples)
    if kind == "classify":
        notes += _check_labels(examples)
    train, valid, test = (tuple(examples[split]) for split in ("train", "valid", "test"))
    return Job(name, kind, train, valid, test, metric, source=source, notes=tuple(notes))


def _kind_and_metric(parts: Mapping[SplitName, list[Row]], settings: _Settings) -> tuple[Kind, Metric, list[str]]:
    if settings.kind:
        return settings.kind, settings.metric or default_metric(settings.kind, parts), []
    kind, because = infer_kind(parts)
    metric = settings.metric or default_metric(kind, parts)
    others = " or ".join(f"--kind {other}" for other in get_args(Kind) if other != kind)
    return kind, metric, [f"Inferred kind {kind} (metric {metric}) because {because}; override with {others}."]


def _check_inputs(table: Table, parts: Mapping[SplitName, list[Row]], kind: Kind) -> None:
    if kind == "generate":
        return
    numbers = [row.number for part in parts.values() for row in part if not row.input.strip()]
    if numbers:
        more = f" (and {len(numbers) - 1:,} more)" if len(numbers) > 1 else ""
        raise SmallfryError(
            f"{table.at(min(numbers))}{more}: empty input, which only a generate job may have (this one is {kind}); "
            "fill it, delete the row, or use --kind generate"
        )


def _check_outputs(table: Table, parts: Mapping[SplitName, list[Example]]) -> None:
    outputs = {example.output for example in parts["train"]}
    if len(outputs) == 1:
        raise SmallfryError(
            f"{table.label}: all {len(parts['train']):,} train rows have the output {next(iter(outputs))[:60]!r}, so "
            "there is nothing to learn; check --output-column and the split"
        )


def _check_labels(parts: Mapping[SplitName, list[Example]]) -> list[str]:
    unseen = unseen_labels(parts["train"], parts["test"])
    if not unseen:
        return []
    rows = unseen.total()
    share = rows / len(parts["test"])
    some = ", ".join(repr(label[:40]) for label, _ in unseen.most_common(3))
    warning = "Warning: " if share > UNSEEN_WARNING else ""
    return [
        f"{warning}{len(unseen):,} of the labels in test never occur in train ({rows:,} of {len(parts['test']):,} "
        f"test rows, {share:.1%}; {some}): no candidate can learn them."
    ]


def _limited(
    parts: dict[SplitName, list[Example]], settings: _Settings, notes: list[str]
) -> dict[SplitName, list[Example]]:
    """At most ``limit`` examples of each split, drawn by seed, in their order."""
    limit = settings.limit
    if limit is None or all(len(part) <= limit for part in parts.values()):
        return parts
    notes.append(f"Limited to {limit:,} rows of each split, drawn with seed {settings.seed}.")
    drawn: dict[SplitName, list[Example]] = {}
    for split, part in parts.items():
        ranks = [
            hashlib.blake2b(f"{settings.seed}/{split}/{index}".encode(), digest_size=8).digest()
            for index in range(len(part))
        ]
        chosen = sorted(sorted(range(len(part)), key=ranks.__getitem__)[:limit])
        drawn[split] = [part[index] for index in chosen]
    return drawn
