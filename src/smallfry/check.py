"""What a job's data looks like before anything is trained: sizes, doubles, leakage, labels, lengths, new words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from smallfry.job import Example, Job, Kind, Metric
from smallfry.loading.kinds import UNSEEN_WARNING, unseen_labels
from smallfry.loading.leakage import near_matches
from smallfry.loading.splitting import group_key, normalise

TOP_LABELS = 20
MIN_TEST_ROWS = 200
SHOWN_CHARS = 60
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Lengths:
    """Median, 95th percentile and maximum of a length."""

    median: float
    p95: float
    max: int


@dataclass(frozen=True)
class SplitCard:
    """One split.

    Args:
        rows: Examples.
        duplicate_rows: Rows whose input and output an earlier row of the split has.
        duplicate_inputs: Rows whose input an earlier row of the split has; 0 where the job has no inputs.
        conflicting_inputs: Distinct inputs that have more than one output in the split.
        input_chars: Characters of the inputs.
        input_words: Words of the inputs, by spaces.
        output_chars: Characters of the outputs.
        output_words: Words of the outputs, by spaces.
        bytes: UTF-8 bytes of inputs and outputs.
    """

    rows: int
    duplicate_rows: int
    duplicate_inputs: int
    conflicting_inputs: int
    input_chars: Lengths
    input_words: Lengths
    output_chars: Lengths
    output_words: Lengths
    bytes: int


@dataclass(frozen=True)
class Leak:
    """Rows of a held-out split that train has too (by input, or by output where there is no input).

    Args:
        rows: Rows of the split.
        exact: Rows that train has, case, spaces and punctuation ignored.
        near: Further rows with a shingle Jaccard similarity of at least 0.8 to a train row, among those compared.
        compared: Rows compared for ``near``: all, or an even sample of a very large split.
        kept_exact: Rows without an exact leak.
        kept: Rows with neither; where only a sample was compared, the found share of near leaks is carried over.
    """

    rows: int
    exact: int
    near: int
    compared: int
    kept_exact: int
    kept: int


@dataclass(frozen=True)
class NewWords:
    """Words of test outputs (runs of letters and digits, case kept) that a candidate cannot have seen.

    Args:
        distinct: Distinct words of the test outputs.
        not_in_outputs: Those that no train output has.
        not_in_train: Those that neither a train output nor a train input has.
        copyable: Those of ``not_in_train`` that stand in the input of every test row that needs them.
        rows: Share of test rows whose output has a word of ``not_in_train``.
    """

    distinct: int
    not_in_outputs: int
    not_in_train: int
    copyable: int
    rows: float

    @property
    def share(self) -> float:
        """Share of the distinct words that train never shows."""
        return self.not_in_train / self.distinct if self.distinct else 0.0


@dataclass(frozen=True)
class DataCard:
    """What :func:`card` found.

    Args:
        name: The job's name.
        kind: The job's kind.
        metric: The job's metric.
        source: Where the rows came from.
        notes: What loading decided.
        splits: By split name.
        leaks: Of ``valid`` and ``test``, against train.
        distinct_outputs: Distinct outputs in train: the labels of a ``classify`` job.
        labels: The most frequent outputs of train with their rows, at most 20; empty for a ``generate`` job.
        majority: The most frequent output of train, ``None`` for a ``generate`` job.
        majority_rate: Share of test rows that accept it: the score of always answering so.
        only_in_test: Labels that train lacks, with their test rows; empty unless the kind is ``classify``.
        similar_labels: Groups of labels that differ only in case, spaces or punctuation.
        new_words: Words of the test outputs that train lacks.
        bytes: UTF-8 bytes of all inputs and outputs.
    """

    name: str
    kind: Kind
    metric: Metric
    source: str
    notes: tuple[str, ...]
    splits: dict[str, SplitCard]
    leaks: dict[str, Leak]
    distinct_outputs: int
    labels: dict[str, int]
    majority: str | None
    majority_rate: float
    only_in_test: dict[str, int]
    similar_labels: tuple[tuple[str, ...], ...]
    new_words: NewWords
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``new_words`` also has its ``share``."""
        found = asdict(self)
        found["new_words"]["share"] = self.new_words.share
        return found


