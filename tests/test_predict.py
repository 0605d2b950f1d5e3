"""The prediction of rungs not run, held against curves whose truth is known and against runs that were made."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import numpy as np
import pytest

from smallfry.predict import Point, Prediction, predict_rungs

SIZES = (250_000, 500_000, 1_000_000, 2_000_000)
TARGETS = (("5m", 5_000_000), ("20m", 20_000_000), ("100m", 100_000_000))
Curve = Callable[[float], float]


def power_law(params: float) -> float:
    return 0.4 * (params / 250_000) ** -0.3


def with_floor(params: float) -> float:
    return 0.12 + 0.3 * (params / 250_000) ** -0.8


def flat(params: float) -> float:
    return 0.1


def exact(curve: Curve, sizes: tuple[int, ...] = SIZES, n: int = 50_000) -> list[Point]:
    return [Point(size, round(n * curve(size)), n) for size in sizes]


def test_recovers_a_power_law_without_noise() -> None:
    prediction = predict_rungs(exact(power_law, SIZES[:3]), TARGETS)
    assert prediction.status == "extrapolated"
    assert prediction.slope == pytest.approx(0.3, abs=0.003)
    assert prediction.slope_ci is not None and prediction.slope_ci[0] < 0.3 < prediction.slope_ci[1]
    for rung in prediction.rungs:
        assert rung.score == pytest.approx(1 - power_law(rung.params), abs=0.003)
        assert rung.lo < 1 - power_law(rung.params) < rung.hi


def test_recovers_a_floor_from_enough_sizes() -> None:
    prediction = predict_rungs(exact(with_floor, (*SIZES, 4_000_000, 8_000_000)), [("100m", 100_000_000)])
    rung = prediction.rungs[0]
    assert prediction.status == "extrapolated" and prediction.floor == pytest.approx(0.12, abs=0.015)
    assert rung.score == pytest.approx(1 - with_floor(rung.params), abs=0.015)
    # The line through the logarithms would promise far more than the floor allows.
    assert rung.score < 1 - with_floor(8_000_000) * (100 / 8) ** -float(prediction.slope or 0)


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_a_floor_that_few_sizes_cannot_show_is_inside_the_interval(count: int) -> None:
    sizes = (*SIZES, 4_000_000, 8_000_000)[:count]
    for rung in predict_rungs(exact(with_floor, sizes), TARGETS).rungs:
        assert rung.lo <= 1 - with_floor(rung.params) <= rung.hi


@pytest.mark.parametrize("curve", [power_law, with_floor, flat], ids=lambda curve: curve.__name__)
@pytest.mark.parametrize(("sizes", "seeds", "n"), [(SIZES[:2], 3, 2000), (SIZES[:3], 1, 400), (SIZES, 2, 1000)])
def test_intervals_cover_what_one_more_run_measures(curve: Curve, sizes: tuple[int, ...], seeds: int, n: int) -> None:
    random = np.random.default_rng(7)

    def measure(params: int) -> int:
        return int(random.binomial(n, min(1.0, curve(params) * float(np.exp(0.05 * random.standard_normal())))))

    rounds, hits = 60, 0
    for number in range(rounds):
        points = [Point(size, measure(size), n, seed) for size in sizes for seed in range(seeds)]
        rung = predict_rungs(points, [("5m", 5_000_000)], seed=number, draws=300).rungs[0]
        hits += rung.lo <= 1 - measure(5_000_000) / n <= rung.hi
    assert hits / rounds >= 0.88  # nominal 0.95; the binomial standard error of 60 rounds is 0.03


@pytest.mark.parametrize("noise", range(6))
def test_scores_never_fall_with_size_and_lie_in_their_intervals(noise: int) -> None:
    random = np.random.default_rng(noise)
    targets = [(f"{size}", size) for size in (100_000, 700_000, *(size for _, size in TARGETS))]
    for curve, count in itertools.product((power_law, with_floor, flat), (2, 3, 4)):
        points = [Point(size, int(random.binomial(200, curve(size))), 200) for size in SIZES[:count]]
        rungs = predict_rungs(points, targets, seed=noise, draws=200).rungs
        assert all(below.score <= above.score for below, above in itertools.pairwise(rungs))
        assert all(0 <= rung.lo <= rung.score <= rung.hi <= 1 for rung in rungs)


def test_intervals_widen_with_distance_and_narrow_with_items_and_seeds() -> None:
    def width(prediction: Prediction, index: int = 0) -> float:
        return prediction.rungs[index].hi - prediction.rungs[index].lo

    one = predict_rungs(exact(power_law, SIZES[:3], 500), TARGETS)
    assert width(one, 0) < width(one, 1) < width(one, 2)
    assert width(predict_rungs(exact(power_law, SIZES[:3], 5000), TARGETS)) < width(one)
    repeated = [Point(p.params, p.errors, p.n, seed) for p in exact(power_law, SIZES[:3], 500) for seed in range(4)]
    assert width(predict_rungs(repeated, TARGETS)) < width(one)


def test_seeds_that_disagree_widen_the_interval() -> None:
    def spread_by(factor: float) -> Prediction:
        pairs = [(p, sign) for p in exact(power_law, n=5000) for sign in (-1, 1)]
        points = [Point(p.params, round(p.errors * (1 + sign * factor)), p.n, sign) for p, sign in pairs]
        return predict_rungs(points, TARGETS)

    calm, wild = spread_by(0.01), spread_by(0.2)
    assert calm.seed_sd is not None and wild.seed_sd is not None
    assert calm.seed_sd < 0.05 < wild.seed_sd
    assert wild.seed_sd == pytest.approx(0.2, abs=0.07)
    assert wild.rungs[0].hi - wild.rungs[0].lo > 1.5 * (calm.rungs[0].hi - calm.rungs[0].lo)


def test_a_flat_curve_is_saturated_and_predicts_its_plateau() -> None:
    prediction = predict_rungs(exact(flat, n=4000), TARGETS)
    assert prediction.status == "saturated" and prediction.reason.startswith("saturated: over 4 sizes")
    assert prediction.slope_ci is not None and prediction.slope_ci[0] <= 0 <= prediction.slope_ci[1]
    assert all(rung.score == pytest.approx(0.9, abs=0.001) for rung in prediction.rungs)
    assert all(rung.lo < 0.9 < rung.hi for rung in prediction.rungs)


def test_too_few_items_to_see_a_slope_leave_a_wide_interval() -> None:
    prediction = predict_rungs([Point(250_000, 10, 20), Point(500_000, 7, 20)], TARGETS)
    assert prediction.status == "saturated"
    assert prediction.rungs[-1].hi == 1.0 and prediction.rungs[-1].lo < 0.5


def test_errors_that_rise_with_size_are_not_extrapolated() -> None:
    points = [Point(250_000, 100, 1000), Point(500_000, 150, 1000), Point(1_000_000, 220, 1000)]
    prediction = predict_rungs(points, TARGETS)
    assert prediction.status == "saturated" and prediction.slope is not None and prediction.slope < 0
    assert 0.78 < prediction.rungs[0].score < 0.9


@pytest.mark.parametrize(("errors", "score"), [(0, 1.0), (200, 0.0)])
def test_runs_that_are_all_right_or_all_wrong_give_finite_answers(errors: int, score: float) -> None:
    prediction = predict_rungs([Point(size, errors, 200) for size in SIZES], TARGETS)
    assert prediction.status == "saturated"
    assert all(rung.score == pytest.approx(score, abs=0.01) for rung in prediction.rungs)
    assert all((rung.hi == 1.0 and rung.lo > 0.9) if score else (rung.lo == 0.0) for rung in prediction.rungs)


@pytest.mark.parametrize(
    ("points", "found"),
    [([], "no size was measured"), ([Point(1_000_000, 10, 100, seed) for seed in range(3)], "1,000,000 parameters")],
)
def test_fewer_than_two_sizes_are_refused_with_the_reason(points: list[Point], found: str) -> None:
    prediction = predict_rungs(points, TARGETS)
    assert prediction.status == "refused" and prediction.rungs == () and prediction.slope is None
    assert "at least two different sizes" in prediction.reason and found in prediction.reason
    assert json.loads(json.dumps(prediction.to_dict()))["status"] == "refused"


def test_measured_atis_runs_predict_the_held_out_size() -> None:
    # Frame errors of 893 at 0.3M, 1M (two seeds) and 2M, one core, inline tagging; 4.98M was run after the prediction.
    points = [
        Point(263_000, 283, 893),
        Point(919_000, 200, 893),
        Point(919_000, 200, 893, 1),
        Point(2_010_000, 208, 893),
    ]
    prediction = predict_rungs(points, [("5m", 4_980_000)])
    measured = 1 - 178 / 893
    assert prediction.status == "extrapolated"
    assert prediction.rungs[0].lo < measured < prediction.rungs[0].hi
    assert abs(prediction.rungs[0].score - measured) < 0.03


def test_measured_clinc_runs_are_saturated() -> None:
    # Errors of 4,500 at 0.3M, 1M and 2M parameters: the data, not the size, was the limit.
    points = [Point(305_000, 456, 4500), Point(1_000_000, 403, 4500), Point(2_120_000, 408, 4500)]
    prediction = predict_rungs(points, [("5m", 5_000_000)])
    assert prediction.status == "saturated"
    assert prediction.rungs[0].score == pytest.approx(0.906, abs=0.005)


def test_targets_are_labelled_by_where_they_lie() -> None:
    targets = [("0.1m", 100_000), ("0.25m", 250_000), ("0.7m", 700_000), ("5m", 5_000_000)]
    rungs = {rung.name: rung for rung in predict_rungs(exact(power_law), targets).rungs}
    assert [rung.label for rung in rungs.values()] == [
        "extrapolation",
        "interpolation",
        "interpolation",
        "extrapolation",
    ]
    assert rungs["0.1m"].distance == pytest.approx(2.5) and rungs["5m"].distance == pytest.approx(2.5)
    assert rungs["0.25m"].distance == 1.0 and rungs["0.7m"].distance == pytest.approx(1.4)


def test_the_same_seed_gives_the_same_prediction_whatever_the_order() -> None:
    points = exact(power_law, n=300)
    first = predict_rungs(points, TARGETS, seed=3)
    assert predict_rungs(points[::-1], TARGETS, seed=3) == first
    other = predict_rungs(points, TARGETS, seed=4)
    assert other != first and other.rungs[0].score == pytest.approx(first.rungs[0].score, abs=0.02)


def test_a_prediction_is_plain_json() -> None:
    prediction = predict_rungs(exact(power_law), TARGETS)
    plain = json.loads(json.dumps(prediction.to_dict()))
    assert plain["slope_ci"] == list(prediction.slope_ci or ()) and plain["reason"] == prediction.reason
    assert [rung["name"] for rung in plain["rungs"]] == ["5m", "20m", "100m"]
    assert plain["rungs"][0]["label"] == "extrapolation"
    assert predict_rungs(exact(power_law), []).rungs == ()


@pytest.mark.parametrize("counts", [(0, 1, 10), (100, -1, 10), (100, 11, 10), (100, 0, 0)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="a point needs"):
        Point(*counts)


def test_impossible_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="targets need"):
        predict_rungs(exact(power_law), [("0m", 0)])
    with pytest.raises(ValueError, match="at least 100"):
        predict_rungs(exact(power_law), TARGETS, draws=10)
