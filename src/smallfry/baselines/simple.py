"""The most frequent answer, and the answer of the most similar training input."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import normalize

from smallfry.baselines.calibration import Platt, evenly, point_scores, tuning_rows
from smallfry.baselines.features import TextFeatures
from smallfry.candidates import Prediction
from smallfry.evals.metrics import matches
from smallfry.job import Example, Job

_COSTLY = 300_000.0  # products a query above which a shorter way is taken
_RARE = 500  # rows an n-gram may occur in to propose neighbours
_SHORTLIST = 16  # neighbours whose full cosine is then computed
_DENSE = 50_000_000  # numbers in a dense matrix of all rows: 200 MB
_PRODUCTS = 20_000_000.0  # products at once: bounds memory to a few hundred MB
_CALIBRATION_ROWS = 1000


class Majority:
    """Always the most frequent training output."""

    name = "majority"
    params = 0

    def __init__(self, rows: Sequence[Example]) -> None:
        """Count outputs.

        Args:
            rows: Training rows; the first seen wins a tie.
        """
        counts = Counter(row.output for row in rows)
        self._answer, count = counts.most_common(1)[0]
        self._confidence = count / len(rows)
        self._n_outputs = len(counts)

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """The same answer for each input, with its share of the training rows as confidence."""
        return [Prediction(self._answer, self._confidence)] * len(inputs)

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log share of the answer; the rest is spread evenly over the other outputs."""
        return [point_scores(self._answer, self._confidence, self._n_outputs, proposed) for proposed in outputs]

    def size_bytes(self) -> int:
        """Bytes of the answer."""
        return len(self._answer.encode())