def card(job: Job) -> DataCard:
    """Measure a job's data.

    Takes about a second for 100,000 short rows; most of it is the search for near leaks.

    Args:
        job: The job; none of its rows are changed.
    """
    splits = {"train": job.train, "valid": job.valid, "test": job.test}
    cards = {name: _split_card(rows) for name, rows in splits.items()}
    outputs = Counter(example.output for example in job.train)
    closed = job.kind != "generate" and bool(outputs)
    majority = outputs.most_common(1)[0][0] if closed else None
    hits = sum(majority in example.accepted for example in job.test) if closed else 0
    return DataCard(
        name=job.name,
        kind=job.kind,
        metric=job.metric,
        source=job.source,
        notes=job.notes,
        splits=cards,
        leaks=_leaks(job),
        distinct_outputs=len(outputs),
        labels=dict(outputs.most_common(TOP_LABELS)) if closed else {},
        majority=majority,
        majority_rate=hits / len(job.test) if job.test else 0.0,
        only_in_test=dict(unseen_labels(job.train, job.test).most_common()) if job.kind == "classify" else {},
        similar_labels=_similar(outputs) if job.kind == "classify" else (),
        new_words=_new_words(job.train, job.test),
        bytes=sum(split.bytes for split in cards.values()),
    )


def _split_card(rows: Sequence[Example]) -> SplitCard:
    outputs: dict[str, set[str]] = {}
    with_input = 0
    for row in rows:
        if row.input:
            with_input += 1
            outputs.setdefault(row.input, set()).add(row.output)
    inputs = [row.input for row in rows]
    answers = [row.output for row in rows]
    return SplitCard(
        rows=len(rows),
        duplicate_rows=len(rows) - len({(row.input, row.output) for row in rows}),
        duplicate_inputs=with_input - len(outputs),
        conflicting_inputs=sum(len(found) > 1 for found in outputs.values()),
        input_chars=_lengths(map(len, inputs)),
        input_words=_lengths(len(text.split()) for text in inputs),
        output_chars=_lengths(map(len, answers)),
        output_words=_lengths(len(text.split()) for text in answers),
        bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in (*inputs, *answers)),
    )


def _lengths(values: Iterable[int]) -> Lengths:
    array = np.fromiter(values, dtype=np.int64)
    if not len(array):
        return Lengths(0.0, 0.0, 0)
    middle, high = np.percentile(array, [50, 95])
    return Lengths(float(middle), float(high), int(array.max()))


def _leaks(job: Job) -> dict[str, Leak]:
    train = list(dict.fromkeys(group_key(row.input, row.output) for row in job.train))
    known = set(train)
    splits = {"valid": job.valid, "test": job.test}
    others = {}
    for name, rows in splits.items():
        keys = (group_key(row.input, row.output) for row in rows)
        others[name] = [key for key in keys if key not in known]
    leaks = {}
    for name, (near, compared) in zip(splits, near_matches(train, *others.values()), strict=True):
        total, kept = len(splits[name]), len(others[name])
        leaks[name] = Leak(
            rows=total,
            exact=total - kept,
            near=near,
            compared=compared,
            kept_exact=kept,
            kept=kept - round(near * kept / max(1, compared)),
        )
    return leaks


