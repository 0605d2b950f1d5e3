from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from smallfry.evals import paired as pairs
from smallfry.evals import statistics as st


def test_wilson_published_values() -> None:
    # Newcombe (1998a), Table I: 81/263, 15/148, 0/20, 1/29, method 3 (score).
    for k, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert st.wilson(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_edges() -> None:
    assert st.wilson(0, 0) == (0.0, 1.0)
    assert st.wilson(5, 5)[1] == 1.0
    assert st.wilson(0, 5)[0] == 0.0


def test_student_quantiles_of_tables() -> None:
    for df, value in ((1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)):
        assert st.student_quantile(0.95, df) == pytest.approx(value, abs=1e-4)
    assert st.student_quantile(0.9, 5) == pytest.approx(2.0150, abs=1e-4)


def test_mcnemar_equals_binomial_test() -> None:
    a = np.array([1] * 9 + [0] * 2 + [1] * 5 + [0] * 4, dtype=bool)
    b = np.array([0] * 9 + [1] * 2 + [1] * 5 + [0] * 4, dtype=bool)
    found = pairs.mcnemar(a, b)
    assert (found.a_only, found.b_only) == (9, 2)
    assert found.p_value == pytest.approx(2 * sum(math.comb(11, i) for i in range(3)) / 2**11)
    assert found.difference == pytest.approx(7 / 20)
    assert pairs.mcnemar(a, a).p_value == 1.0
    with pytest.raises(ValueError, match="same length"):
        pairs.mcnemar(a, b[:-1])


def test_mcnemar_large_counts_do_not_overflow() -> None:
    a = np.repeat([True, False], [6000, 5000])
    assert 0 < pairs.mcnemar(a, ~a).p_value < 1e-15


def test_newcombe_interval_swaps_sign_and_covers() -> None:
    rng = np.random.default_rng(1)
    n, covered = 80, 0
    trials = 1500
    for _ in range(trials):
        cell = rng.choice(4, size=n, p=[0.6, 0.2, 0.08, 0.12])  # both, a only, b only, neither: difference 0.12
        found = pairs.mcnemar(cell <= 1, (cell == 0) | (cell == 2))
        covered += found.low <= 0.12 <= found.high
    assert 0.93 < covered / trials < 0.975
    other = pairs.mcnemar((cell == 0) | (cell == 2), cell <= 1)
    assert (other.low, other.high) == pytest.approx((-found.high, -found.low))


def test_bootstrap_mean_matches_normal_theory_and_is_seeded() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=400)
    low, high = st.bootstrap_mean(values, resamples=4000, seed=3)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert (low, high) == st.bootstrap_mean(values, resamples=4000, seed=3)
    assert (low, high) != st.bootstrap_mean(values, resamples=4000, seed=4)


def test_bootstrap_sums_draw_n_items() -> None:
    sums = st.bootstrap_sums(np.stack([np.ones(7), np.arange(7.0)], axis=1), resamples=500)
    assert (sums[:, 0] == 7).all()
    assert sums[:, 1].mean() == pytest.approx(21, abs=1)


def test_paired_bootstrap_sees_what_the_unpaired_intervals_hide() -> None:
    rng = np.random.default_rng(5)
    difficulty = rng.normal(0, 1, 300)
    a, b = difficulty + rng.normal(0.05, 0.1, 300), difficulty + rng.normal(0, 0.1, 300)
    found = pairs.paired_bootstrap(a, b, resamples=2000)
    assert found.low > 0
    assert found.p_value < 0.01
    assert st.bootstrap_mean(a)[0] < st.bootstrap_mean(b)[1]
    assert pairs.paired_bootstrap(a, a, resamples=200).p_value == 1.0


def test_holm_by_hand() -> None:
    assert pairs.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert pairs.holm([0.9, 0.8]) == [1.0, 1.0]


def test_minimum_detectable_effect_has_its_power() -> None:
    n, p = 500, 0.9
    effect = st.minimum_detectable_effect(n, p)
    assert effect is not None
    rng = np.random.default_rng(2)
    k = rng.binomial(n, p - effect, size=20_000)
    z = np.abs(k / n - p) / math.sqrt(p * (1 - p) / n)
    assert (z > 1.96).mean() == pytest.approx(0.8, abs=0.02)
    assert st.minimum_detectable_effect(2, 0.5) is None


def test_minimum_detectable_difference_has_its_power() -> None:
    n, discordance = 1000, 0.1
    d = st.minimum_detectable_difference(n, discordance)
    assert d is not None
    rng = np.random.default_rng(2)
    cells = rng.multinomial(n, [(discordance + d) / 2, (discordance - d) / 2, 1 - discordance], size=20_000)
    z = np.abs(cells[:, 0] - cells[:, 1]) / np.sqrt(cells[:, 0] + cells[:, 1])
    assert (z > 1.96).mean() == pytest.approx(0.8, abs=0.03)
    assert st.minimum_detectable_difference(10, 0.1) is None


