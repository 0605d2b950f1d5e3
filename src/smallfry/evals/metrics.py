"""How answers are scored: one registry of metrics, per item and for a whole test set.

All scores are fractions (a BLEU of 65.9 is 0.659), except bits per byte.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.candidates import Prediction
from smallfry.evals.statistics import (
    area_under_roc,
    bootstrap_statistic,
    expected_calibration_error,
    selective_accuracy,
    wilson,
)
from smallfry.frames import FrameCodec
from smallfry.job import Example, Job, Metric, SplitName

Floats = NDArray[np.float64]
COVERAGES = (0.5, 0.8, 0.9)
BLEU_ORDER = 4


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric.

    Args:
        title: Name for tables.
        higher_is_better: Direction.
        proportion: Whether the score is a share of items, which has a Wilson interval.
    """

    title: str
    higher_is_better: bool
    proportion: bool


METRICS: dict[Metric, MetricSpec] = {
    "accuracy": MetricSpec("accuracy", True, True),
    "exact_match": MetricSpec("exact match", True, True),
    "bleu": MetricSpec("BLEU", True, False),
    "bits_per_byte": MetricSpec("bits per byte", False, False),
}


@dataclass(frozen=True)
class Scores:
    """What one candidate scored on one split.

    Args:
        metric: Key of `METRICS`.
        score: The corpus score.
        per_item: (n,) 0/1 for proportions; sentence BLEU or bits per byte otherwise.
        n: Items.
        sums: (n, d) numbers whose sums over items give the corpus score; for bootstrapping.
        extra: Further scores by name, where they make sense.
        groups: (n,) numbers: items that repeat one input have the same; None where no input comes twice.
    """

    metric: Metric
    score: float
    per_item: Floats
    n: int
    sums: Floats
    extra: dict[str, float] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None

    @property
    def effective(self) -> float:
        """Items that the test set is worth: a repeated input is answered alike every time and tells nothing new.

        ``n^2 / sum of squared group sizes`` (Kish 1965, with an intraclass correlation of one).
        """
        if self.groups is None:
            return float(self.n)
        return self.n**2 / float((np.bincount(self.groups).astype(np.float64) ** 2).sum())

    @property
    def higher_is_better(self) -> bool:
        """Direction of ``score``."""
        return METRICS[self.metric].higher_is_better

    def interval(self, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Wilson interval for proportions, percentile bootstrap for corpus scores; over inputs, where some repeat.

        Args:
            level: Coverage.
            resamples: Bootstrap samples.
            seed: Of the bootstrap.
        """
        if METRICS[self.metric].proportion:
            return wilson(float(self.per_item.mean()) * self.effective, self.effective, level)
        return bootstrap_statistic(
            by_group(self.sums, self.groups), corpus_statistic(self.metric), level, resamples, seed
        )


def by_group(sums: Floats, groups: NDArray[np.int64] | None) -> Floats:
    """Sums of the items that repeat one input, ``(inputs, d)``: what is drawn anew when items are resampled."""
    if groups is None:
        return sums
    found = np.zeros((int(groups.max()) + 1, sums.shape[1]))
    np.add.at(found, groups, sums)
    return found


def repeats(rows: Sequence[Example]) -> NDArray[np.int64] | None:
    """Which rows repeat an input (an output, where there is no input), by number; None where none does."""
    numbers: dict[str, int] = {}
    found = np.array([numbers.setdefault(row.input or row.output, len(numbers)) for row in rows], dtype=np.int64)
    return found if len(numbers) < len(rows) else None


def corpus_statistic(metric: Metric) -> Callable[[Floats], Floats]:
    """From (k, d) sums over items to (k,) corpus scores, for the metrics that are no proportions."""
    return bleu_from_sums if metric == "bleu" else _bits_per_byte_from_sums


# ---- exact answers --------------------------------------------------------------------------------------------------


def normalise(text: str) -> str:
    """Strip outer whitespace and collapse runs of it: what two answers may differ in and still be the same."""
    return " ".join(text.split())


def _plain(value: Any) -> Any:
    """JSON values as something ``==`` compares as JSON does: true is not 1, 1.0 is 1."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list) else value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _json_container(text: str) -> Any | None:
    """The parsed JSON object or list, or None for anything else."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return _plain(json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError):  # a model may answer with a thousand open brackets
        return None


def matches(answer: str, accepted: Iterable[str]) -> bool:
    """Whether an answer equals an accepted one, up to whitespace, or as JSON where both are objects or lists."""
    parsed: Any | None = _json_container(answer)
    mine = normalise(answer)
    for right in accepted:
        if mine == normalise(right):
            return True
        if parsed is not None and (other := _json_container(right)) is not None and parsed == other:
            return True
    return False


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Unweighted mean over classes of F1; classes are those of either sequence, F1 of one never right is 0."""
    right = Counter(g for g, p in zip(gold, predicted, strict=True) if g == p)
    n_gold, n_predicted = Counter(gold), Counter(predicted)
    classes = n_gold.keys() | n_predicted.keys()
    return sum(2 * right[c] / (n_gold[c] + n_predicted[c]) for c in classes) / max(1, len(classes))


# ---- sequences ------------------------------------------------------------------------------------------------------


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance: insertions, deletions and substitutions that turn ``a`` into ``b``.

    A column of the table is two whole numbers, whose bits say where it rises and falls (Myers 1999; Hyyro 2003).
    """
    size = len(a)
    if not size:
        return len(b)
    places: dict[str, int] = {}
    for i, x in enumerate(a):
        places[x] = places.get(x, 0) | 1 << i
    all_, last = (1 << size) - 1, 1 << (size - 1)
    up, down, distance = all_, 0, size
    for y in b:
        equal = places.get(y, 0)
        vertical = equal | down
        horizontal = (((equal & up) + up) ^ up) | equal
        rise, fall = down | ~(horizontal | up) & all_, up & horizontal
        distance += bool(rise & last) - bool(fall & last)
        rise = rise << 1 | 1
        up = (fall << 1 | ~(vertical | rise)) & all_
        down = vertical & rise & all_
    return distance


def token_errors(answers: Sequence[str], accepted: Sequence[Sequence[str]]) -> tuple[Floats, Floats]:
    """Edits to, and length of, the accepted answer nearest to each answer, in whitespace-separated tokens.

    Total edits over total length is the word error rate; for phoneme outputs, the phoneme error rate.

    Args:
        answers: n answers.
        accepted: For each, the answers that count as right.

    Returns:
        ``(edits, lengths)``, each (n,).
    """
    edits, lengths = np.zeros(len(answers)), np.zeros(len(answers))
    for i, (answer, rights) in enumerate(zip(answers, accepted, strict=True)):
        mine = answer.split()
        options = [(0 if mine == ref else edit_distance(mine, ref), len(ref)) for ref in map(str.split, rights)]
        edits[i], lengths[i] = min(options, key=lambda o: (o[0] / max(1, o[1]), o[1]))
    return edits, lengths


def tag_spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """``(name, first unit, last unit + 1)`` of every span; an I- tag that continues nothing starts one (conlleval)."""
    spans: set[tuple[str, int, int]] = set()
    name, first = "", 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, slot = tag.partition("-")
        if name and not (prefix == "I" and slot == name):
            spans.add((name, first, i))
            name = ""
        if not name and prefix in ("B", "I") and slot:
            name, first = slot, i
    return spans


def slot_f1(codec: FrameCodec, rows: Sequence[Example], answers: Sequence[str]) -> float:
    """Micro F1 over spans with the right name and both right ends (conlleval, CoNLL-2000).

    Args:
        codec: The job's codec.
        rows: The rows answered; those the codec cannot take apart are left out.
        answers: One answer a row; one that cannot be taken apart has no spans.
    """
    right = found = wanted = 0
    for row, answer in zip(rows, answers, strict=True):
        if (gold := codec.parse(row)) is None:
            continue
        frame = codec.parse(Example(row.input, answer))
        mine, theirs = tag_spans(frame.tags) if frame else set(), tag_spans(gold.tags)
        right, found, wanted = right + len(mine & theirs), found + len(mine), wanted + len(theirs)
    return 2 * right / max(1, found + wanted)


# ---- BLEU -----------------------------------------------------------------------------------------------------------

# The language-dependent part of mteval-v13a, as sacrebleu's "13a" and the E2E challenge's scorer apply it.
_ENTITIES = (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_SPLITS = (
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),  # punctuation except period, comma, apostrophe and dash
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),  # period and comma not after a digit
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),  # period and comma not before a digit
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),  # dash after a digit
)


def tokenize_13a(text: str) -> list[str]:
    """Words and punctuation as the mteval-v13a script separates them (sacrebleu's default tokenisation)."""
    text = text.strip()
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = f" {text} "
    for pattern, replacement in _SPLITS:
        text = pattern.sub(replacement, text)
    return text.split()


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(order)), strict=False))


