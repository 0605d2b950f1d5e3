"""One unit from data to scores: the training of its arm, then the same questions as every other arm of its task."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer as HfTokenizer

from smallfry.assessment.plan import has_case
from smallfry.assessment.work import longest_answer
from smallfry.data import Batch, JobData, Noise
from smallfry.engine.torch_engine import TorchModel
from smallfry.errors import SmallfryError
from smallfry.evals.metrics import score_predictions
from smallfry.evals.suites.measure import measure_task
from smallfry.evals.suites.stories import Stories
from smallfry.evals.suites.text import bits_per_byte
from smallfry.evals.suites.texts import OwnTexts
from smallfry.evals.suites.transformer import TransformerScorer, native_scorer
from smallfry.forms import Form, FormName, build_form
from smallfry.frames import FrameCodec
from smallfry.job import Job
from smallfry.machine import compute_dtype
from smallfry.model import Transformer
from smallfry.predictor import ModelPredictor
from smallfry.recipes import GENERATE, recipe_for
from smallfry.sizes import Shape, shape_for
from smallfry.tokenizer import SPECIALS, Tokenizer
from smallfry.train import Recipe, train
from smallfry.tuning.extend import extend_model

from . import material
from .arms import LIGHT, OTHER_JOBS_SHARE, OWN_SHARE, SEQ_LEN, Settings, Unit
from .batches import Planned, job_batches, text_batches, text_ids

TEXT_BATCH = 4096  # tokens a step of running text: with so few tokens, steps decide (docs/results/sweep.md)
VOCAB_BYTES = 4_000_000  # of general text that a general vocabulary is learned from


@dataclass
class Prepared:
    """A task as an arm sees it.

    Args:
        tokenizer: Of the model.
        fold: What is done to every text before it is read.
        recipe: How it is trained on the task, at the size of ``shape``.
        shape: Of the model.
        own: Endless batches of the task itself.
        ask: Puts the test to a trained model: scores by measure, and what they were made from.
        facts: What else is kept of the unit.
    """

    tokenizer: Tokenizer
    fold: Callable[[str], str]
    recipe: Recipe
    shape: Shape
    own: Iterator[Batch]
    ask: Callable[[Transformer], dict[str, Any]]
    facts: dict[str, Any]


def run_unit(unit: Unit, settings: Settings) -> dict[str, Any]:
    """Train and ask one unit.

    Returns:
        Plain data: what it was, what it cost (seconds of a core's time, whatever else runs on it), and under
        ``measures`` for each measure its score and what every item gave: ``right`` (a string of 0 and 1), or ``nats``
        and ``bytes`` of each document.

    Raises:
        SmallfryError: The data are missing or the size does not hold the arm's vocabulary.
    """
    begun, cpu = time.perf_counter(), time.process_time()
    prepared = _stories(unit, settings) if unit.task == "stories" else _job(unit, settings)
    model = Transformer(prepared.shape, prepared.recipe.dropout)
    model.init_weights(torch.Generator().manual_seed(unit.seed))
    model = model.to(compute_dtype(torch.device("cpu")))
    tokens = steps = 0
    training = 0.0
    notes: list[str] = []
    shares: list[list[int]] = []
    for recipe, data in _phases(unit, settings, prepared):
        if steps and unit.task != "stories":
            model = begin_labels(model, prepared.tokenizer)
        start = time.process_time()
        trained = train(model, data, replace(recipe, epochs=1.0))
        training += time.process_time() - start
        model, tokens, steps = trained.model, tokens + trained.tokens, steps + trained.steps
        notes += trained.notes
        shares.append(data.taken)
    asked = time.process_time()
    measures = prepared.ask(model)
    now = time.process_time()
    return {
        **asdict(unit), "key": unit.key, "identity": unit.identity(settings), "params": prepared.shape.params,
        "shape": asdict(prepared.shape), "recipe": replace(prepared.recipe, epochs=1.0).to_dict(),
        "tokens": tokens, "steps": steps,
        "tokens_by_source": shares, "train_seconds": training, "ask_seconds": now - asked, "seconds": now - cpu,
        "wall_seconds": time.perf_counter() - begun, "notes": notes, **prepared.facts, "measures": measures,
    }  # fmt: skip


def _phases(unit: Unit, settings: Settings, it: Prepared) -> Iterator[tuple[Recipe, Planned]]:
    """The trainings of an arm, one after the other, each with its own schedule."""
    tokens = unit.tokens(settings)
    if unit.arm == "domain":
        rest = 1.0 - OWN_SHARE - OTHER_JOBS_SHARE
        others = _other_jobs(unit, settings, it)
        general = _general(unit, settings, it, round(rest * tokens))
        yield it.recipe, Planned([(OWN_SHARE, it.own), (OTHER_JOBS_SHARE, others), (rest, general)], tokens)
    elif unit.arm == "tuning":
        light = round(LIGHT * tokens)
        general = _general(unit, settings, it, tokens - light)
        yield text_recipe(it.shape.params, unit.seed), Planned([(1.0, general)], tokens - light)
        yield it.recipe, Planned([(1.0, it.own)], light)
    else:
        yield it.recipe, Planned([(1.0, it.own)], tokens)


def begin_labels(model: Transformer, tokenizer: Tokenizer) -> Transformer:
    """Labels and tags as `smallfry tune` begins them: each the mean of the rows of the pieces that spell it.

    Running text never has them, so that learning it only pushes their rows away.
    """
    data = json.loads(tokenizer.hf.to_str())
    known = len(SPECIALS) + 256 + len(data["model"]["merges"])  # what text can be cut into
    data["model"]["vocab"] = {token: i for token, i in data["model"]["vocab"].items() if i < known}
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < known]
    return extend_model(model, Tokenizer(HfTokenizer.from_str(json.dumps(data))), tokenizer)


def _general(unit: Unit, settings: Settings, it: Prepared, tokens: int) -> Iterator[Batch]:
    texts = [it.fold(text) for text in material.general_texts(settings.data)]
    return text_batches(text_ids(texts, it.tokenizer, tokens), TEXT_BATCH, unit.seed)


def _other_jobs(unit: Unit, settings: Settings, it: Prepared) -> Iterator[Batch]:
    form = Form("text", it.tokenizer, False, None, {})
    rows = [
        replace(row, input=it.fold(row.input), output=it.fold(row.output))
        for row in material.other_rows(settings.data, settings.limit)
    ]
    return job_batches(JobData(rows, form, Noise(), it.recipe.prompt_loss, it.recipe.batch_tokens, unit.seed))


def text_recipe(params: int, seed: int) -> Recipe:
    """How running text is learned at a size; rates as `recipes.recipe_for` has them."""
    scale = (params / 1e6) ** -0.25
    return replace(
        GENERATE, batch_tokens=TEXT_BATCH, lr=GENERATE.lr * scale, muon_lr=GENERATE.muon_lr * scale**0.5, seed=seed
    )


# ---- jobs -----------------------------------------------------------------------------------------------------------


def _job(unit: Unit, settings: Settings) -> Prepared:
    clean, large = material.choose_rows(material.load_task(unit.task, settings), settings, unit.seed)
    # The form is not what this lever is about: it is learned from the same right rows in every arm.
    codec = FrameCodec.learn(large.train) if clean.kind == "transform" else None
    if clean.kind == "transform" and codec is None:
        raise SmallfryError(f"{unit.task}: too few rows to learn its frames from; use a larger --limit")
    job = clean
    if unit.arm == "data":
        job = replace(large, train=tuple(material.spoil_rows(large.train, codec, unit.seed)))
    form = job_form(unit, settings, job, codec, lowercase=not has_case(clean))
    shape = shape_for(unit.size, form.tokenizer.vocab_size)
    recipe = recipe_for(job, form.name, 1, shape.params, unit.seed)
    data = JobData(
        job.train, form, recipe.noise, recipe.prompt_loss, recipe.batch_tokens, unit.seed, recipe.copy_loss
    )  # fmt: skip

    def ask(model: Transformer) -> dict[str, Any]:
        backend = native_scorer(model) or TorchModel(model)
        predictor = ModelPredictor(unit.size, backend, form, longest_answer(clean, form))
        scores = score_predictions(job, predictor.predict([row.input for row in job.test]), "test", codec)
        return {job.metric: _shares(scores.per_item)}

    facts = {
        "rows": len(job.train), "skipped": data.skipped, "form": form.name, "vocab": form.tokenizer.vocab_size,
        "judged_on": f"{job.name} test rows", "test_sha256": job.hashes()["test"],
        "tokens_a_pass": data.tokens_per_epoch(),
    }  # fmt: skip
    return Prepared(form.tokenizer, form.fold, recipe, shape, job_batches(data), ask, facts)


def job_form(unit: Unit, settings: Settings, job: Job, codec: FrameCodec | None, lowercase: bool) -> Form:
    """How the arm spells the job: with its own vocabulary and the job's own form, unless the lever is one of these."""
    if unit.arm == "task":
        # A classify job's outputs are labels in every form: as a transform job's they are texts like any others.
        form = build_form(replace(job, kind="transform"), "text", unit.vocab(), lowercase, None)
        return Form("text", form.tokenizer, lowercase, None, {})  # no grammar: anything may be written
    name: FormName = "units" if codec is None else "inline"
    form = build_form(job, name, unit.vocab(), lowercase, codec)
    if unit.arm != "vocabulary":
        return form
    symbols = [] if codec is None else [f"h:{s}" for s in codec.symbols] + [f"t:{t}" for t in codec.tag_names]
    tokenizer = Tokenizer.train(_vocab_texts(settings), unit.vocab(), list(form.tokenizer.units), symbols)
    return Form(name, tokenizer, lowercase, form.codec, form.grammar)


def _vocab_texts(settings: Settings) -> Iterator[str]:
    size = 0
    for text in material.general_texts(settings.data):
        size += len(text)
        yield text
        if size > VOCAB_BYTES:
            return


def _shares(right: np.ndarray) -> dict[str, Any]:
    return {"score": float(np.mean(right)), "right": "".join("1" if value else "0" for value in right)}


# ---- stories --------------------------------------------------------------------------------------------------------


def _stories(unit: Unit, settings: Settings) -> Prepared:
    hard = unit.arm == "task"
    texts, held_out = material.books(settings) if hard else material.clean_stories(settings)
    chosen = material.choose_texts(texts, settings, unit.seed, spoiled=unit.arm == "data")
    source = _vocab_texts(settings) if unit.arm == "vocabulary" else chosen
    tokenizer = Tokenizer.train(source, unit.vocab())
    shape = shape_for(unit.size, tokenizer.vocab_size)
    recipe = text_recipe(shape.params, unit.seed)
    ids = text_ids(chosen, tokenizer, 1 << 40)

    def ask(model: Transformer) -> dict[str, Any]:
        return ask_stories(model, tokenizer, held_out)

    facts = {
        "rows": len(chosen), "skipped": 0, "form": "running text", "vocab": tokenizer.vocab_size,
        "judged_on": held_out.source, "tokens_a_pass": len(ids), "text_bytes": sum(len(t.encode()) for t in chosen),
    }  # fmt: skip
    own = text_batches(ids, TEXT_BATCH, unit.seed)
    return Prepared(tokenizer, str, recipe, shape, own, ask, facts)


def ask_stories(model: Transformer, tokenizer: Tokenizer, held_out: Stories) -> dict[str, Any]:
    """Continuation choice, name consistency, bits per byte."""
    scorer = TransformerScorer("unit", model, OwnTexts(tokenizer), SEQ_LEN)
    scorer.workers = 1  # a unit has one core
    tasks = {task.name: measure_task(scorer, task, stop=False) for task in held_out.tasks}
    found: dict[str, Any] = {name: _shares(tasks[name].right) for name in ("continuation", "names") if name in tasks}
    bits = bits_per_byte(scorer, held_out.texts)
    found["bits_per_byte"] = {
        "score": bits.score, "nats": [round(float(x), 3) for x in bits.sums[:, 0]],
        "bytes": [round(float(x)) for x in bits.sums[:, 1]],
    }  # fmt: skip
    return found
