"""A rung and a baseline together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from smallfry.assessment.work import Outcome, answer_time, answers_of
from smallfry.baselines import combined
from smallfry.candidates import Predictor
from smallfry.frames import FrameCodec
from smallfry.job import Job
from smallfry.predictor import ModelPredictor


@dataclass(frozen=True, slots=True)
class CombineTask:
    """Which two, and where the model lies."""

    rung: str
    baseline: str
    model_dir: Path


def run_combined(job: Job, task: CombineTask, baseline: Predictor, codec: FrameCodec | None) -> Outcome:
    """Weigh the two on the validation rows and ask the combination; runs in a worker.

    The outcome's seconds are those of the weighing alone.

    Args:
        job: The job.
        task: The pair.
        baseline: The fitted baseline.
        codec: The job's frame codec.
    """
    start = time.perf_counter()
    model = ModelPredictor.load(task.model_dir)
    both = combined(job, model, baseline)
    seconds = time.perf_counter() - start
    return Outcome(
        both.name, model.params + baseline.params, both.size_bytes(), seconds, answer_time(job, both),
        valid=answers_of(both, job, job.valid), test=answers_of(both, job, job.test),
    )  # fmt: skip
