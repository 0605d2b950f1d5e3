"""A small job, its form, its model and its training, for the tests of the training loop."""

from __future__ import annotations

import os
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from smallfry.data import JobData, Noise
from smallfry.errors import SmallfryError
from smallfry.forms import Form, build_form
from smallfry.job import Example, Job
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.train import Progress, Recipe, Trained, train

COLOURS = ("red", "green", "blue", "black")
ROWS = tuple(Example(f"the {c} thing number {i}", c) for i in range(40) for c in COLOURS)
JOB = Job("colours", "classify", ROWS, ROWS[:20], ROWS[:20], "accuracy")
NOISE = Noise(token_mask=0.1, bpe_dropout=0.1)
RECIPE = Recipe(epochs=3, batch_tokens=256, noise=NOISE, dropout=0.1, seed=7)


@cache
def make_form() -> Form:
    return build_form(JOB, "units", 300, True, None)


def fresh(form: Form, seed: int = 7, dropout: float = 0.1) -> Transformer:
    torch.set_num_threads(1)
    shape = Shape(form.tokenizer.vocab_size, 32, 2, 1, 1, 32, 64)
    model = Transformer(shape, dropout)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def fit(
    run_dir: Path | None = None, resume: bool = False, stop_at: int | None = None, recipe: Recipe = RECIPE, **more: Any
) -> Trained:
    form = make_form()

    def watch(progress: Progress) -> None:
        if progress.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    data = JobData(ROWS, form, recipe.noise, recipe.prompt_loss, recipe.batch_tokens, recipe.seed)
    model = fresh(form, dropout=recipe.dropout)
    return train(model, data, recipe, run_dir=run_dir, resume=resume, watch=watch, **more)


def weights(trained: Trained) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


def one_line(caught: pytest.ExceptionInfo[SmallfryError]) -> None:
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
