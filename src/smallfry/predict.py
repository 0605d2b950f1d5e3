"""What the rungs that were not trained would score: a curve of error against parameters, with an interval.

Errors of one job fall with the model's size roughly as ``error = floor + a * params ** -b`` (Hestness et al. 2017;
Henighan et al. 2020 for the floor). A few small rungs give the curve; how far it can be trusted is a matter of counts
(test items), of seeds, and of a floor that few sizes cannot show. The interval carries all three. It is for what ONE
more run, scored on as many test items, would measure: the statement that training that rung can prove wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Status = Literal["extrapolated", "saturated", "refused"]

SEED_SD = 0.05
"""Assumed spread of the error between seeds, relative to it, before any repeat is seen (worth four degrees of freedom).

An assumption, not a measurement: it keeps a single seed a rung from counting as no seed noise at all.
"""
SEED_SD_DOF = 4

FLOOR_SIZES = 4
"""Distinct sizes from which the curve's own floor is fitted; below, the line through the logarithms is the estimate."""

FLOORS: Floats = np.linspace(0.0, 0.95, 20)
"""Floors tried, as shares of the smallest error measured."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measured run.

    Args:
        params: Parameters of the model.
        errors: Test items it got wrong.
        n: Test items.
        seed: Which run of that size it was.

    Raises:
        ValueError: If the counts are impossible.
    """

    params: int
    errors: int
    n: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.params < 1 or self.n < 1 or not 0 <= self.errors <= self.n:
            raise ValueError(f"a point needs params >= 1, n >= 1 and 0 <= errors <= n: {self}")


@dataclass(frozen=True, slots=True)
class RungPrediction:
    """The predicted score of a rung that was not trained.

    Args:
        name: The rung.
        params: Its parameters.
        score: Predicted share of test items right, 0 to 1.
        lo: Lower end of the 95% interval of the score one run would measure.
        hi: Upper end.
        label: `extrapolation` outside the sizes measured, `interpolation` between them.
        distance: Factor in parameters, at least 1, to the nearest size measured.
    """

    name: str
    params: int
    score: float
    lo: float
    hi: float
    label: Literal["extrapolation", "interpolation"]
    distance: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The fitted curve and the rungs it predicts.

    Args:
        status: `extrapolated` (errors fall with size), `saturated` (the slope's interval includes 0: the prediction is
            the plateau), or `refused` (too little to fit; no rungs).
        reason: One sentence that says so, with the numbers.
        slope: ``b`` of the line through the logarithms: error falls as ``params ** -b``; None if refused.
        slope_ci: Its 95% interval.
        floor: Fitted share of errors that no size removes; 0 below four sizes or when saturated.
        seed_sd: Spread of runs about the curve, relative to the error, that the intervals used.
        rungs: One prediction a target, in the order asked for.
    """

    status: Status
    reason: str
    slope: float | None = None
    slope_ci: tuple[float, float] | None = None
    floor: float = 0.0
    seed_sd: float | None = None
    rungs: tuple[RungPrediction, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The prediction as plain JSON types."""
        plain = asdict(self)
        plain["slope_ci"] = list(self.slope_ci) if self.slope_ci else None
        plain["rungs"] = list(plain["rungs"])
        return plain


@dataclass(frozen=True, slots=True)
class _Curve:
    """``error = floor + exp(level - slope * x)``, one row a replicate; x is log(params) less `centre`."""

    floor: Floats  # (R,)
    level: Floats  # (R,)
    slope: Floats  # (R,)
    centre: float

    def errors(self, params: Floats) -> Floats:
        """Expected errors (R, P) at `params` (P,), within 0 and 1."""
        x = np.log(params) - self.centre
        # The bound only guards the exponential; any value at it is cut to 1 below.
        power = np.exp(np.minimum(self.level[:, None] - self.slope[:, None] * x, 50.0))
        return np.minimum(self.floor[:, None] + power, 1.0)


