"""Two candidates as one: their scores added, with a weight chosen on the valid rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from smallfry.baselines.calibration import Platt, evenly, fit_scale, log_softmax
from smallfry.candidates import SCORE_FLOOR, Prediction, Predictor
from smallfry.errors import SmallfryError
from smallfry.evals.metrics import matches, score_predictions
from smallfry.frames import FrameCodec
from smallfry.job import Example, Job

# Weight of the second candidate's score against 1 for the first; 0 and infinity are either alone.
WEIGHTS = (0.0, *(2.0**k for k in range(-6, 7)), math.inf)
_VALID_ROWS = 3000

Table = list[list[float]]


def _mix(a: float, b: float, weight: float) -> float:
    return b if math.isinf(weight) else (a + weight * b) / (1 + weight)


class Combined:
    """Chooses among proposed outputs by ``score_a + weight * score_b``.

    For ``classify`` every label is proposed; else each candidate's answer and, where outputs are frames, the head of
    one with the tags of the other.
    """

    def __init__(
        self, a: Predictor, b: Predictor, weight: float, labels: Sequence[str] = (), codec: FrameCodec | None = None
    ) -> None:
        """Join two fitted candidates.

        Args:
            a: First candidate; its answer wins ties.
            b: Second candidate.
            weight: Weight of b's score against 1 for a's.
            labels: The closed set of a ``classify`` job, else empty.
            codec: The job's frame codec, if it has one.
        """
        self.name = f"{a.name} + {b.name}"
        self.weight = weight
        self._a, self._b, self._labels, self._codec = a, b, list(labels), codec
        self._scale, self._platt = 1.0, Platt(1.0, 0.0)

    @property
    def params(self) -> int:
        """Stored numbers of both."""
        return self._a.params + self._b.params

    def size_bytes(self) -> int:
        """Bytes of both."""
        return self._a.size_bytes() + self._b.size_bytes()

    def proposals(self, inputs: Sequence[str]) -> tuple[list[list[str]], Table, Table]:
        """Outputs to choose from, each with both candidates' scores; the first is a's answer unless all are labels."""
        if self._labels:
            outputs = [self._labels] * len(inputs)
        else:
            pairs = zip(inputs, self._a.predict(inputs), self._b.predict(inputs), strict=True)
            outputs = [self._propose(text, mine.output, theirs.output) for text, mine, theirs in pairs]
        return outputs, self._a.score(inputs, outputs), self._b.score(inputs, outputs)

    def _propose(self, text: str, mine: str, theirs: str) -> list[str]:
        found = [mine, theirs]
        if self._codec is not None and mine != theirs:
            one, other = (self._codec.parse(Example(text, output)) for output in found)
            if one and other and one.head != other.head and one.tags != other.tags:
                found.append(self._codec.render(text, one.head, other.tags))
                found.append(self._codec.render(text, other.head, one.tags))
        return list(dict.fromkeys(found))

    def choose(self, outputs: Sequence[Sequence[str]], a_scores: Table, b_scores: Table) -> list[Prediction]:
        """The best proposal of each input, from what `proposals` returned."""
        answers = []
        for proposed, mine, theirs in zip(outputs, a_scores, b_scores, strict=True):
            mixed = [_mix(x, y, self.weight) for x, y in zip(mine, theirs, strict=True)]
            best = max(range(len(mixed)), key=mixed.__getitem__)
            if self._labels:
                logs = log_softmax(self._scale * np.array([mixed]))[0]
                confidence = float(np.exp(logs[best]))
            else:
                confidence = float(self._platt([mixed[best]])[0])
            answers.append(Prediction(proposed[best], confidence))
        return answers

    def calibrate(self, rows: Sequence[Example], outputs: list[list[str]], a_scores: Table, b_scores: Table) -> None:
        """Learn confidence on held-out rows from what `proposals` returned for them."""
        mixed = [
            [_mix(x, y, self.weight) for x, y in zip(p, q, strict=True)]
            for p, q in zip(a_scores, b_scores, strict=True)
        ]
        if self._labels:
            index = {label: i for i, label in enumerate(self._labels)}
            gold: NDArray[np.int64] = np.array([index.get(row.output, -1) for row in rows], dtype=np.int64)
            self._scale = fit_scale(np.array(mixed), gold)
            return
        answers = self.choose(outputs, a_scores, b_scores)
        right = [matches(answer.output, row.accepted) for answer, row in zip(answers, rows, strict=True)]
        self._platt = Platt.fit([max(scores) for scores in mixed], right)

    def mean_log_probability(self, rows: Sequence[Example], a_scores: Table, b_scores: Table) -> float:
        """Of the right labels of ``rows``, from what `proposals` returned for them; labels unknown are left out."""
        index = {label: i for i, label in enumerate(self._labels)}
        known = [i for i, row in enumerate(rows) if row.output in index]
        if not known:
            return 0.0
        mixed = np.array(
            [[_mix(x, y, self.weight) for x, y in zip(a_scores[i], b_scores[i], strict=True)] for i in known]
        )
        logs = log_softmax(self._scale * mixed)
        return float(logs[np.arange(len(known)), [index[rows[i].output] for i in known]].mean())

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """The proposal both like best."""
        return self.choose(*self.proposals(inputs)) if inputs else []

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """Calibrated log-probability of labels; for other outputs the weighted mean of both log-probabilities."""
        if not inputs:
            return []
        if not self._labels:
            tables = zip(self._a.score(inputs, outputs), self._b.score(inputs, outputs), strict=True)
            return [[_mix(x, y, self.weight) for x, y in zip(p, q, strict=True)] for p, q in tables]
        _, mine, theirs = self.proposals(inputs)
        table = []
        for p, q, proposed in zip(mine, theirs, outputs, strict=True):
            mixed = np.array([[_mix(x, y, self.weight) for x, y in zip(p, q, strict=True)]])
            known = dict(zip(self._labels, log_softmax(self._scale * mixed)[0].tolist(), strict=True))
            table.append([max(SCORE_FLOOR, known.get(output, SCORE_FLOOR)) for output in proposed])
        return table


def combined(job: Job, a: Predictor, b: Predictor, codec: FrameCodec | None = None) -> Combined:
    """Join two fitted candidates with the weight that does best on valid.

    Labels are judged by the log-probability of the right one, which moves less by chance than the number of right
    answers; other outputs by the job's score. Of equally good weights the one nearest to 1 is taken. Without valid
    rows the weight is 1 and confidence is not calibrated, since both candidates know the training rows.

    Args:
        job: The job both were fitted to.
        a: First candidate.
        b: Second candidate.
        codec: The job's frame codec; learned from train for ``transform`` jobs by default.

    Raises:
        SmallfryError: The metric is bits per byte, which has no answers to choose between.
    """
    if job.metric == "bits_per_byte":
        raise SmallfryError(
            f"job {job.name}: bits per byte compares likelihoods, two candidates' answers cannot be combined"
        )
    labels = job.labels if job.kind == "classify" else ()
    if job.kind == "transform" and codec is None:
        codec = FrameCodec.learn(job.train)
    joined = Combined(a, b, 1.0, labels, codec)
    if not job.valid:
        return joined
    rows = evenly(job.valid, _VALID_ROWS)
    judged = replace(job, valid=tuple(rows))
    outputs, mine, theirs = joined.proposals([row.input for row in rows])
    best = -math.inf
    chosen = 1.0
    for weight in sorted(WEIGHTS, key=lambda w: abs(math.log(w)) if 0 < w < math.inf else math.inf):
        joined.weight = weight
        if labels:
            joined.calibrate(rows, outputs, mine, theirs)
            score = joined.mean_log_probability(rows, mine, theirs)
        else:
            score = score_predictions(judged, joined.choose(outputs, mine, theirs), "valid").score
        if score > best:
            best, chosen = score, weight
    joined.weight = chosen
    joined.calibrate(rows, outputs, mine, theirs)
    return joined
