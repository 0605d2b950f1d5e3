"""Intervals, paired tests and verdicts: what a score on a finite test set does and does not show.

Everything here is numpy and the standard library. Random procedures take a seed and give the same numbers every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, median
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Verdict = Literal["workable", "not", "undecided"]
Floats = NDArray[np.float64]
_MOST_EXAMPLES = 100_000_000  # a test set beyond this decides nothing for anybody
_CHUNK = 4_000_000  # resampled indices held at once: about 32 MB


# ---- quantiles ------------------------------------------------------------------------------------------------------


def normal_quantile(level: float) -> float:
    """Two-sided standard-normal quantile: 1.96 for a ``level`` of 0.95."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def _student_central(t: float, df: int) -> float:
    """P(-t < T < t) for an integer number of degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(df))
    cos2 = math.cos(theta) ** 2
    term = total = 1.0 if df % 2 == 0 else math.cos(theta)
    for k in range(2 if df % 2 == 0 else 3, df, 2):
        term *= cos2 * (k - 1) / k
        total += term
    if df % 2 == 0:
        return math.sin(theta) * total
    return 2 / math.pi * (theta + (math.sin(theta) * total if df > 1 else 0.0))


def student_quantile(level: float, df: int) -> float:
    """Two-sided Student-t quantile: 4.303 for a ``level`` of 0.95 and 2 degrees of freedom.

    Args:
        level: Probability between -t and t.
        df: Degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while _student_central(high, df) < level:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_central(middle, df) < level else (low, middle)
    return (low + high) / 2


# ---- one candidate --------------------------------------------------------------------------------------------------


def wilson(k: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927; Newcombe 1998a, method 3).

    Args:
        k: Successes; may be fractional when it stands for a median over seeds times ``n``.
        n: Trials, or what repeated ones are worth; with none, the interval is [0, 1].
        level: Coverage.
    """
    if n <= 0:
        return 0.0, 1.0
    z = normal_quantile(level)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(p * (1 - p), 0.0) / n + z * z / (4 * n * n))
    return (0.0 if k <= 0 else max(0.0, centre - half)), (1.0 if k >= n else min(1.0, centre + half))


def bootstrap_sums(per_item: ArrayLike, resamples: int = 2000, seed: int = 0) -> Floats:
    """Column sums of ``per_item`` over items drawn with replacement: the input of any corpus statistic.

    Args:
        per_item: (n,) or (n, d) numbers that add up over items (hits, n-gram matches, nats, bytes).
        resamples: Number of bootstrap samples.
        seed: Of the generator.

    Returns:
        (resamples, d) sums.
    """
    values = np.asarray(per_item, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    n = len(values)
    if n == 0:
        return np.zeros((resamples, values.shape[1]))
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, values.shape[1]))
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        sums[start : start + rows] = counts.astype(np.float64) @ values
    return sums


def bootstrap_mean(values: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron & Tibshirani 1993, section 13.3).

    Args:
        values: (n,) per-item scores.
        level: Coverage.
        resamples: Number of bootstrap samples.
        seed: Of the generator.
    """
    return bootstrap_statistic(
        values, lambda sums: np.asarray(sums[:, 0] / max(1, np.size(values))), level, resamples, seed
    )