def predict_rungs(
    points: Sequence[Point], targets: Sequence[tuple[str, int]], seed: int = 0, *, draws: int = 2000
) -> Prediction:
    """Predict the scores of rungs that were not run from those that were.

    The fit is least squares on log error, weighted by the binomial variance and the spread between seeds; from
    `FLOOR_SIZES` distinct sizes it has a floor. The intervals come from a parametric bootstrap: the fitted curve is
    measured again `draws` times with binomial counts and seed noise, refitted (falling or flat: a larger model is taken
    to be no worse), carried to the target and measured there. Half of the refits have no floor, half draw one by its
    likelihood, so with two or three sizes a floor anywhere up to the smallest error is allowed for. Test items are
    treated as drawn anew for each run, which is on the safe side when all runs share them.

    Args:
        points: The measured runs, at least two distinct sizes.
        targets: (name, parameters) of the rungs wanted.
        seed: Seed of the bootstrap.
        draws: Bootstrap replicates.

    Returns:
        The prediction; with fewer than two distinct sizes a refusal that says why.

    Raises:
        ValueError: If a target has no parameters or `draws` is below 100.
    """
    if draws < 100 or any(params < 1 for _, params in targets):
        raise ValueError("targets need at least 1 parameter and the bootstrap at least 100 draws")
    sizes = sorted({point.params for point in points})
    if len(sizes) < 2:
        found = f"one size was measured ({sizes[0]:,} parameters)" if sizes else "no size was measured"
        return Prediction("refused", f"{found}; a curve needs runs of at least two different sizes")
    random = np.random.default_rng(seed)
    points = sorted(points, key=lambda point: (point.params, point.seed, point.errors))
    params = np.array([point.params for point in points], dtype=np.float64)
    n = np.array([point.n for point in points])
    observed = _smooth(np.array([[point.errors for point in points]]), n)
    floors = FLOORS if len(sizes) >= FLOOR_SIZES else FLOORS[:1]
    seed_sd, freedom = _seed_spread(params, observed, n, floors)
    fitted = _fit(params, observed, n, seed_sd, floors=floors)
    # The spread is itself uncertain: each replicate has its own, from its scaled inverse chi-squared distribution.
    spread = seed_sd * np.sqrt(freedom / random.chisquare(freedom, (draws, 1)))
    again = _smooth(_measure(fitted.errors(params).repeat(draws, axis=0), n, spread, random), n)
    slope = float(_fit(params, observed, n, seed_sd, floors=FLOORS[:1]).slope[0])
    slope_ci = _interval(_fit(params, again, n, seed_sd, floors=FLOORS[:1]).slope)

    wanted = np.array([target for _, target in targets], dtype=np.float64)
    items = np.full(len(targets), int(np.median(n)))
    expected = _fit(params, again, n, seed_sd, floors=FLOORS, random=random).errors(wanted)
    drawn = [1 - _measure(expected, items, spread, random) / items]
    if slope_ci[0] <= 0:
        status: Status = "saturated"
        plateau = _plateau(observed, n, seed_sd)
        errors = plateau.repeat(len(targets))
        again = _smooth(_measure(np.tile(plateau, (draws, len(n))), n, spread, random), n)
        flat = np.tile(_plateau(again, n, seed_sd)[:, None], (1, len(targets)))
        drawn.append(1 - _measure(flat, items, spread, random) / items)
    else:
        status = "extrapolated"
        errors = fitted.errors(wanted)[0] if len(floors) == 1 else np.median(expected, axis=0)
    rungs = tuple(
        _rung(name, target, 1 - float(errors[i]), [_interval(draw[:, i]) for draw in drawn], sizes)
        for i, (name, target) in enumerate(targets)
    )
    floor = 0.0 if status == "saturated" else float(fitted.floor[0])
    return Prediction(status, _reason(status, sizes, slope, slope_ci), slope, slope_ci, floor, seed_sd, rungs)


def _smooth(errors: NDArray[Any], n: NDArray[Any]) -> Floats:
    """Error rates that are never 0 or 1, so that they have a logarithm: half an item is added on either side."""
    return np.asarray((errors + 0.5) / (n + 1.0), dtype=np.float64)


def _log_variance(errors: Floats, n: NDArray[Any]) -> Floats:
    """Binomial variance of the logarithm of an error rate (delta method)."""
    return np.asarray((1 - errors) / (n * errors), dtype=np.float64)


def _measure(expected: Floats, n: NDArray[Any], seed_sd: Floats, random: np.random.Generator) -> Floats:
    """Counts of errors that runs with these expected errors (R, P) would measure on n (P,) items; seed_sd is (R, 1)."""
    rates = expected * np.exp(seed_sd * random.standard_normal(expected.shape))
    return random.binomial(n, np.clip(rates, 0.0, 1.0)).astype(np.float64)


def _plateau(errors: Floats, n: NDArray[Any], seed_sd: float) -> Floats:
    """The one error rate (R,) of all runs (R, P) together, weighted as in the fit."""
    pooled = errors.mean(axis=1, keepdims=True)
    weights = 1 / (_log_variance(pooled, n) + seed_sd**2)
    return np.asarray((weights * errors).sum(axis=1) / weights.sum(axis=1), dtype=np.float64)


