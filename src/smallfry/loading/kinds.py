"""How a job's answers are to be judged, read off the data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean, median

from smallfry.job import METRIC_OF_KIND, Example, Kind, Metric, SplitName
from smallfry.loading.rows import Row

MAX_LABELS = 1000
MIN_ROWS_PER_LABEL = 4
MIN_SEEN_SHARE = 0.95
"""Share of test rows whose label train must have: below it the set of outputs is not closed."""
MAX_LABEL_WORDS = 5
MIN_OPEN_OUTPUTS = 2
MIN_OPEN_WORDS = 6
UNSEEN_WARNING = 0.05


def infer_kind(parts: Mapping[SplitName, Sequence[Row]]) -> tuple[Kind, str]:
    """The kind the rows look like, and why.

    ``generate`` when most inputs are empty, or the same input usually has several different long outputs;
    ``classify`` when train has few short outputs that repeat and test has hardly any other; else ``transform``.

    Returns:
        The kind and the reason, a clause that completes "because".
    """
    everything = [row for part in parts.values() for row in part]
    empty = sum(not row.input.strip() for row in everything) / len(everything)
    if empty > 0.5:
        return "generate", f"{empty:.0%} of the inputs are empty"
    train = parts["train"]
    labels = {row.output for row in train}
    words = median(len(row.output.split()) for row in train)
    per_label = len(train) / len(labels)
    seen = mean(row.output in labels for row in parts["test"])
    if (
        len(labels) <= MAX_LABELS
        and per_label >= MIN_ROWS_PER_LABEL
        and seen >= MIN_SEEN_SHARE
        and words <= MAX_LABEL_WORDS
    ):
        return "classify", f"train has {len(labels):,} distinct short outputs, {per_label:,.0f} rows each on average"
    outputs: dict[str, set[str]] = defaultdict(set)
    for row in everything:
        outputs[row.input].add(row.output)
    several = median(len(found) for found in outputs.values())
    if several >= MIN_OPEN_OUTPUTS and words >= MIN_OPEN_WORDS:
        return "generate", f"the same input has {several:g} different outputs of {words:g} words (medians)"
    return "transform", f"train has {len(labels):,} distinct outputs in {len(train):,} rows, one for each input"


def default_metric(kind: Kind, parts: Mapping[SplitName, Sequence[Row]]) -> Metric:
    """The kind's own metric; for open text, BLEU against references where there are inputs, else likelihood."""
    if kind == "generate":
        test = parts["test"]
        return "bleu" if sum(bool(row.input.strip()) for row in test) * 2 > len(test) else METRIC_OF_KIND[kind]
    return METRIC_OF_KIND[kind]


def to_examples(rows: Sequence[Row]) -> list[Example]:
    """Rows as examples, one for one."""
    return [Example(row.input, row.output, (row.output, *row.others) if row.others else ()) for row in rows]


def group_references(rows: Sequence[Row]) -> list[Example]:
    """Rows with the same (non-empty) input as one example that accepts all their outputs, in the order of the rows."""
    accepted: dict[str, dict[str, None]] = {}
    examples: list[Example | str] = []
    for row in rows:
        if not row.input.strip():
            examples.append(Example(row.input, row.output, (row.output, *row.others) if row.others else ()))
            continue
        if row.input not in accepted:
            accepted[row.input] = {}
            examples.append(row.input)
        accepted[row.input].update(dict.fromkeys((row.output, *row.others)))
    merged = []
    for item in examples:
        if isinstance(item, str):
            outputs = tuple(accepted[item])
            item = Example(item, outputs[0], outputs if len(outputs) > 1 else ())
        merged.append(item)
    return merged


def unseen_labels(train: Sequence[Example], test: Sequence[Example]) -> Counter[str]:
    """Labels of test rows that no train row has, with their number of test rows."""
    known = {example.output for example in train}
    return Counter(e.output for e in test if not known.intersection(e.accepted))
