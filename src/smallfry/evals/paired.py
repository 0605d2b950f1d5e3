"""Two candidates on the same items: exact tests, bootstraps, and seeds that count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from smallfry.evals.statistics import (
    PRIOR_SEEDS,
    Floats,
    bootstrap_sums,
    join_seed_spread,
    normal_quantile,
    percentiles,
    student_quantile,
    wilson,
)


@dataclass(frozen=True, slots=True)
class Paired:
    """Comparison of a with b on the same items.

    Args:
        difference: Score of a minus score of b.
        low: Lower bound of the difference.
        high: Upper bound of the difference.
        p_value: Two-sided.
        a_only: Items only a has right (0 for real-valued scores).
        b_only: Items only b has right (0 for real-valued scores).
    """

    difference: float
    low: float
    high: float
    p_value: float
    a_only: int = 0
    b_only: int = 0


def _binomial_two_sided(k: int, n: int) -> float:
    """Two-sided exact p of k successes in n fair trials, as twice the smaller tail."""
    if n == 0:
        return 1.0
    term = tail = 1
    for i in range(min(k, n - k)):
        term = term * (n - i) // (i + 1)  # the binomial coefficient n over i + 1, exactly
        tail += term
    return min(1.0, float(2 * tail / (1 << n)))  # exact integers up to the one division


def mcnemar(a_correct: ArrayLike, b_correct: ArrayLike, level: float = 0.95) -> Paired:
    """Exact McNemar test, and the score interval of the difference of paired proportions.

    The p-value is the two-sided binomial test on the items only one of the two has right. The interval is method 10
    of Newcombe (1998b, Statistics in Medicine 17:2635): Wilson limits of both proportions joined with their
    (continuity-corrected) correlation.

    Args:
        a_correct: (n,) booleans.
        b_correct: (n,) booleans for the same items.
        level: Coverage of the interval.

    Raises:
        ValueError: The arrays differ in length or are empty.
    """
    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError("paired comparison needs two non-empty one-dimensional arrays of the same length")
    n = len(a)
    both, a_only, b_only = int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum())
    low, high = _newcombe(both, a_only, b_only, n, level)
    return Paired((a_only - b_only) / n, low, high, _binomial_two_sided(a_only, a_only + b_only), a_only, b_only)


def _newcombe(both: float, a_only: float, b_only: float, n: float, level: float) -> tuple[float, float]:
    """Interval of the difference of paired proportions; counts may be means over seeds."""
    neither = n - both - a_only - b_only
    pa, pb = (both + a_only) / n, (both + b_only) / n
    (la, ua), (lb, ub) = wilson(both + a_only, n, level), wilson(both + b_only, n, level)
    margins = (both + a_only) * (b_only + neither) * (both + b_only) * (a_only + neither)
    cross = both * neither - a_only * b_only
    corrected = max(0.0, cross - n / 2) if cross > 0 else float(cross)
    phi = corrected / math.sqrt(margins) if margins else 0.0

    def joined(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    difference = pa - pb
    return difference - joined(pa - la, ub - pb), difference + joined(ua - pa, pb - lb)


def paired_bootstrap(
    a_scores: ArrayLike, b_scores: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Paired:
    """Difference of the means of two real-valued per-item scores, by resampling items (Koehn 2004).

    The p-value is twice the smaller share of resampled differences on either side of zero, with one added to
    numerator and denominator so that it is never 0 (Davison & Hinkley 1997, section 4.2.3).

    Args:
        a_scores: (n,) scores.
        b_scores: (n,) scores of the same items.
        level: Coverage of the interval.
        resamples: Number of bootstrap samples.
        seed: Of the generator.

    Raises:
        ValueError: The arrays differ in length or are empty.
    """
    a, b = np.asarray(a_scores, dtype=np.float64), np.asarray(b_scores, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError("paired comparison needs two non-empty one-dimensional arrays of the same length")
    drawn = bootstrap_sums(a - b, resamples, seed)[:, 0] / len(a)
    low, high = np.quantile(drawn, percentiles(len(a), level))
    smaller = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Paired(float(np.mean(a - b)), float(low), float(high), min(1.0, 2 * (smaller + 1) / (resamples + 1)))


def paired_over_seeds(
    a_per_seed: Sequence[ArrayLike], b_correct: ArrayLike, level: float = 0.95, worth: float | None = None
) -> Paired:
    """A candidate with one or more training seeds against a fixed one on the same items, right or wrong.

    The difference is the mean over seeds. Its sampling interval is Newcombe's for one seed, and where seeds and the
    other candidate hardly differ anywhere and resampling would show nothing; else the paired bootstrap's of each item's
    mean over seeds. `join_seed_spread` widens it by how much seeds differ. The p-value is the normal one of that
    interval, so that both say the same, which for a handful of items is nearer to the exact test's than it is equal;
    ``a_only`` and ``b_only`` are means over seeds, rounded.

    Args:
        a_per_seed: For each seed (n,) booleans.
        b_correct: (n,) booleans.
        level: Coverage of the interval.
        worth: Items that these are worth, where some repeat one input (`Scores.effective`).
    """
    b = np.asarray(b_correct, dtype=bool)
    each = [mcnemar(a, b, level) for a in a_per_seed]
    mean = np.mean([np.asarray(a, dtype=bool) for a in a_per_seed], axis=0)
    if len(each) == 1 or len(b) - int(np.unique(mean - b, return_counts=True)[1].max()) < _FEW:
        both, a_only, b_only = (mean * b).sum(), (mean * ~b).sum(), ((1 - mean) * b).sum()
        low, high = _newcombe(float(both), float(a_only), float(b_only), len(b), level)
        sampling = Paired(float(np.mean(mean - b)), low, high, 1.0)
    else:
        sampling = paired_bootstrap(mean, b, level)
    if worth is not None:
        sampling = of_repeats(sampling, len(b), worth, level)
    return replace(over_seeds(sampling, [p.difference for p in each], level), **_counts(each))


def of_repeats(found: Paired, n: int, worth: float, level: float = 0.95) -> Paired:
    """A comparison on items of which some repeat others: wider, with the normal p-value of its interval.

    Args:
        found: As if all items were different ones; left as it is where they are.
        n: Items.
        worth: Items that they are worth (`Scores.effective`).
        level: Coverage of the interval.
    """
    if worth >= n:
        return found
    wider, difference = math.sqrt(n / worth), found.difference
    low, high = (difference + wider * (end - difference) for end in (found.low, found.high))
    error = (high - low) / 2 / normal_quantile(level)
    p = float(difference == 0) if error == 0 else math.erfc(abs(difference) / error / math.sqrt(2))
    return replace(found, low=low, high=high, p_value=p)


_FEW = 10  # items whose difference is not the usual one, below which resampling shows too little


def paired_statistic(
    a_sums_per_seed: Sequence[Floats], b_sums: Floats, statistic: Callable[[Floats], Floats], level: float = 0.95,
    resamples: int = 2000, seed: int = 0, fixed: bool = False, typical: float | None = None,
) -> Paired:  # fmt: skip
    """The same for a corpus statistic such as BLEU: both corpora are resampled together, item by item.

    Args:
        a_sums_per_seed: For each seed (n, d) numbers whose sums over items the statistic reads.
        b_sums: (n, d) numbers of the fixed candidate on the same items.
        statistic: From (k, d) sums to (k,) corpus scores.
        level: Coverage of the interval.
        resamples: Bootstrap samples.
        seed: Of the generator.
        fixed: Both candidates are these very models: what another training seed would give does not matter.
        typical: As `over_seeds` has it.
    """
    width = b_sums.shape[1]
    drawn = bootstrap_sums(np.hstack([*a_sums_per_seed, b_sums]), resamples, seed)
    theirs = statistic(drawn[:, -width:])
    mine = [statistic(drawn[:, i * width : (i + 1) * width]) for i in range(len(a_sums_per_seed))]
    differences = np.mean(mine, axis=0) - theirs
    low, high = np.quantile(differences, percentiles(len(b_sums), level))
    whole = float(statistic(b_sums.sum(axis=0, keepdims=True))[0])
    each = [float(statistic(a.sum(axis=0, keepdims=True))[0]) - whole for a in a_sums_per_seed]
    smaller = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p = min(1.0, 2 * (smaller + 1) / (resamples + 1))
    found = Paired(float(np.mean(each)), float(low), float(high), p)
    return found if fixed else over_seeds(found, each, level, typical)


def over_seeds(
    sampling: Paired, per_seed: Sequence[float], level: float = 0.95, typical: float | None = None
) -> Paired:  # fmt: skip
    """A comparison widened by how much training seeds differ.

    Without ``typical`` the guess of `join_seed_spread` is that seeds differ about as much as the test set's items do,
    which suits candidates of a job. Where comparisons of one kind are many, how much their seeds differ is known, and
    may be several times more (then that guess covers 78 to 87% instead of 95). With ``typical`` t, worth `PRIOR_SEEDS`
    seeds P, the variance is moderated towards it (Smyth 2004): s^2 = (P t^2 + sum (x - mean)^2) / (P + k - 1), half the
    interval is sqrt((z e)^2 + q^2 s^2 / k) with the items' standard error e, the normal quantile z and Student's q of
    P + k - 1 degrees of freedom, and the p-value is that of the level at which such an interval ends at zero.

    Args:
        sampling: The mean over seeds, with the interval that items alone give.
        per_seed: The difference of each seed.
        level: Coverage.
        typical: Standard deviation over seeds of comparisons like this one.
    """
    difference, k = sampling.difference, len(per_seed)
    if typical is None:
        low, high = join_seed_spread(difference, sampling.low, sampling.high, per_seed, level)
        error = (high - low) / 2 / normal_quantile(level)
        p = float(difference == 0) if error == 0 else math.erfc(abs(difference) / error / math.sqrt(2))
        return Paired(difference, low, high, p)
    items, freedom = (sampling.high - sampling.low) / 2 / normal_quantile(level), PRIOR_SEEDS + k - 1
    squares = float(np.sum((np.asarray(per_seed) - np.mean(per_seed)) ** 2))
    seeds = math.sqrt((PRIOR_SEEDS * typical**2 + squares) / freedom / k)
    half = _half(level, items, seeds, freedom)
    return Paired(difference, difference - half, difference + half, _p_value(abs(difference), items, seeds, freedom))


def _half(level: float, items: float, seeds: float, freedom: int) -> float:
    return math.hypot(normal_quantile(level) * items, student_quantile(level, freedom) * seeds)


def _p_value(difference: float, items: float, seeds: float, freedom: int) -> float:
    """One minus the level at which half an interval is the difference; not below a millionth."""
    low, high = 1e-6, 1.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _half(1 - middle, items, seeds, freedom) < difference else (middle, high)
    return high


def _counts(each: Sequence[Paired]) -> dict[str, int]:
    return {k: round(sum(getattr(c, k) for c in each) / max(1, len(each))) for k in ("a_only", "b_only")}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment: compare each result with the family-wise level directly."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted
