"""Turning scores into probabilities, on rows the candidate was not fitted to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smallfry.candidates import SCORE_FLOOR
from smallfry.job import Example, Job

Floats = NDArray[np.float64]


def tuning_rows(job: Job) -> tuple[list[Example], list[Example]]:
    """Rows to fit and rows to choose settings on: train and valid, or nine tenths and a tenth of train without valid.

    Args:
        job: The job; a train split of one row serves as both.
    """
    train = list(job.train)
    if job.valid or len(train) < 2:
        return train, list(job.valid) or train
    every = min(10, len(train))
    return [e for i, e in enumerate(train) if i % every], train[::every]


def evenly(rows: Sequence[Example], limit: int) -> list[Example]:
    """At most ``limit`` rows at even distances."""
    step = max(1, math.ceil(len(rows) / limit))
    return list(rows[::step])


@dataclass(frozen=True, slots=True)
class Platt:
    """Probability of being right as a logistic function of one number (Platt 1999).

    Args:
        slope: Weight of the number.
        offset: Log-odds at zero.
    """

    slope: float
    offset: float

    @staticmethod
    def fit(values: ArrayLike, right: ArrayLike) -> Platt:
        """Newton's method on Platt's smoothed targets, which keep probabilities off 0 and 1.

        Args:
            values: (n,) scores.
            right: (n,) booleans.
        """
        x, y = np.asarray(values, dtype=np.float64), np.asarray(right, dtype=bool)
        n_right, n_wrong = int(y.sum()), int((~y).sum())
        prior = math.log((n_right + 1) / (n_wrong + 1))
        if len(x) < 2 or np.ptp(x) < 1e-9:
            return Platt(0.0, prior)
        target = np.where(y, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))
        design = np.stack([x, np.ones_like(x)], axis=1)
        weights = np.array([0.0, prior])
        for _ in range(50):
            p = _sigmoid(design @ weights)
            gradient = design.T @ (p - target) + 1e-6 * weights
            hessian = (design.T * (p * (1 - p))) @ design + 1e-6 * np.eye(2)
            step = np.linalg.solve(hessian, gradient)
            weights = weights - step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
            if np.abs(step).max() < 1e-8:
                break
        return Platt(float(weights[0]), float(weights[1]))

    def __call__(self, values: ArrayLike) -> Floats:
        """(n,) probabilities for (n,) scores."""
        return _sigmoid(self.slope * np.asarray(values, dtype=np.float64) + self.offset)


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


def log_softmax(scores: Floats) -> Floats:
    """Row-wise log-probabilities; -inf marks a column that does not exist in a row."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def fit_scale(scores: Floats, gold: NDArray[np.int64]) -> float:
    """The factor on scores that makes their softmax the best calibrated (Guo et al. 2017, one over temperature).

    Minimises the mean negative log-likelihood, unimodal in the factor's logarithm, by golden-section search.

    Args:
        scores: (n, c) scores, -inf for columns a row does not have.
        gold: (n,) right columns; rows with -1 are left out.

    Returns:
        The factor, between 0.02 and 1,000; 1 without rows.
    """
    kept = gold >= 0
    scores, gold = scores[kept], gold[kept]
    if not len(gold):
        return 1.0
    finite = np.where(np.isfinite(scores), scores, 0.0)
    absent = ~np.isfinite(scores)

    def loss(log_scale: float) -> float:
        scaled = np.where(absent, -np.inf, finite * math.exp(log_scale))
        return -float(log_softmax(scaled)[np.arange(len(gold)), gold].mean())

    low, high = math.log(0.02), math.log(1000.0)
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    for _ in range(30):
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - ratio * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + ratio * (high - low)
            loss_right = loss(right)
    return math.exp((low + high) / 2)


def log_probability(p: float) -> float:
    """Natural logarithm, no lower than `SCORE_FLOOR`."""
    return max(SCORE_FLOOR, math.log(p)) if p > 0 else SCORE_FLOOR


def point_scores(answer: str, confidence: float, n_outputs: int, proposed: Sequence[str]) -> list[float]:
    """Scores from a candidate that only knows its own answer: the rest of its belief is spread evenly.

    Args:
        answer: What the candidate says.
        confidence: Its probability.
        n_outputs: Distinct outputs it could have said.
        proposed: Outputs to score.
    """
    own = log_probability(confidence)
    other = log_probability((1 - confidence) / max(1, n_outputs - 1))
    return [own if output == answer else other for output in proposed]
