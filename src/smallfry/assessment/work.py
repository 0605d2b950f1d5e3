"""What runs in worker processes: fitting one candidate and asking it, each on one core, each repeatable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from smallfry.baselines.calibration import evenly
from smallfry.candidates import Prediction, Predictor, measure_latency
from smallfry.data import JobData, Noise
from smallfry.engine.torch_engine import TorchModel
from smallfry.evals.metrics import Scores, score_likelihood, score_predictions
from smallfry.files import write_atomic
from smallfry.forms import Form, FormName, build_form
from smallfry.frames import FrameCodec
from smallfry.job import Example, Job, SplitName
from smallfry.machine import compute_dtype, default_device
from smallfry.predictor import ModelPredictor
from smallfry.recipes import pilot_recipe, recipe_for
from smallfry.sizes import shape_for
from smallfry.train import Point, Progress, Recipe, mean_loss, train

MEASURE_ROWS = 300  # validation rows answered during training
PILOT_VALID_ROWS = 1000  # validation rows, spread evenly, that a pilot answers
LATENCY_ROWS = 50
_LENGTH_MARGIN = 8


@dataclass(frozen=True, slots=True)
class RungTask:
    """One training: a rung, a seed and how the job is spelled."""

    rung: str
    seed: int
    form: FormName
    vocab_size: int
    lowercase: bool
    share: float = 1.0  # of the recipe's epochs; below 1 in pilots
    pilot: bool = False

    @property
    def key(self) -> str:
        """File-system safe identity."""
        case = "l" if self.lowercase else "c"
        base = f"{self.rung}-s{self.seed}-{self.form}{self.vocab_size}{case}"
        return f"pilot-{base}" if self.pilot else base


@dataclass(frozen=True, slots=True)
class BaselineTask:
    """One baseline by the name `baselines.standard_baselines` gives it; ``max_bytes`` cuts the SVM to a rung's size."""

    name: str
    max_bytes: int | None = None

    @property
    def key(self) -> str:
        """File-system safe identity."""
        return f"baseline-{self.name}" + (f"-{self.max_bytes}" if self.max_bytes else "")


@dataclass(slots=True)
class Outcome:
    """What fitting and asking one candidate gave; plain data that survives a restart.

    Args:
        name: The candidate's name.
        params: Stored numbers.
        bytes: As shipped.
        seconds: Training or fitting time.
        latency_ms: Median time of one answer.
        valid: Answers to the validation rows, as ``[output, confidence]``; log-likelihoods for bits per byte.
        test: The same for the test rows; empty in pilots.
        valid_loss: Mean loss on the validation rows.
        curve: Training curve.
        recipe: Training settings.
        shape: The model's shape.
        tokens: Tokens trained on.
        skipped: Training rows the form could not express.
        shortened: Training and test rows whose input is too long to be read whole.
        model_dir: Where the model was saved.
        finished: False when the training was interrupted (its state is saved).
        note: One sentence on anything unusual.
        failed: Why it could not be fitted; empty where it could.
    """

    name: str
    params: int
    bytes: int
    seconds: float
    latency_ms: float | None = None
    valid: list[list[Any]] = field(default_factory=list)
    test: list[list[Any]] = field(default_factory=list)
    valid_loss: float | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0
    skipped: int = 0
    shortened: int = 0
    model_dir: str | None = None
    finished: bool = True
    note: str = ""
    failed: str = ""

    @staticmethod
    def failure(name: str, why: str) -> Outcome:
        """The outcome of a candidate that could not be fitted."""
        return Outcome(name, 0, 0, 0.0, failed=why)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> Outcome | None:
        """Read a finished outcome, or None."""
        if not path.exists():
            return None
        try:
            outcome = Outcome(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError):  # of another version, or cut short: it is made again
            return None
        return outcome if outcome.finished and not outcome.failed else None


def answers_of(predictor: Predictor, job: Job, rows: Sequence[Example]) -> list[list[Any]]:
    """Ask a candidate: ``[output, confidence]`` a row, or ``[log-likelihood]`` where the metric is bits per byte."""
    if job.metric == "bits_per_byte":
        scores = predictor.score([r.input for r in rows], [[r.output] for r in rows])
        return [[float(s[0])] for s in scores]
    return [[p.output, p.confidence] for p in predictor.predict([r.input for r in rows])]


def score_answers(job: Job, answers: Sequence[Sequence[Any]], split: SplitName, codec: FrameCodec | None = None) -> Any:
    """`Scores` of stored answers, which are scored again and again: the latest are remembered by what they are of."""
    key = id(answers), id(job), split, codec is None
    known = _SCORED.get(key)
    if known is not None and known[0] is answers and known[1] is job:
        return known[2]
    if job.metric == "bits_per_byte":
        found = score_likelihood(job, [float(a[0]) for a in answers], split)
    else:
        found = score_predictions(job, [Prediction(str(o), float(c)) for o, c in answers], split, codec)
    if len(_SCORED) >= _MOST_SCORED:
        _SCORED.pop(next(iter(_SCORED)))
    _SCORED[key] = (answers, job, found)
    return found


_SCORED: dict[tuple[int, int, str, bool], tuple[Sequence[Sequence[Any]], Job, Scores]] = {}
_MOST_SCORED = 64


