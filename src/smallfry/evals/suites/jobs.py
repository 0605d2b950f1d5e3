"""A job as a suite: its own metric with interval, calibration and abstention, beside candidates that know nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from smallfry.candidates import Prediction, Predictor
from smallfry.evals.metrics import METRICS, Scores, by_group, corpus_statistic, score_likelihood, score_predictions
from smallfry.evals.paired import Paired, mcnemar, of_repeats, paired_statistic
from smallfry.files import read_json
from smallfry.job import Job
from smallfry.predictor import ModelPredictor
from smallfry.shipped import model_directory


@dataclass(frozen=True, slots=True)
class JobResult:
    """One candidate on a job's test rows."""

    name: str
    scores: Scores

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name, "score": self.scores.score, "ci": list(self.scores.interval()), "n": self.scores.n,
            "metrics": dict(self.scores.extra),
        }  # fmt: skip


def load_predictor(path: Path) -> ModelPredictor:
    """A model that was trained for a job.

    Raises:
        SmallfryError: It is no such model.
    """
    return ModelPredictor.load(model_directory(path))


def other_split(path: Path, job: Job) -> str:
    """A warning where the model was made with other test rows than these: it may have been trained on some of them."""
    made = read_json(model_directory(path) / "smallfry.json").get("job", {})
    hashes = made.get("hashes", {}) if isinstance(made, dict) else {}
    if not hashes or hashes.get("test") == job.hashes()["test"]:
        return ""
    return (
        f"{path}: made with other test rows than these (another split, seed or file); "
        "it may have been trained on some of them"
    )


def measure(job: Job, predictor: Predictor, name: str) -> JobResult:
    """Ask a candidate the test rows."""
    rows = job.test
    inputs = [row.input for row in rows]
    if job.metric == "bits_per_byte":
        scores = predictor.score(inputs, [[row.output] for row in rows])
        return JobResult(name, score_likelihood(job, [s[0] for s in scores], "test"))
    return JobResult(name, score_predictions(job, predictor.predict(inputs), "test"))


def controls(job: Job, like: ModelPredictor) -> list[JobResult]:
    """What knowing nothing scores.

    A model of the same shape that was never trained, and where there are answers, the most frequent one and the outputs
    of training rows drawn at random.
    """
    import torch

    from smallfry.engine.torch_engine import TorchModel
    from smallfry.model import Transformer

    fresh = Transformer(like.backend.shape)
    fresh.init_weights(torch.Generator().manual_seed(0))
    untrained = TorchModel(fresh.eval())
    found = [measure(job, ModelPredictor("untrained", untrained, like.form, like.max_new), "untrained")]
    if job.metric != "bits_per_byte":
        from smallfry.baselines.simple import Majority

        found += [measure(job, Majority(job.train), "majority"), measure(job, RandomOutput(job), "guessing")]
    return found


class RandomOutput:
    """Guesses: a label of the closed set, or the output of any training row, by a seeded draw."""

    name = "guessing"
    params = 0

    def __init__(self, job: Job, seed: int = 0) -> None:
        self._outputs = job.labels if job.kind == "classify" else tuple(row.output for row in job.train)
        self._rng = np.random.default_rng(seed)

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """One draw an input."""
        drawn = self._rng.integers(len(self._outputs), size=len(inputs))
        return [Prediction(self._outputs[i], 1.0 / len(self._outputs)) for i in drawn]

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """The same for everything."""
        return [[-math.log(len(self._outputs))] * len(proposed) for proposed in outputs]

    def size_bytes(self) -> int:
        """Nothing is stored."""
        return 0


def limited(job: Job, limit: int | None) -> Job:
    """The job with at most ``limit`` test rows, spread evenly."""
    if limit is None or limit >= len(job.test):
        return job
    step = len(job.test) / limit
    return replace(job, test=tuple(job.test[int(i * step)] for i in range(limit)))


def difference(a: JobResult, b: JobResult) -> Paired:
    """Two candidates on the same rows."""
    if METRICS[a.scores.metric].proportion:
        found = mcnemar(a.scores.per_item > 0.5, b.scores.per_item > 0.5)
        return of_repeats(found, a.scores.n, a.scores.effective)
    mine, theirs = (by_group(s.sums, s.groups) for s in (a.scores, b.scores))
    return paired_statistic([mine], theirs, corpus_statistic(a.scores.metric), fixed=True)


def evaluate(job: Job, paths: Sequence[Path], limit: int | None, with_controls: bool) -> dict[str, Any]:
    """Measure one model or two on a job.

    Args:
        job: The job.
        paths: Model directories.
        limit: At most this many test rows.
        with_controls: Whether to measure the controls.

    Returns:
        Plain data: the first model's score, ``controls``, and ``comparison`` where there are two.
    """
    part = limited(job, limit)
    predictors = [load_predictor(path) for path in paths]
    warnings = [w for path in paths if (w := other_split(path, job))]
    results = [measure(part, p, str(path)) for p, path in zip(predictors, paths, strict=True)]
    plain = {"suite": job.name, "metric": job.metric, **results[0].to_dict(), "tasks": [], "warnings": warnings}
    plain["controls"] = [c.to_dict() for c in controls(part, predictors[0])] if with_controls else []
    if len(results) == 2:
        paired = difference(results[0], results[1])
        plain["other"] = results[1].to_dict()
        plain["comparison"] = {
            "difference": paired.difference, "ci": [paired.low, paired.high], "p": paired.p_value,
        }  # fmt: skip
    return plain
