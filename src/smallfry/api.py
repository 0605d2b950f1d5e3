"""The two verbs of the Python API beside `Job.load`: assess a job, load a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallfry.files import read_json
from smallfry.job import Job
from smallfry.shipped import model_directory

if TYPE_CHECKING:
    from smallfry.predictor import ModelPredictor
    from smallfry.record import Assessment
    from smallfry.writer import Writer


def assess(job: Job, out: str | Path | None = None, **settings: Any) -> Assessment:
    """Find the smallest workable rung for a job, beside honest baselines.

    Args:
        job: The job, from ``Job.load`` or ``Job.from_rows``.
        out: Directory to write; ``runs/<job name>`` by default.
        settings: Fields of `smallfry.assessment.AssessSettings`: ``target``, ``rungs``, ``budget`` (seconds),
            ``seeds``, ``force``, ``resume``, ``workers``, ``form``, ``vocab``, ``baselines``.

    Returns:
        The record: ``smallest``, ``advice``, ``rows`` and the rest.

    Raises:
        SmallfryError: As `smallfry.assessment.assess`.
    """
    from smallfry.assessment import AssessSettings
    from smallfry.assessment import assess as run_assessment

    directory = Path(out) if out is not None else Path("runs") / job.name
    return run_assessment(job, AssessSettings(out=directory, **settings))


def load(path: str | Path) -> ModelPredictor | Writer:
    """A trained model, to be called with a text.

    Args:
        path: A model directory, an assessment's directory (its best model), or ``shipped:stories``.

    Returns:
        What answers a job's inputs, or for a model without a job what continues texts.

    Raises:
        SmallfryError: When it is neither.
    """
    directory = model_directory(path)
    card = read_json(directory / "smallfry.json") if (directory / "smallfry.json").exists() else None
    if not isinstance(card, dict) or card.get("form") is None:
        from smallfry.writer import Writer

        return Writer.load(directory)
    from smallfry.predictor import ModelPredictor

    return ModelPredictor.load(directory)