def _seed_spread(params: Floats, observed: Floats, n: NDArray[Any], floors: Floats) -> tuple[float, int]:
    """Relative spread of runs about the curve that counts do not explain, and its degrees of freedom.

    It holds what seeds do and what the curve does not follow; few runs leave it near `SEED_SD`.
    """
    curve = _fit(params, observed, n, SEED_SD, floors=floors)
    freedom = max(observed.shape[1] - (3 if len(floors) > 1 else 2), 0)
    noise = _log_variance(observed, n).mean()
    excess = float(((np.log(observed) - np.log(curve.errors(params))) ** 2).sum() - freedom * noise)
    freedom += SEED_SD_DOF
    return float(np.sqrt((SEED_SD_DOF * SEED_SD**2 + max(excess, 0.0)) / freedom)), freedom


def _fit(
    params: Floats,
    errors: Floats,
    n: NDArray[Any],
    seed_sd: float,
    *,
    floors: Floats,
    random: np.random.Generator | None = None,
) -> _Curve:
    """Fit one curve to each row of error rates.

    Args:
        params: Sizes (P,).
        errors: Error rates (R, P), one row a replicate.
        n: Test items (P,).
        seed_sd: Relative spread between seeds.
        floors: Floors to try (F,), as shares of a row's smallest error at any size.
        random: None fits freely with the likeliest floor. A generator gives one plausible truth a row: slopes that do
            not rise, and a floor drawn from :func:`_draw_floor`.
    """
    x = np.log(params)
    centre = float(x.mean())
    x = x - centre
    lowest = np.min([errors[:, params == size].mean(axis=1) for size in np.unique(params)], axis=0)
    floor = floors[None, :, None] * lowest[:, None, None]  # (R, F, 1)
    target = errors[:, None, :]  # (R, 1, P)
    above = np.maximum(target - floor, 0.02 * target)  # a run below the floor by noise still needs a logarithm
    variance = (_log_variance(target, n) + seed_sd**2) * (target / above) ** 2
    weight, y = 1 / variance, np.log(above)
    total = weight.sum(axis=2)
    mean_x, mean_y = (weight * x).sum(axis=2) / total, (weight * y).sum(axis=2) / total
    spread = (weight * (x - mean_x[..., None]) ** 2).sum(axis=2)
    slope = -(weight * (x - mean_x[..., None]) * (y - mean_y[..., None])).sum(axis=2) / spread  # (R, F)
    if random is not None:
        slope = np.maximum(slope, 0.0)
    level = mean_y + slope * mean_x
    residual = target - floor - np.exp(np.minimum(level[..., None] - slope[..., None] * x, 50.0))
    misfit = (residual**2 / (target**2 * (_log_variance(target, n) + seed_sd**2))).sum(axis=2)
    choice = misfit.argmin(axis=1) if random is None else _draw_floor(misfit, random)
    rows = np.arange(len(errors))
    return _Curve(floor[rows, choice, 0], level[rows, choice], slope[rows, choice], centre)


def _draw_floor(misfit: Floats, random: np.random.Generator) -> NDArray[np.int64]:
    """One floor a row: the prior is half on none and half even over the rest, the likelihood ``exp(-misfit / 2)``."""
    prior = np.full(misfit.shape[1], 0.5 / (misfit.shape[1] - 1))
    prior[0] = 0.5
    weight = prior * np.exp(-(misfit - misfit.min(axis=1, keepdims=True)) / 2)
    steps = np.cumsum(weight, axis=1)
    return np.asarray((steps < random.random((len(misfit), 1)) * steps[:, -1:]).sum(axis=1), dtype=np.int64)


def _interval(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _rung(
    name: str, params: int, score: float, intervals: list[tuple[float, float]], sizes: list[int]
) -> RungPrediction:
    """One rung, its interval the hull of those given and of the score itself."""
    lo = min(score, *(low for low, _ in intervals))
    hi = max(score, *(high for _, high in intervals))
    distance = min(max(params / size, size / params) for size in sizes)
    inside = sizes[0] <= params <= sizes[-1]
    return RungPrediction(name, params, score, lo, hi, "interpolation" if inside else "extrapolation", distance)


def _reason(status: Status, sizes: list[int], slope: float, slope_ci: tuple[float, float]) -> str:
    measured = f"{len(sizes)} sizes from {sizes[0]:,} to {sizes[-1]:,} parameters"
    numbers = f"{2**-slope:.2f} [{2 ** -slope_ci[1]:.2f}, {2 ** -slope_ci[0]:.2f}]"
    if status == "saturated":
        return (
            f"saturated: over {measured} no fall of the error with size can be told from chance (twice the size "
            f"multiplies it by {numbers}); the prediction is the plateau"
        )
    return f"extrapolated: over {measured} twice the size multiplies the error by {numbers}"
