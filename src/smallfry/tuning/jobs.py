"""Tuning on a job: the tokenizer gets the form's units and symbols; the job's own recipe, its score at the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from smallfry.architecture import MAX_POSITIONS
from smallfry.assessment.work import MEASURE_ROWS, PILOT_VALID_ROWS, answers_of, longest_answer, score_answers
from smallfry.baselines.calibration import evenly
from smallfry.data import JobData, Noise
from smallfry.engine.torch_engine import TorchModel
from smallfry.errors import SmallfryError
from smallfry.evals.metrics import METRICS, Scores
from smallfry.forms import Form, FormName, available_forms, build_form, spelling
from smallfry.frames import FrameCodec
from smallfry.job import Example, Job
from smallfry.model import Transformer
from smallfry.predictor import ModelPredictor
from smallfry.pretraining.plan import Line
from smallfry.recipes import holds, recipe_for
from smallfry.training.epochs import Data
from smallfry.tuning.chatdata import answer_sums
from smallfry.tuning.extend import extend_model, extend_tokenizer
from smallfry.tuning.record import Plan, TuneSettings
from smallfry.tuning.start import Start, fresh_model, is_size, open_model
from smallfry.tuning.teaching import Teaching

LR_SCALE = 1.0
"""Of the rates that fresh weights take: at 1m on `intents` 1 beat 0.25, 0.5 and 2 on pretrained weights."""
VOCABS = (512, 2048)
_MEASURES = 8
_VALID_TOKENS = 8192


def read_job(settings: TuneSettings) -> Job:
    """The job that ``settings.data`` names.

    Raises:
        SmallfryError: As `smallfry.Job.load`.
    """
    return Job.load(
        settings.data[0], input_column=settings.input_column, output_column=settings.output_column, limit=settings.limit
    )


class JobTuning:
    """A job and a model that is to learn it.

    Args:
        settings: What is asked.
        job: The job.
        plan: Of a run that goes on; None decides.
        teaching: The teachers, where there are any; fresh weights take the form of one that knows the job.
    """

    kind = "job"

    def __init__(self, settings: TuneSettings, job: Job, plan: Plan | None, teaching: Teaching | None = None) -> None:
        self.settings, self.job = settings, job
        self.start, self.form = _spelled(settings, job, teaching.form(job) if teaching else None)
        self.taught: list[Example] = []
        if teaching is not None:
            teaching.meet(self.start.tokenizer, job_form=True)
            self.taught = teaching.examples(job)
        rows = (*job.train, *self.taught)
        draft = JobData(rows, self.form, Noise(), 0.0, 4096, settings.seed)
        if not draft.rows:
            raise SmallfryError(f"{job.name}: the form {self.form.name} can express no row; choose another --form")
        params = self.start.model.shape.params
        self.scale = settings.lr_scale or LR_SCALE
        self.pass_tokens = draft.tokens_per_epoch()
        recipe = recipe_for(job, self.form.name, self.pass_tokens, params, settings.seed)
        epochs = settings.epochs or (settings.tokens / self.pass_tokens if settings.tokens else recipe.epochs)
        recipe = replace(recipe, epochs=epochs, lr=recipe.lr * self.scale, muon_lr=recipe.muon_lr * self.scale)
        self.plan = plan or Plan(recipe, MAX_POSITIONS, 0, 0, tuple(self._lines(recipe)))
        self.own = JobData(
            rows, self.form, recipe.noise, recipe.prompt_loss, recipe.batch_tokens, settings.seed, recipe.copy_loss
        )
        self.data: Data = teaching.wrap(self.own) if teaching else self.own
        self.max_new = longest_answer(job, self.form)
        self._valid = JobData(evenly(job.valid, PILOT_VALID_ROWS), self.form, Noise(), 0.0, _VALID_TOKENS, 0)

    def lines(self) -> list[tuple[str, str]]:
        """What the job is."""
        job, form = self.job, self.form
        shown = [
            ("data", f"job {job.name}: {job.kind}, judged by {METRICS[job.metric].title}"),
            ("rows", f"{len(job.train):,} to learn from, {len(job.valid):,} to look at, {len(job.test):,} to test on"),
        ]
        if self.taught:
            shown.append(("from the teacher", f"{len(self.taught):,} rows"))
        if self.own.skipped:
            shown.append(("left out", f"{self.own.skipped:,} rows that the form {form.name} cannot express"))
        return shown + [("", note) for note in job.notes]

    def facts(self) -> dict[str, Any]:
        """What identifies the job, for the card."""
        job = self.job
        return {
            "sources": [job.source or job.name], "counts": {
                "train": len(job.train), "valid": len(job.valid), "test": len(job.test), "taught": len(self.taught),
                "skipped": self.own.skipped,
            },
            "hashes": job.hashes(),
        }  # fmt: skip

    def _lines(self, recipe: Any) -> list[Line]:
        shape, asked = self.start.model.shape, self.settings
        tokens = round(recipe.epochs * self.pass_tokens)
        why = "as asked" if asked.epochs or asked.tokens else "what such jobs need by measurement"
        fold = ", read in lower case" if self.form.lowercase else ""
        return [
            Line("model", self.start.name, f"{shape.params:,} parameters"),
            Line("vocabulary", f"{shape.vocab_size:,}", _vocabulary(self.start)),
            Line("form", self.form.name, _FORMS[self.form.name] + fold),
            Line("passes", f"{recipe.epochs:.3g}", why),
            Line("tokens", f"{tokens:,}", f"{self.pass_tokens:,} a pass, padding included"),
            Line("batch", f"{recipe.batch_tokens:,} tokens", "rows of about the same length"),
            Line("AdamW rate", f"{recipe.lr:.4f}", f"{self.scale:g} of what fresh weights take at this size"),
            Line("Muon rate", f"{recipe.muon_lr:.4f}", "likewise"),
        ]

    # ---- for the loop -----------------------------------------------------------------------------------------------

    @property
    def measures(self) -> bool:
        """A job always holds rows out."""
        return True

    @property
    def measure_every(self) -> float:
        """Epochs between two measurements."""
        return max(1.0, self.plan.recipe.epochs / _MEASURES)

    def training_data(self) -> Data:
        """What the loop reads."""
        return self.data

    def done(self, step: int, share: float) -> float:
        """Share of the run after a step."""
        return share

    def measure(self, model: Transformer) -> tuple[float, float | None]:
        """Loss of the right answers to the validation rows, and the score of some of them."""
        sums = self.answers(model)
        loss = float(sums[:, 0].sum() / sums[:, 1].sum())
        if self.job.metric == "bits_per_byte":
            return loss, None
        shown = tuple(evenly(self.job.valid, MEASURE_ROWS))
        part = replace(self.job, train=self.job.train[:1], valid=shown, test=shown)
        return loss, float(self._score(model, part).score)

    def told(self, loss: float, score: float | None) -> str:
        """A measurement as it is shown."""
        found = f"validation loss {loss:.3f}"
        return found if score is None else f"{found}, {METRICS[self.job.metric].title} {score:.3f}"

    def answers(self, model: Transformer) -> np.ndarray:
        """Weighted nats and weights of every validation row's right answer, ``(n, 2)``."""
        return answer_sums(model, self._valid.plain(), range(len(self._valid)))

    def _score(self, model: Transformer, job: Job) -> Scores:
        asked = ModelPredictor(self.start.name, TorchModel(model), self.form, self.max_new)
        return cast(Scores, score_answers(job, answers_of(asked, job, job.test), "test", self.form.codec))

    def result(self, model: Transformer) -> dict[str, Any]:
        """What the test rows say."""
        scores = self._score(model, self.job)
        return {
            "name": self.job.name, "kind": self.job.kind, "metric": self.job.metric, "form": self.form.name,
            "score": scores.score, "ci": list(scores.interval()), "n": scores.n, "metrics": dict(scores.extra),
            "example": " ".join(self.job.test[0].input.split())[:80].replace('"', "'"),
        }  # fmt: skip

    def card(self) -> dict[str, Any]:
        """What a model of a job says of itself."""
        job = self.job
        return {
            "form": self.form.to_dict(), "max_new": self.max_new,
            "job": {"name": job.name, "kind": job.kind, "metric": job.metric, "hashes": job.hashes()},
        }  # fmt: skip