def run_baseline(job: Job, task: BaselineTask) -> tuple[Outcome, Predictor]:
    """Fit a baseline and ask it."""
    from smallfry.baselines import fit_svm_cut, standard_baselines

    if task.max_bytes is not None:
        fit: Callable[[], Predictor] = partial(fit_svm_cut, job, task.max_bytes)
    else:
        fit = dict(standard_baselines(job))[task.name]
    start = time.perf_counter()
    predictor = fit()
    seconds = time.perf_counter() - start
    latency = answer_time(job, predictor)
    outcome = Outcome(
        predictor.name, predictor.params, predictor.size_bytes(), seconds, latency,
        answers_of(predictor, job, job.valid), answers_of(predictor, job, job.test),
        note=getattr(predictor, "note", ""),
    )  # fmt: skip
    return outcome, predictor


def answer_time(job: Job, predictor: Predictor) -> float | None:
    """Median milliseconds of one answer, over test inputs spread evenly; None where candidates only score texts."""
    if job.metric == "bits_per_byte" or not job.test:
        return None
    return measure_latency(predictor, [e.input for e in evenly(job.test, LATENCY_ROWS)])


def longest_answer(job: Job, form: Form) -> int:
    """Choices to allow an answer: the longest training or validation answer and a margin.

    Training rows are sampled evenly where there are many.
    """
    step = max(1, len(job.train) // 5000)
    rows = (*job.train[::step], *job.valid)
    longest = 0
    for row in rows:
        ids = form.answer_ids(row.input, row.output)
        longest = max(longest, len(ids) if ids is not None else 0)
    return longest + max(_LENGTH_MARGIN, longest // 4)


def run_rung(
    job: Job, task: RungTask, out: Path, codec: FrameCodec | None, resume: bool,
    watch: Callable[[Progress], None] | None = None, should_stop: Callable[[], bool] | None = None,
    say: Callable[[str], None] | None = None,
) -> Outcome:  # fmt: skip
    """Train one rung with one seed, save the model, and ask it.

    Args:
        job: The job.
        task: What to train.
        out: The assessment's directory.
        codec: The job's frame codec, if it has one.
        resume: Go on from an earlier state of the same training.
        watch: Told of every step.
        should_stop: Asked after every step; True saves the state and gives an unfinished outcome.
        say: Told of what went wrong and was mended.
    """
    import torch

    from smallfry.model import Transformer

    form = build_form(job, task.form, task.vocab_size, task.lowercase, codec)
    shape = shape_for(task.rung, form.tokenizer.vocab_size)
    draft = JobData(job.train, form, Noise(), 0.0, 4096, task.seed)
    recipe = recipe_for(job, task.form, draft.tokens_per_epoch(), shape.params, task.seed)
    if task.pilot:
        recipe = pilot_recipe(recipe, task.share)
    data = JobData(job.train, form, recipe.noise, recipe.prompt_loss, recipe.batch_tokens, task.seed, recipe.copy_loss)
    model = Transformer(shape, recipe.dropout)
    model.init_weights(torch.Generator().manual_seed(task.seed))
    device = default_device()
    model = model.to(device, compute_dtype(device))
    predictor = ModelPredictor(task.rung, TorchModel(model), form, longest_answer(job, form))
    measure = _measurer(job, form, predictor, full=not task.pilot)
    run_dir = None if task.pilot else out / "work" / task.key
    trained = train(
        model, data, recipe, run_dir=run_dir, resume=resume, measure=measure,
        measure_every=max(1.0, recipe.epochs / 8), watch=watch, should_stop=should_stop, say=say,
    )  # fmt: skip
    outcome = Outcome(
        task.rung, shape.params, predictor.size_bytes(), trained.seconds, tokens=trained.tokens,
        recipe=recipe.to_dict(), shape=asdict(shape), skipped=data.skipped,
        shortened=sum(form.shortens(e.input) for e in (*job.train, *job.test)), finished=trained.finished,
        curve=[asdict(p) for p in trained.curve], note="; ".join(trained.notes),
    )  # fmt: skip
    if not trained.finished:
        return outcome
    valid = evenly(job.valid, PILOT_VALID_ROWS) if task.pilot else job.valid
    outcome.valid = answers_of(predictor, job, valid)
    outcome.valid_loss = _last_loss(trained.curve)
    if not task.pilot:
        _finish(job, task, out, predictor, TorchModel(model), outcome, recipe)
    return outcome


def _finish(
    job: Job, task: RungTask, out: Path, predictor: ModelPredictor, model: TorchModel, outcome: Outcome, recipe: Recipe
) -> None:
    """Ask the test rows, time one answer, and save the model directory."""
    outcome.test = answers_of(predictor, job, job.test)
    outcome.latency_ms = answer_time(job, predictor)
    path = out / "models" / task.key
    predictor.save(path, model.model, {
        "job": {"name": job.name, "kind": job.kind, "metric": job.metric, "hashes": job.hashes()},
        "recipe": recipe.to_dict(), "seed": task.seed,
    })  # fmt: skip
    outcome.model_dir = str(path.relative_to(out))


def _last_loss(curve: Sequence[Point]) -> float | None:
    return next((p.valid_loss for p in reversed(curve) if p.valid_loss is not None), None)


def _measurer(
    job: Job, form: Form, predictor: ModelPredictor, full: bool
) -> Callable[[Any], tuple[float, float | None]]:
    rows = evenly(job.valid, PILOT_VALID_ROWS)
    batches = JobData(rows, form, Noise(), 0.0, 8192, 0).plain()
    shown = tuple(evenly(rows, MEASURE_ROWS))
    part = Job(job.name, job.kind, job.train[:1], shown, shown, job.metric)

    def measure(model: Any) -> tuple[float, float | None]:
        loss = mean_loss(model, batches)
        if not full or job.metric == "bits_per_byte":
            return loss, None
        return loss, float(score_answers(part, answers_of(predictor, part, shown), "valid").score)

    return measure