def bleu_stats(answers: Sequence[str], accepted: Sequence[Sequence[str]], lowercase: bool = False) -> Floats:
    """Per-item numbers whose sums give corpus BLEU.

    Args:
        answers: n answers.
        accepted: For each, its references.
        lowercase: Ignore case.

    Returns:
        (n, 10): clipped matches of orders 1-4, n-grams of orders 1-4, answer length, closest reference length
        (the shorter of two equally close).
    """
    stats = np.zeros((len(answers), 2 * BLEU_ORDER + 2))
    for i, (answer, rights) in enumerate(zip(answers, accepted, strict=True)):
        tokens = tokenize_13a(answer.lower() if lowercase else answer)
        references = [tokenize_13a(r.lower() if lowercase else r) for r in dict.fromkeys(rights)]
        for order in range(1, BLEU_ORDER + 1):
            best: Counter[tuple[str, ...]] = Counter()
            for reference in references:
                best |= _ngrams(reference, order)
            stats[i, order - 1] = (_ngrams(tokens, order) & best).total()
            stats[i, BLEU_ORDER + order - 1] = max(0, len(tokens) - order + 1)
        stats[i, -2] = len(tokens)
        stats[i, -1] = min((len(r) for r in references), key=lambda length: (abs(length - len(tokens)), length))
    return stats


