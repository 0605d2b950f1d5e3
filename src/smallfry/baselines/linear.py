"""Linear support vector machines on TF-IDF n-grams: whole, or cut to a number of bytes."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import chi2
from sklearn.svm import LinearSVC

from smallfry.baselines.calibration import Platt, fit_scale, log_probability, log_softmax, tuning_rows
from smallfry.baselines.features import TextFeatures
from smallfry.candidates import SCORE_FLOOR, Prediction
from smallfry.errors import SmallfryError
from smallfry.evals.metrics import matches
from smallfry.job import Example, Job

COSTS = (0.25, 1.0, 4.0)
MAX_CLASSES = 1000
_MAX_WEIGHTS = 40_000_000  # coefficients of all classes together; 160 MB in float32
_GRID_WORK = 500_000_000  # rows x classes x n-grams a row up to which every C is tried; above, C = 1 alone
_BYTES_A_WEIGHT = 2


@dataclass(frozen=True, slots=True)
class Calibration:
    """From margins to probabilities.

    Args:
        scale: Factor on margins before the softmax.
        log_known: Log-probability that the right output is a class at all.
        platt: From the best class's log-probability to confidence, where it may be no class.
    """

    scale: float = 1.0
    log_known: float = 0.0
    platt: Platt | None = None


class Linear:
    """One-versus-rest linear SVMs with probabilities from scaled margins.

    Coefficients and idf are rounded to the 2 bytes they are shipped in.
    """

    def __init__(self, features: TextFeatures, machine: LinearSVC, labels: Sequence[str], name: str, note: str) -> None:
        """Take a fitted machine over.

        Args:
            features: Vectoriser.
            machine: Fitted on integer classes 0..len(labels)-1.
            labels: Output of each class.
            name: Short name for tables.
            note: What a reader should know, or empty.
        """
        self.name, self.note, self.labels = name, note, list(labels)
        weights, offsets = machine.coef_, machine.intercept_
        if len(self.labels) == 2:  # liblinear keeps one machine for two classes
            weights, offsets = np.vstack([-weights, weights]), np.concatenate([-offsets, offsets])
        self._features = features
        self._weights: NDArray[np.float32] = weights.astype(np.float16).astype(np.float32)
        self._offsets: NDArray[np.float32] = offsets.astype(np.float16).astype(np.float32)
        self._index = {label: i for i, label in enumerate(self.labels)}
        self.calibration = Calibration()

    def calibrate(self, rows: Sequence[Example]) -> None:
        """Learn probabilities from held-out rows.

        The scale of margins comes from rows whose output is a class. Where others exist, the share of known outputs
        multiplies every class's probability, and confidence is a logistic function of the best class's.
        """
        gold = np.array([self._index.get(row.output, -1) for row in rows], dtype=np.int64)
        margins = self.margins([row.input for row in rows])
        calibration = Calibration(fit_scale(margins, gold))
        if (gold < 0).any():
            logs = log_softmax(calibration.scale * margins)
            known = (int((gold >= 0).sum()) + 1) / (len(gold) + 2)
            right = logs.argmax(axis=1) == gold
            calibration = Calibration(calibration.scale, math.log(known), Platt.fit(logs.max(axis=1), right))
        self.calibration = calibration

    @property
    def params(self) -> int:
        """Coefficients (one machine for two classes), offsets and idf."""
        machines = 1 if len(self.labels) == 2 else len(self.labels)
        return machines * (len(self._features) + 1) + len(self._features)

    def margins(self, inputs: Sequence[str]) -> NDArray[np.float64]:
        """(n, classes) signed distances."""
        rows = self._features.transform(inputs)
        return np.asarray(rows @ self._weights.T + self._offsets, dtype=np.float64)

    def log_probabilities(self, inputs: Sequence[str]) -> NDArray[np.float64]:
        """(n, classes) calibrated log-probabilities."""
        return log_softmax(self.calibration.scale * self.margins(inputs)) + self.calibration.log_known

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """The class with the largest margin."""
        if not inputs:
            return []
        table = self.log_probabilities(inputs)
        best, top = table.argmax(axis=1), table.max(axis=1)
        platt = self.calibration.platt
        confidence = np.exp(top) if platt is None else platt(top - self.calibration.log_known)
        return [Prediction(self.labels[i], float(p)) for i, p in zip(best, confidence, strict=True)]

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """Calibrated log-probability of each class; outputs that are no class get the floor."""
        if not inputs:
            return []
        table = np.maximum(self.log_probabilities(inputs), SCORE_FLOOR)
        index = self._index
        return [
            [float(row[index[o]]) if o in index else SCORE_FLOOR for o in proposed]
            for row, proposed in zip(table, outputs, strict=True)
        ]

    def size_bytes(self) -> int:
        """Two bytes for each of `params`, the n-gram dictionary and the labels as text with a separator each."""
        return _BYTES_A_WEIGHT * self.params + int(self._features.name_bytes().sum()) + _label_bytes(self.labels)


class Constant:
    """The only answer there is."""

    name = "svm"
    params = 0
    note = "the training rows have one output only"

    def __init__(self, answer: str) -> None:
        """Keep the answer."""
        self._answer = answer

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """The one answer, with certainty."""
        return [Prediction(self._answer, 1.0)] * len(inputs)

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """0 for the one answer, the floor for others."""
        return [[log_probability(float(o == self._answer)) for o in proposed] for proposed in outputs]

    def size_bytes(self) -> int:
        """Bytes of the answer."""
        return len(self._answer.encode())


def _label_bytes(labels: Sequence[str]) -> int:
    return sum(len(label.encode()) + 1 for label in labels)


def output_classes(job: Job, rows: Sequence[Example]) -> list[str]:
    """The outputs a linear machine can answer with.

    All of them for ``classify``; else those seen at least twice, at most the 1,000 most frequent.
    """
    counts = Counter(row.output for row in rows)
    if job.kind == "classify":
        return sorted(counts)
    ranked = sorted((-count, output) for output, count in counts.items() if count > 1)
    return sorted(output for _, output in ranked[:MAX_CLASSES])


def _train(matrix: sparse.csr_matrix, classes: NDArray[np.int64], cost: float) -> LinearSVC:
    machine = LinearSVC(C=cost, random_state=0, max_iter=1000)
    with warnings.catch_warnings():
        # Large C may stop at the iteration limit; the validation rows judge the machine as it stands.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return machine.fit(matrix, classes)


@dataclass(frozen=True)
class _Material:
    """Rows as a machine is fitted on them."""

    features: TextFeatures
    matrix: sparse.csr_matrix
    classes: NDArray[np.int64]
    labels: list[str]

    def machine(self, cost: float, name: str, note: str) -> Linear:
        return Linear(self.features, _train(self.matrix, self.classes, cost), self.labels, name, note)


def _material(job: Job, rows: Sequence[Example], max_bytes: int | None) -> _Material:
    """Classes, n-grams within the budget and the matrix of the rows whose output is a class.

    Raises:
        SmallfryError: As `fit_svm`.
    """
    labels = output_classes(job, rows)
    index = {label: i for i, label in enumerate(labels)}
    rows = [row for row in rows if row.output in index]
    texts = [row.input for row in rows]
    classes = np.array([index[row.output] for row in rows], dtype=np.int64)
    features = TextFeatures(texts, limit=max(2, _MAX_WEIGHTS // max(1, len(labels))))
    matrix = features.transform(texts)
    if max_bytes is not None and len(labels) > 1:
        kept = _affordable(matrix, classes, features, labels, max_bytes)
        if not len(kept):
            raise SmallfryError(f"job {job.name}: {max_bytes} bytes do not hold one n-gram of a linear classifier")
        features = features.keep(kept, texts)
        matrix = features.transform(texts)
    return _Material(features, matrix, classes, labels)


def fit_svm(job: Job, max_bytes: int | None = None) -> Linear | Constant:
    """Linear SVM on word and character n-grams; C is the one with most valid rows right (the smaller of equals).

    For jobs other than ``classify``, whole outputs seen at least twice are the classes.

    Args:
        job: The job.
        max_bytes: Upper bound on `Linear.size_bytes`: the n-grams that depend most on the class by chi-squared are
            kept, and coefficients, idf, dictionary and labels all count. None keeps everything.

    Raises:
        SmallfryError: No output repeats in a transform job, or ``max_bytes`` does not hold one n-gram.
    """
    rows, held_out = tuning_rows(job)
    labels = output_classes(job, job.train)
    if not labels:
        raise SmallfryError(f"job {job.name}: no output occurs twice in train, so there are no classes to learn")
    if len(labels) == 1:
        return Constant(labels[0])
    if len(output_classes(job, rows)) < 2:  # too few rows to hold any out
        rows = held_out = list(job.train)
    name = "svm" if max_bytes is None else "svm-cut"
    n_outputs = len({row.output for row in job.train})
    note = "" if job.kind == "classify" else f"whole outputs as classes: {len(labels)} of the {n_outputs} in train"
    material = _material(job, rows, max_bytes)
    costs = COSTS if material.matrix.nnz * len(labels) <= _GRID_WORK else (1.0,)
    best: tuple[int, float, Linear] | None = None
    for cost in costs:
        linear = material.machine(cost, name, note)
        answers = linear.predict([row.input for row in held_out])
        right = sum(matches(a.output, row.accepted) for a, row in zip(answers, held_out, strict=True))
        if best is None or right > best[0]:
            best = (right, cost, linear)
    assert best is not None
    _, cost, linear = best
    linear.calibrate(held_out)
    if len(rows) < len(job.train):  # the rows held out of train are of use again once C is chosen
        calibration = linear.calibration
        linear = _material(job, job.train, max_bytes).machine(cost, name, note)
        linear.calibration = calibration
    return linear


def fit_svm_cut(job: Job, max_bytes: int) -> Linear | Constant:
    """`fit_svm` within a number of bytes, for comparing with a model of that size."""
    return fit_svm(job, max_bytes)


def _affordable(
    matrix: sparse.csr_matrix, classes: NDArray[np.int64], features: TextFeatures, labels: Sequence[str], budget: int
) -> NDArray[np.int64]:
    """Columns in order of chi-squared until the budget is spent."""
    machines = 1 if len(labels) == 2 else len(labels)
    with np.errstate(invalid="ignore", divide="ignore"):
        dependence, _ = chi2(matrix, classes)
    order = np.argsort(-np.nan_to_num(dependence), kind="stable")
    cost = features.name_bytes()[order] + _BYTES_A_WEIGHT * (machines + 1)
    spent = np.cumsum(cost) + _label_bytes(labels) + _BYTES_A_WEIGHT * machines
    return order[: int(np.searchsorted(spent, budget, side="right"))].astype(np.int64)