def test_verdicts() -> None:
    assert st.verdict(0.91, 0.95, 0.9) == "workable"
    assert st.verdict(0.9, 0.95, 0.9) == "workable"
    assert st.verdict(0.85, 0.95, 0.9) == "undecided"
    assert st.verdict(0.80, 0.89, 0.9) == "not"
    assert st.verdict(1.1, 1.2, 1.3, higher_is_better=False) == "workable"
    assert st.verdict(1.35, 1.4, 1.3, higher_is_better=False) == "not"


@pytest.mark.parametrize(
    ("score", "target"), [(0.92, 0.9), (0.85, 0.9), (0.51, 0.5), (1.0, 0.99), (0.98, 1.0), (0.0, 0.01)]
)
def test_examples_to_decide_is_the_smallest_number_that_decides(score: float, target: float) -> None:
    needed = st.examples_to_decide(score, 1, target)
    assert needed is not None
    assert st.verdict(*st.wilson(score * needed, needed), target) != "undecided"
    if needed > 1:
        assert st.verdict(*st.wilson(score * (needed - 1), needed - 1), target) == "undecided"


def test_examples_to_decide_when_clear_or_hopeless() -> None:
    assert st.examples_to_decide(0.99, 5000, 0.9) == 5000
    assert st.examples_to_decide(0.9, 5000, 0.9) is None


def test_seeds_interval_formula() -> None:
    scores = [0.90, 0.92, 0.94]
    middle, low, high = st.seeds_interval(scores, 1000)
    a, b = st.wilson(920, 1000)
    s0 = (b - a) / 2 / 1.959964
    spread = 2.446912 * math.sqrt((4 * s0**2 + 2 * 0.02**2) / 6) / math.sqrt(3)
    assert middle == 0.92
    assert low == pytest.approx(0.92 - math.hypot(0.92 - a, spread))
    assert high == pytest.approx(0.92 + math.hypot(b - 0.92, spread))
    assert st.seeds_interval([0.0, 1.0], 10)[1:] == (0.0, 1.0)


def test_one_seed_is_less_certain_than_three_that_agree_and_two_are_never_useless() -> None:
    widths = [high - low for _, low, high in (st.seeds_interval([0.9] * k, 1000) for k in (1, 2, 3, 10))]
    assert widths == sorted(widths, reverse=True)
    a, b = st.wilson(900, 1000)
    assert widths[0] < 2 * (b - a) and widths[-1] < 1.2 * (b - a)
    _, low, high = st.seeds_interval([0.993, 0.997], 4000)
    assert high - low < 0.015


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("sd", [0.0, 0.01, 0.02])
def test_seeds_interval_covers(sd: float, seeds: int) -> None:
    rng = np.random.default_rng(7)
    trials, n, p = 1000, 300, 0.85
    accuracies = np.clip(p + sd * rng.standard_normal((trials, seeds)), 0, 1 - 1e-9)
    cut = np.vectorize(NormalDist().inv_cdf)(accuracies)[:, :, None]
    # Seeds mostly fail on the same items: their difficulty is shared, the marginal accuracy stays as drawn.
    shared, own = rng.standard_normal((trials, 1, n)), rng.standard_normal((trials, seeds, n))
    scores = (math.sqrt(0.8) * shared + math.sqrt(0.2) * own < cut).mean(axis=2)
    bounds = [st.seeds_interval(list(row), n) for row in scores]
    assert np.mean([low <= p <= high for _, low, high in bounds]) > 0.94


def test_expected_calibration_error_by_hand() -> None:
    assert st.expected_calibration_error([0.95, 0.95, 0.95, 0.95], [1, 1, 1, 0]) == pytest.approx(0.2)
    assert st.expected_calibration_error([1.0, 0.0], [1, 0]) == 0.0
    assert st.expected_calibration_error([], []) == 0.0


def test_selective_accuracy_orders_and_shares_ties() -> None:
    assert st.selective_accuracy([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], [0.5, 1.0]) == {0.5: 1.0, 1.0: 0.5}
    assert st.selective_accuracy([0.5] * 4, [1, 1, 0, 0], [0.5]) == {0.5: 0.5}
    assert math.isnan(st.selective_accuracy([], [], [0.5])[0.5])


def test_area_under_roc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    c, y = rng.integers(0, 6, 60), rng.random(60) < 0.4
    pairs = [(p > q) + 0.5 * (p == q) for p in c[y] for q in c[~y]]
    assert st.area_under_roc(c, y) == pytest.approx(np.mean(pairs))
    assert math.isnan(st.area_under_roc([1.0], [True]))


def test_seeds_are_averaged_and_widen_a_paired_difference() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(2000) < 0.8
    seeds = [np.where(rng.random(2000) < 0.1, rng.random(2000) < 0.95, base) for _ in range(3)]
    one, three = pairs.paired_over_seeds(seeds[:1], base), pairs.paired_over_seeds(seeds, base)
    alone = pairs.mcnemar(seeds[0], base)
    assert one.difference == pytest.approx(alone.difference)
    assert one.low < alone.low and one.high > alone.high
    assert three.difference == pytest.approx(np.mean([pairs.mcnemar(s, base).difference for s in seeds]))
    assert three.high - three.low < one.high - one.low
    for found in (one, three):
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)
    assert pairs.paired_over_seeds([base], base).p_value == 1.0