def _similar(labels: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(normalise(label), []).append(label)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _words(texts: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for text in texts:
        found.update(_WORD.findall(text))
    return found


def _new_words(train: Sequence[Example], test: Sequence[Example]) -> NewWords:
    in_outputs = _words(text for row in train for text in row.accepted)
    in_train = in_outputs | _words(row.input for row in train)
    all_words: set[str] = set()
    new: set[str] = set()
    not_copyable: set[str] = set()
    rows = 0
    for row in test:
        words = set(_WORD.findall(row.output))
        all_words |= words
        unknown = words - in_train
        if unknown:
            rows += 1
            new |= unknown
            not_copyable |= unknown.difference(_WORD.findall(row.input))
    return NewWords(
        distinct=len(all_words),
        not_in_outputs=len(all_words - in_outputs),
        not_in_train=len(new),
        copyable=len(new - not_copyable),
        rows=rows / len(test) if test else 0.0,
    )


def warnings(card: DataCard) -> list[str]:
    """One line of advice for each thing that makes a score mean less than it seems to."""
    found = []
    test = card.leaks["test"]
    if test.rows < MIN_TEST_ROWS:
        found.append(
            f"Only {test.rows:,} test rows: a score will be uncertain by several points; {MIN_TEST_ROWS} or more help."
        )
    repeated = card.splits["test"].duplicate_inputs
    if repeated > 0.05 * test.rows:
        found.append(
            f"{repeated:,} of {test.rows:,} test rows repeat the input of another: they are answered alike and tell "
            "nothing new, which intervals count in; other inputs make a score surer."
        )
    if test.exact:
        found.append(
            f"{test.exact:,} of {test.rows:,} test rows ({test.exact / test.rows:.1%}) are in train too "
            "(case, spaces, punctuation ignored): remove them from train, or read the score as too high."
        )
    if test.compared and test.near / test.compared > 0.05:
        found.append(
            f"{test.near:,} of {test.compared:,} further test rows ({test.near / test.compared:.1%}) nearly "
            "repeat a train row: the score says little about inputs that are unlike train."
        )
    train = card.splits["train"]
    if card.kind != "generate" and train.conflicting_inputs > 0.01 * train.rows:
        found.append(
            f"{train.conflicting_inputs:,} train inputs have more than one output: no candidate can get all of them "
            "right; decide on one, or list the others in a references column."
        )
    if train.duplicate_rows > 0.05 * train.rows and card.kind != "generate":
        found.append(f"{train.duplicate_rows:,} train rows are exact duplicates: they weigh more than the others.")
    return found + _label_warnings(card)


def _label_warnings(card: DataCard) -> list[str]:
    found = []
    rows = card.splits["test"].rows
    if card.only_in_test:
        lost = sum(card.only_in_test.values())
        much = "" if lost <= UNSEEN_WARNING * rows else " Split again so that train has every label."
        found.append(
            f"{len(card.only_in_test):,} of the labels in test never occur in train: {lost:,} test rows "
            f"({lost / rows:.1%}) cannot be answered.{much}"
        )
    if card.kind == "classify" and card.majority_rate >= 0.8:
        found.append(
            f"Always answering {_short(card.majority or '')!r} scores {card.majority_rate:.1%}: "
            "set the target well above it."
        )
    if card.similar_labels:
        some = ", ".join(repr(_short(label)) for label in card.similar_labels[0])
        found.append(
            f"{len(card.similar_labels):,} groups of labels differ only in case, spaces or punctuation ({some}): "
            "write them alike."
        )
    words = card.new_words
    if card.kind != "classify" and words.rows > 0.05:
        found.append(
            f"{words.rows:.0%} of the test outputs need a word that train never shows ({words.copyable:,} of "
            f"{words.not_in_train:,} such words can be copied from the input): choose a form that copies."
        )
    return found


def render(card: DataCard) -> Group:
    """The card as tables for a terminal."""
    head = Text.assemble((card.name, "bold"), f"  {card.kind}, {card.metric}, {card.bytes:,} bytes of text")
    parts: list[Any] = [head, *(Text(note, style="dim") for note in card.notes), _split_table(card), _leak_table(card)]
    if card.labels:
        parts.append(_label_table(card))
    words = card.new_words
    parts.append(
        Text(
            f"Test outputs have {words.distinct:,} distinct words; {words.not_in_outputs:,} are in no train output, "
            f"{words.not_in_train:,} ({words.share:.1%}) nowhere in train, {words.copyable:,} of those in the "
            "row's input."
        )
    )
    parts += [Text(f"! {line}", style="yellow") for line in warnings(card)]
    return Group(*parts)


def _split_table(card: DataCard) -> Table:
    table = Table(title="Splits (lengths: median / 95% / longest)", title_justify="left")
    for heading in ("", "rows", "duplicate rows", "repeated inputs", "conflicting inputs"):
        table.add_column(heading, justify="right" if heading else "left")
    for heading in ("input chars", "input words", "output chars", "output words"):
        table.add_column(heading, justify="right")
    for name, split in card.splits.items():
        counts = (split.rows, split.duplicate_rows, split.duplicate_inputs, split.conflicting_inputs)
        lengths = (split.input_chars, split.input_words, split.output_chars, split.output_words)
        table.add_row(
            name,
            *(f"{count:,}" for count in counts),
            *(f"{length.median:,.0f} / {length.p95:,.0f} / {length.max:,}" for length in lengths),
        )
    return table


def _leak_table(card: DataCard) -> Table:
    table = Table(title="Rows that train has too", title_justify="left")
    for heading in ("", "rows", "exactly", "nearly", "of compared", "kept"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, leak in card.leaks.items():
        counts = (leak.rows, leak.exact, leak.near, leak.compared, leak.kept)
        table.add_row(name, *(f"{count:,}" for count in counts))
    return table


def _label_table(card: DataCard) -> Table:
    title = f"{card.distinct_outputs:,} distinct outputs in train"
    if card.distinct_outputs > len(card.labels):
        title += f", the {len(card.labels)} most frequent"
    table = Table(title=title, title_justify="left")
    table.add_column("output")
    table.add_column("train rows", justify="right")
    for label, count in card.labels.items():
        table.add_row(escape(_short(label)), f"{count:,}")
    table.caption = f"always answering the first scores {card.majority_rate:.2%} on test"
    return table


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 3] + "..."