def bleu_from_sums(sums: Floats, smooth: float = 0.0) -> Floats:
    """BLEU of Papineni et al. (2002) with uniform weights over orders 1-4 and the closest-length brevity penalty.

    Args:
        sums: (..., 10) sums of `bleu_stats`.
        smooth: Added to matches and totals of orders above 1 (Lin & Och 2004 use 1 for single sentences).

    Returns:
        (...,) fractions; 0 where an order has no match.
    """
    matched, total = sums[..., :BLEU_ORDER].copy(), sums[..., BLEU_ORDER:-2].copy()
    matched[..., 1:] += smooth
    total[..., 1:] += smooth
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(total > 0, matched / np.maximum(total, 1e-300), 0.0)
        log_mean = np.log(precision).mean(axis=-1)
        brevity = np.minimum(0.0, 1 - sums[..., -1] / sums[..., -2])
        return np.where(sums[..., -2] > 0, np.exp(log_mean + brevity), 0.0)


def corpus_bleu(answers: Sequence[str], accepted: Sequence[Sequence[str]]) -> float:
    """Case-sensitive corpus BLEU with several references, 13a tokenisation: what sacrebleu prints by default."""
    return float(bleu_from_sums(bleu_stats(answers, accepted).sum(axis=0)))


def bleu_e2e(answers: Sequence[str], accepted: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU as the E2E NLG challenge scores it: the same, lower-cased (e2e-metrics, MTEval v13a)."""
    return float(bleu_from_sums(bleu_stats(answers, accepted, lowercase=True).sum(axis=0)))


# ---- bits per byte --------------------------------------------------------------------------------------------------


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Compression: total negative log-likelihood in nats as bits for each raw UTF-8 byte of the text."""
    return nats / (math.log(2) * n_bytes)


def _bits_per_byte_from_sums(sums: Floats) -> Floats:
    return sums[..., 0] / (math.log(2) * sums[..., 1])


def score_likelihood(job: Job, log_likelihoods: Sequence[float], split: SplitName = "test") -> Scores:
    """Bits per byte of a split's outputs.

    Args:
        job: A job of open text.
        log_likelihoods: Natural log-likelihood of each row's output, the end of the text included.
        split: Which rows were scored.

    Raises:
        ValueError: There is not one number a row, or the split has no text.
    """
    rows: tuple[Example, ...] = getattr(job, split)
    n_bytes = np.array([len(row.output.encode("utf-8", "surrogatepass")) for row in rows], dtype=np.float64)
    if len(log_likelihoods) != len(rows) or not n_bytes.sum():
        raise ValueError(f"{len(log_likelihoods)} log-likelihoods for {len(rows)} {split} rows, {n_bytes.sum()} bytes")
    sums = np.stack([-np.asarray(log_likelihoods, dtype=np.float64), n_bytes], axis=1)
    per_item = _bits_per_byte_from_sums(np.stack([sums[:, 0], np.maximum(n_bytes, 1)], axis=1))
    score = float(_bits_per_byte_from_sums(sums.sum(axis=0)))
    return Scores("bits_per_byte", score, per_item, len(rows), sums, groups=repeats(rows))


# ---- a whole split --------------------------------------------------------------------------------------------------


def score_predictions(
    job: Job, predictions: Sequence[Prediction], split: SplitName = "test", codec: FrameCodec | None = None
) -> Scores:
    """Score a candidate's answers to one split with the job's metric.

    For BLEU, rows with the same input count once, with all their outputs as references, as data-to-text sets list
    one reference a row; ``n`` and ``per_item`` then count distinct inputs in order of first appearance.

    Args:
        job: The job.
        predictions: One a row, in order.
        split: Which rows were answered.
        codec: The job's frame codec, if slot F1 is wanted beside exact match.

    Raises:
        ValueError: There is not one prediction a row, the split is empty, or the metric needs likelihoods.
    """
    rows: tuple[Example, ...] = getattr(job, split)
    if len(predictions) != len(rows) or not rows:
        raise ValueError(f"{len(predictions)} predictions for {len(rows)} {split} rows")
    if job.metric == "bits_per_byte":
        raise ValueError("bits per byte is a likelihood, not a property of answers: use score_likelihood")
    if job.metric == "bleu":
        return _score_bleu(rows, predictions)
    answers = [p.output for p in predictions]
    right = np.array([matches(a, row.accepted) for a, row in zip(answers, rows, strict=True)], dtype=np.float64)
    extra = _confidence_scores([p.confidence for p in predictions], right)
    if job.kind == "classify":
        extra["macro_f1"] = macro_f1([normalise(row.output) for row in rows], [normalise(a) for a in answers])
    else:
        edits, lengths = token_errors(answers, [row.accepted for row in rows])
        extra["mean_edit_distance"] = float(edits.mean())
        extra["token_error_rate"] = float(edits.sum() / max(1.0, lengths.sum()))
    if codec is not None:
        extra["slot_f1"] = slot_f1(codec, rows, answers)
    return Scores(job.metric, float(right.mean()), right, len(rows), right[:, None], extra, repeats(rows))


def _confidence_scores(confidence: Sequence[float], right: Floats) -> dict[str, float]:
    selective = selective_accuracy(confidence, right, COVERAGES)
    extra = {f"accuracy_at_{share:g}": value for share, value in selective.items()}
    extra["ece"] = expected_calibration_error(confidence, right)
    if 0 < right.sum() < len(right):
        extra["confidence_auroc"] = area_under_roc(confidence, right)
    return extra


def _score_bleu(rows: Sequence[Example], predictions: Sequence[Prediction]) -> Scores:
    references: dict[str, list[str]] = {}
    answers: dict[str, str] = {}
    for row, prediction in zip(rows, predictions, strict=True):
        references.setdefault(row.input, []).extend(row.accepted)
        answers.setdefault(row.input, prediction.output)
    mine, theirs = list(answers.values()), list(references.values())
    stats = bleu_stats(mine, theirs)
    extra = {"bleu_e2e": bleu_e2e(mine, theirs)}
    score = float(bleu_from_sums(stats.sum(axis=0)))
    return Scores("bleu", score, bleu_from_sums(stats, smooth=1.0), len(mine), stats, extra)