def test_seeds_that_never_err_are_no_certainty() -> None:
    right, wrong = np.ones(50, dtype=bool), np.zeros(50, dtype=bool)
    found = pairs.paired_over_seeds([right] * 3, wrong)
    assert found.difference == 1.0 and 0.8 < found.low < 1.0 and found.p_value < 1e-6
    same = pairs.paired_over_seeds([right] * 3, right)
    assert same.difference == 0.0 and same.p_value == 1.0 and -0.15 < same.low < 0 < same.high < 0.15
    five = right.copy()
    five[:5] = False  # five items one way: the exact test says 0.0625
    assert pairs.paired_over_seeds([right] * 3, five).p_value > 0.03
    one = pairs.paired_over_seeds([right], five)
    half = pairs.paired_over_seeds([right], five, worth=25.0)
    assert half.high - half.low > 1.3 * (one.high - one.low) and half.p_value > one.p_value


def test_a_corpus_statistic_is_compared_as_such() -> None:
    nats = np.array([[10.0, 100.0], [30.0, 10.0]] * 50)  # one text long and easy, one short and hard
    other = np.array([[20.0, 100.0], [10.0, 10.0]] * 50)  # worse on the long ones, far better on the short ones

    def rate(sums: np.ndarray) -> np.ndarray:
        return sums[:, 0] / sums[:, 1]

    found = pairs.paired_statistic([nats], other, rate)
    whole = nats.sum(0)[0] / nats.sum(0)[1] - other.sum(0)[0] / other.sum(0)[1]
    assert found.difference == pytest.approx(whole) and found.low < whole < found.high
    assert pairs.paired_statistic([other], other, rate).p_value == 1.0


def test_examples_to_decide_counts_the_seeds_too() -> None:
    alone = st.examples_to_decide(0.96, 2000, 0.95)
    seeded = st.examples_to_decide(0.96, 2000, 0.95, per_seed_scores=[0.96])
    assert alone is not None and seeded is not None and seeded > alone
    assert st.verdict(*st.seeds_interval([0.96], seeded)[1:], 0.95) == "workable"
    assert st.verdict(*st.seeds_interval([0.96], seeded - 1)[1:], 0.95) == "undecided"
    assert st.examples_to_decide(0.955, 500, 0.95, per_seed_scores=[0.9, 0.955, 0.99]) is None


@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0, 7.0])
def test_intervals_cover_when_seeds_differ_much_and_that_is_known(ratio: float) -> None:
    """Families of six comparisons with three seeds; no true difference, the items' error 1, the seeds' `ratio`."""
    rng = np.random.default_rng(3)
    loose = moderated = surprised = rounds = 0
    for _ in range(70):
        family = rng.normal(size=(6, 1)) + ratio * rng.normal(size=(6, 3))
        spread = math.sqrt(float(family.var(axis=1, ddof=1).mean()))
        for each in family:
            mean = float(each.mean())
            sampling = pairs.Paired(mean, mean - 1.96, mean + 1.96, 0.5)
            plain, known = pairs.over_seeds(sampling, each), pairs.over_seeds(sampling, each, typical=spread)
            assert (known.p_value < 0.05) == (known.low > 0 or known.high < 0) or abs(known.p_value - 0.05) < 0.001
            loose += plain.low <= 0 <= plain.high
            moderated += known.low <= 0 <= known.high
            surprised += known.p_value < 0.001
            rounds += 1
    assert moderated >= 0.93 * rounds and surprised <= 0.005 * rounds
    assert loose < 0.9 * rounds if ratio >= 4 else loose > 0.93 * rounds  # why there are two


@pytest.mark.parametrize("n", [30, 300, 3000])
def test_intervals_of_a_share_cover_what_they_say(n: int) -> None:
    """10,000 draws, each of a true share drawn anew: a suite's tasks have any accuracy."""
    rng = np.random.default_rng(n)
    true = rng.uniform(0.02, 0.98, 10_000)
    hits = rng.binomial(n, true)
    intervals = [st.wilson(int(k), n) for k in hits]
    covered = [low <= p <= high for p, (low, high) in zip(true, intervals, strict=True)]
    assert 0.94 <= np.mean(covered) <= 0.96


@pytest.mark.parametrize("n", [30, 300])
def test_intervals_of_a_mean_cover_what_they_say(n: int) -> None:
    rng = np.random.default_rng(n)
    scores = rng.beta(0.7, 0.9, (2000, n))
    intervals = [st.bootstrap_mean(row, resamples=1000, seed=i) for i, row in enumerate(scores)]
    covered = [low <= 0.7 / 1.6 <= high for low, high in intervals]
    assert 0.935 <= np.mean(covered) <= 0.965  # 2,000 draws tell the coverage to a percentage point


def test_percentiles_widen_for_few_items() -> None:
    assert st.percentiles(1) == (0.0, 1.0)
    assert st.percentiles(30)[0] < st.percentiles(300)[0] < 0.025
    assert st.percentiles(100_000) == pytest.approx((0.025, 0.975), abs=1e-4)