class _Index:
    """Rows to be searched by cosine, in one of three ways.

    Sparse products with all rows; dense ones where common n-grams make sparse products costly and there are few
    n-grams; or, where there are many, only n-grams in at most 500 rows propose neighbours, of which the 16 best are
    compared in full (a query without such an n-gram is compared with all).
    """

    def __init__(self, rows: sparse.csr_matrix) -> None:
        self._rows = sparse.csr_matrix(normalize(rows))
        n, width = self._rows.shape
        counts = np.bincount(self._rows.indices, minlength=width).astype(np.float64)
        cost = float((counts**2).sum()) / max(1, n)  # products a query costs
        self._dense: NDArray[np.float32] | None = None
        self._shortlist = False
        columns = self._rows
        if cost > _COSTLY and n * width <= _DENSE:
            self._dense, cost = self._rows.toarray(), float(n)
        elif cost > _COSTLY:
            self._shortlist, cost = True, float((counts[counts <= _RARE] ** 2).sum()) / n
            columns = self._rows @ sparse.diags((counts <= _RARE).astype(np.float32))
        self._columns = sparse.csr_matrix(columns.T)
        self._chunk = int(np.clip(_PRODUCTS / max(1.0, cost), 1, 4096))

    @property
    def weights(self) -> int:
        return int(self._rows.nnz)

    def search(self, queries: sparse.csr_matrix) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(n,) best rows, the first of equals, and (n,) cosines."""
        queries = sparse.csr_matrix(normalize(queries)) if queries.shape[0] else queries
        best, cosine = np.zeros(queries.shape[0], dtype=np.int64), np.zeros(queries.shape[0])
        for start in range(0, queries.shape[0], self._chunk):
            part = queries[start : start + self._chunk]
            here = slice(start, start + part.shape[0])
            if self._dense is not None:
                similar = part.toarray() @ self._dense.T
                best[here], cosine[here] = similar.argmax(axis=1), similar.max(axis=1)
            elif self._shortlist:
                best[here], cosine[here] = self._shortlisted(part)
            else:
                similar = part @ self._columns
                best[here] = np.asarray(similar.argmax(axis=1)).ravel()
                cosine[here] = similar.max(axis=1).toarray().ravel()
        return best, np.clip(cosine, 0.0, 1.0)

    def _shortlisted(self, queries: sparse.csr_matrix) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        similar = sparse.csr_matrix(queries @ self._columns)
        best, cosine = np.zeros(queries.shape[0], dtype=np.int64), np.zeros(queries.shape[0])
        for i in range(queries.shape[0]):
            proposed = slice(similar.indptr[i], similar.indptr[i + 1])
            rows, weights = similar.indices[proposed], similar.data[proposed]
            if len(rows) > _SHORTLIST:
                rows = rows[np.argpartition(-weights, _SHORTLIST)[:_SHORTLIST]]
            candidates = np.sort(rows) if len(rows) else np.arange(self._rows.shape[0])
            full = np.asarray((self._rows[candidates] @ queries[i].T).todense()).ravel()
            best[i], cosine[i] = candidates[full.argmax()], full.max()
        return best, cosine


class Nearest:
    """Copies the most frequent output of the training input with the highest TF-IDF cosine."""

    name = "nearest"

    def __init__(self, rows: Sequence[Example]) -> None:
        """Index the training inputs; until `calibrate`, confidence is the cosine.

        Args:
            rows: Training rows.
        """
        outputs: dict[str, Counter[str]] = defaultdict(Counter)
        for row in rows:
            outputs[row.input][row.output] += 1
        texts = list(outputs)
        self._outputs = [counts.most_common(1)[0][0] for counts in outputs.values()]
        self._text_bytes = sum(len(x.encode()) + len(y.encode()) + 2 for x, y in zip(texts, self._outputs, strict=True))
        self._n_outputs = len(set(self._outputs))
        self._features = TextFeatures(texts)
        self._index = _Index(self._features.transform(texts))
        self.platt: Platt | None = None

    def calibrate(self, rows: Sequence[Example]) -> None:
        """Learn confidence from the cosines of held-out rows and whether their neighbours are right."""
        held_out = evenly(rows, _CALIBRATION_ROWS)
        found, cosine = self.neighbours([row.input for row in held_out])
        right = [matches(self._outputs[i], row.accepted) for i, row in zip(found, held_out, strict=True)]
        self.platt = Platt.fit(cosine, right)

    @property
    def params(self) -> int:
        """Stored TF-IDF weights."""
        return self._index.weights

    def neighbours(self, inputs: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The most similar distinct training input of each input (the first of equals), and the cosine."""
        place: dict[str, int] = {}
        back = np.array([place.setdefault(text, len(place)) for text in inputs], dtype=np.int64)
        best, cosine = self._index.search(self._features.transform(list(place)))
        return best[back], cosine[back]

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """The neighbour's output, with the calibrated cosine as confidence."""
        found, cosine = self.neighbours(inputs)
        confidence = cosine if self.platt is None else self.platt(cosine)
        return [Prediction(self._outputs[i], float(c)) for i, c in zip(found, confidence, strict=True)]

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log confidence of the neighbour's output; the rest is spread evenly over the other training outputs."""
        answers = self.predict(inputs)
        return [
            point_scores(answer.output, answer.confidence, self._n_outputs, proposed)
            for answer, proposed in zip(answers, outputs, strict=True)
        ]

    def size_bytes(self) -> int:
        """The training texts, the n-gram dictionary with 2-byte idf, and a 4-byte row and 2-byte weight a posting."""
        return self._text_bytes + int(self._features.name_bytes().sum()) + 2 * len(self._features) + 6 * self.params


def fit_majority(job: Job) -> Majority:
    """The most frequent training output."""
    return Majority(job.train)


def fit_nearest(job: Job) -> Nearest:
    """Nearest training input; confidence is learned on the validation rows where answers are right or wrong."""
    nearest = Nearest(job.train)
    if job.metric in ("accuracy", "exact_match"):
        rows, held_out = tuning_rows(job)
        fitted = nearest if len(rows) == len(job.train) else Nearest(rows)
        fitted.calibrate(held_out)
        nearest.platt = fitted.platt
    return nearest