def bootstrap_statistic(
    per_item: ArrayLike,
    statistic: Callable[[Floats], Floats],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a corpus statistic that is a function of sums over items.

    The percentiles are set outwards as `percentiles` says, without which few items give intervals that are too short.

    Args:
        per_item: (n, d) sufficient statistics, e.g. n-gram matches and totals for BLEU.
        statistic: Maps (resamples, d) sums to (resamples,) values.
        level: Coverage.
        resamples: Number of bootstrap samples.
        seed: Of the generator.
    """
    values = statistic(bootstrap_sums(per_item, resamples, seed))
    low, high = np.quantile(values, percentiles(len(np.asarray(per_item)), level))
    return float(low), float(high)


def interval_of(values: ArrayLike, level: float = 0.95) -> tuple[float, float] | None:
    """Of the mean of scores; Wilson's where all are 0 or all are 1 and resampling shows nothing, None for one score."""
    each = np.asarray(values, dtype=np.float64)
    if len(each) < 2:
        return None
    if np.isin(each, (0.0, 1.0)).all():
        return wilson(float(each.sum()), len(each), level)
    return bootstrap_mean(each, level)


def percentiles(n: int, level: float = 0.95) -> tuple[float, float]:
    """Which quantiles of bootstrap samples of ``n`` items are an interval's ends.

    ``Phi(-sqrt(n / (n - 1)) t)`` with Student's quantile ``t`` of ``n - 1`` degrees of freedom: the samples spread by
    the plain standard deviation and know nothing of its error (Hesterberg 2015, the expanded percentile interval).
    """
    if n < 2:
        return 0.0, 1.0
    quantile = student_quantile(level, n - 1) if n <= _MANY else normal_quantile(level)
    z = math.sqrt(n / (n - 1)) * quantile
    tail = 0.5 * math.erfc(z / math.sqrt(2.0))
    return tail, 1.0 - tail


_MANY = 1000  # items from which on Student's quantile is the normal one to three digits

PRIOR_SEEDS = 4
"""What the prior guess of the spread over seeds is worth, in seeds."""


def seeds_interval(per_seed_scores: Sequence[float], n_items: float, level: float = 0.95) -> tuple[float, float, float]:
    """Median over training seeds of a proportion, with an interval for what another seed and test set would give.

    With m the median of k seeds, [a, b] the Wilson interval of m on ``n_items`` and h the half-width for the seeds
    (`join_seed_spread`), the two independent sources of error are added in quadrature on each side:
    lo = m - sqrt((m-a)^2 + h^2), hi = m + sqrt((b-m)^2 + h^2), clipped to [0, 1]. Seeds that share one test set also
    differ by chance on its items, so h counts part of the sampling error twice: the interval errs on the wide side.

    Args:
        per_seed_scores: One score in [0, 1] a seed.
        n_items: Test examples each score was measured on.
        level: Coverage.

    Returns:
        ``(median, lo, hi)``.
    """
    middle = float(median(per_seed_scores))
    low, high = wilson(middle * n_items, n_items, level)
    low, high = join_seed_spread(middle, low, high, per_seed_scores, level)
    return middle, max(0.0, low), min(1.0, high)


def join_seed_spread(
    score: float, low: float, high: float, per_seed_scores: Sequence[float], level: float = 0.95
) -> tuple[float, float]:
    """Widen a sampling interval by the spread over seeds, as in `seeds_interval` but for any metric, not clipped.

    Two or three seeds say little of their own spread: taken alone, two that agree would give certainty and two
    that differ an interval of everything. The variance is therefore estimated together with a prior guess, that seeds
    differ about as much as the test set's own sampling error s0, worth `PRIOR_SEEDS` observations (the mean of a scaled
    inverse chi-square prior and the data): s^2 = (P s0^2 + sum (x - mean)^2) / (P + k - 1) and
    h = t(level, P + k - 1) s / sqrt(k). A single seed is as uncertain as the prior says.

    Args:
        score: The score the interval belongs to.
        low: Lower bound from the test set alone.
        high: Upper bound from the test set alone.
        per_seed_scores: One score a seed.
        level: Coverage.
    """
    k = len(per_seed_scores)
    sampling = (high - low) / 2 / normal_quantile(level)
    freedom = PRIOR_SEEDS + k - 1
    squares = float(np.sum((np.asarray(per_seed_scores) - np.mean(per_seed_scores)) ** 2))
    sd = math.sqrt((PRIOR_SEEDS * sampling**2 + squares) / freedom)
    spread = student_quantile(level, freedom) * sd / math.sqrt(k)
    return score - math.hypot(score - low, spread), score + math.hypot(high - score, spread)


# ---- how much a test set can show -----------------------------------------------------------------------------------


def _smallest(shows: Callable[[float], bool], limit: float) -> float | None:
    """Smallest x in (0, limit] with ``shows(x)``, for a condition that stays true once true; None if it never is."""
    if not shows(limit):
        return None
    low, high = 0.0, limit
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def minimum_detectable_effect(n: int, p: float, level: float = 0.95, power: float = 0.8) -> float | None:
    """Smallest distance from ``p`` that a one-sample test of a proportion on ``n`` items finds with ``power``.

    Normal approximation, z_level sqrt(p(1-p)/n) + z_power sqrt(q(1-q)/n) = |q-p| (Fleiss, Levin & Paik 2003, 2.5),
    with q on the side of one half, where the variance is larger and the answer the more cautious one.

    Args:
        n: Test examples.
        p: Proportion under the null hypothesis.
        level: One minus the two-sided significance level.
        power: Probability of finding the effect.

    Returns:
        The distance, or None where even the largest possible one would be missed.
    """
    z_level, z_power = normal_quantile(level), NormalDist().inv_cdf(power)
    sign = 1.0 if p <= 0.5 else -1.0

    def shows(effect: float) -> bool:
        q = p + sign * effect
        return effect * math.sqrt(n) >= z_level * math.sqrt(p * (1 - p)) + z_power * math.sqrt(max(0.0, q * (1 - q)))

    return _smallest(shows, max(p, 1 - p))


def minimum_detectable_difference(n: int, discordance: float, level: float = 0.95, power: float = 0.8) -> float | None:
    """Smallest difference of two candidates on the same ``n`` items that McNemar's test finds with ``power``.

    From z_level sqrt(w) + z_power sqrt(w - d^2) = d sqrt(n) with w the discordance (Connor 1987, Biometrics 43:207).

    Args:
        n: Test examples both answered.
        discordance: Share of items only one of the two has right.
        level: One minus the two-sided significance level.
        power: Probability of finding the difference.

    Returns:
        The difference in accuracy, or None where even all discordant items on one side would be missed.
    """
    z_level, z_power = normal_quantile(level), NormalDist().inv_cdf(power)

    def shows(d: float) -> bool:
        spread = math.sqrt(max(0.0, discordance - d * d))
        return d * math.sqrt(n) >= z_level * math.sqrt(discordance) + z_power * spread

    return _smallest(shows, discordance) if discordance > 0 else None


def difference_behind(low: float, high: float, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest difference that a test finds with ``power`` where its interval is as wide as this one, seeds included.

    (z_level + z_power) standard errors, the error read off the interval (Fleiss, Levin & Paik 2003, 2.5).

    Args:
        low: Lower end of an interval of a difference.
        high: Upper end.
        level: The interval's, one minus the two-sided significance level.
        power: Probability of finding the difference.
    """
    z_level = normal_quantile(level)
    return (z_level + NormalDist().inv_cdf(power)) * (high - low) / (2 * z_level)


def verdict(low: float, high: float, target: float, higher_is_better: bool = True) -> Verdict:
    """``workable`` when the whole interval meets the target, ``not`` when none of it does, else ``undecided``."""
    if not higher_is_better:
        low, high, target = -high, -low, -target
    if low >= target:
        return "workable"
    return "not" if high < target else "undecided"


def examples_to_decide(
    score: float, n: int, target: float, level: float = 0.95, per_seed_scores: Sequence[float] = ()
) -> int | None:
    """Test examples, in all, that would make the verdict clear if the score stayed as it is.

    The interval is the one verdicts are drawn from: Wilson's on N items, or `seeds_interval` where there are seeds.

    Args:
        score: Measured proportion.
        n: Test examples it was measured on.
        target: Proportion wanted.
        level: Coverage of the interval the verdict is drawn from.
        per_seed_scores: Where the verdict joins seeds, the score of each.

    Returns:
        At least ``n`` (which it is when the verdict is already clear); None where no number of examples decides:
        the score equals the target, or the seeds differ by more than their distance from it.
    """

    def clear(total: int) -> bool:
        if per_seed_scores:
            _, low, high = seeds_interval(per_seed_scores, total, level)
        else:
            low, high = wilson(score * total, total, level)
        return verdict(low, high, target) != "undecided"

    if score == target:
        return None
    enough = max(n, 1)
    while not clear(enough):
        if enough > _MOST_EXAMPLES:
            return None
        enough *= 2
    short = max(n, 1) - 1  # the last number known not to be enough
    if enough > max(n, 1):
        short = enough // 2
    while enough - short > 1:
        middle = (short + enough) // 2
        short, enough = (short, middle) if clear(middle) else (middle, enough)
    return enough


# ---- confidence -----------------------------------------------------------------------------------------------------


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by size (Guo et al. 2017, eq. 3).

    Args:
        confidence: (n,) probabilities.
        correct: (n,) booleans.
        bins: Number of bins on [0, 1].
    """
    c, y = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not len(c):
        return 0.0
    which = np.minimum((c * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(which, weights=c - y, minlength=bins)
    return float(np.abs(gaps).sum() / len(c))


def selective_accuracy(confidence: ArrayLike, correct: ArrayLike, coverages: Sequence[float]) -> dict[float, float]:
    """Accuracy on the most confident share of items; ties at the cut count by their own average accuracy.

    Args:
        confidence: (n,) any scores that rank answers.
        correct: (n,) booleans.
        coverages: Shares in (0, 1]; at least one item is always kept.
    """
    c, y = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not len(c):
        return dict.fromkeys(coverages, math.nan)
    _, group, sizes = np.unique(-c, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, weights=y) / sizes)[group]  # each item at its tie group's accuracy
    total = np.cumsum(expected[np.argsort(-c, kind="stable")])
    kept = {share: max(1, round(share * len(c))) for share in coverages}
    return {share: float(total[k - 1] / k) for share, k in kept.items()}


def area_under_roc(confidence: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive item ranks above a negative one, ties counting half (Mann & Whitney 1947).

    Args:
        confidence: (n,) scores.
        positive: (n,) booleans, e.g. whether the answer is right, or whether the input belongs to the job.

    Returns:
        The area, or NaN when all items are of one class.
    """
    y = np.asarray(positive, dtype=bool)
    _, group, sizes = np.unique(np.asarray(confidence, dtype=np.float64), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]
    n_pos, n_neg = int(y.sum()), int((~y).sum())
    if not n_pos or not n_neg:
        return math.nan
    return float((ranks[y].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))