_FORMS = {
    "text": "outputs are written in pieces", "units": "outputs that recur are one token each",
    "inline": "the input's own words are tagged, not spelled again",
}  # fmt: skip


def _vocabulary(start: Start) -> str:
    return "of the job's own words" if start.fresh else "the model's, with the job's own tokens behind it"


def _spelled(settings: TuneSettings, job: Job, given: Form | None) -> tuple[Start, Form]:
    """The model with its tokenizer, and the form of the job."""
    if given is not None and is_size(settings.model):
        return fresh_model(settings.model, given.tokenizer, settings.seed, MAX_POSITIONS), given
    codec = FrameCodec.learn(job.train) if job.kind == "transform" else None
    offered = available_forms(job, codec)
    name = cast(FormName, settings.form or offered[0])
    if name not in offered:
        raise SmallfryError(f"--form {name}: does not fit the job {job.name}; expected {' or '.join(offered)}")
    if is_size(settings.model):
        vocab = settings.vocab or max((v for v in VOCABS if holds(settings.model, 2 * v)), default=VOCABS[0])
        form = build_form(job, name, vocab, job.kind == "classify" or name == "inline", codec)
        return fresh_model(settings.model, form.tokenizer, settings.seed, MAX_POSITIONS), form
    if settings.vocab is not None:
        raise SmallfryError(f"--vocab {settings.vocab}: {settings.model} has its own; leave it out, or name a size")
    start = open_model(settings.model)
    found = spelling(job, name, False, codec)
    tokenizer = extend_tokenizer(start.tokenizer, found.units, found.symbols)
    start.model = extend_model(start.model, start.tokenizer, tokenizer)
    start.tokenizer = tokenizer
    return start, Form(name, tokenizer, False, codec if name == "inline" else None, found.grammar)
