"""Before training: how fast this machine is on this job, and what the steps will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from smallfry.data import JobData, Noise
from smallfry.forms import FormName, build_form
from smallfry.frames import FrameCodec
from smallfry.job import Job
from smallfry.sizes import shape_for


def measure_speed(job: Job, form: FormName, codec: FrameCodec | None, rung: str) -> tuple[float, float]:
    """Tokens that a whole training of the smallest rung computes, and padded tokens a second measured here.

    A handful of real training steps on the job's own rows; about a second.
    """
    import torch

    from smallfry.machine import compute_dtype, default_device
    from smallfry.model import Transformer
    from smallfry.recipes import recipe_for
    from smallfry.train import loss_of
    from smallfry.training.optim import Optimizer

    part = replace(job, train=job.train[:: max(1, len(job.train) // 4000)])
    spelled = build_form(part, form, 512, job.kind == "classify", codec)
    share = len(job.train) / len(part.train)
    tokens = JobData(part.train, spelled, Noise(), 0.0, 4096, 0).tokens_per_epoch() * share
    shape = shape_for(rung, spelled.tokenizer.vocab_size)
    recipe = recipe_for(job, form, round(tokens), shape.params, 0)
    model = Transformer(shape, recipe.dropout)
    model.init_weights(torch.Generator().manual_seed(0))
    device = default_device()
    model = model.to(device, compute_dtype(device))
    optimizer = Optimizer(model, recipe.lr, recipe.muon_lr, recipe.weight_decay, recipe.ema)
    batches = JobData(part.train[:600], spelled, Noise(), 0.0, recipe.batch_tokens, 0).epoch(0)
    times = []
    for batch in batches[:6]:
        start = time.perf_counter()
        loss_of(model, batch)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step(0.0)
        times.append((time.perf_counter() - start) / batch.num_tokens)
    return tokens * recipe.epochs, 1.0 / median(times)


def baseline_seconds(job: Job, names: Sequence[str]) -> float:
    """A rough expectation for the plan, from the sizes of text that each kind of baseline was measured on."""
    million = sum(len(e.input) + len(e.output) for e in job.train) / 1e6
    per_million = {"majority": 0.1, "nearest": 3.0, "svm": 30.0, "crf": 60.0, "template": 10.0, "retrieval": 5.0,
                   "ngram": 5.0}  # fmt: skip
    return sum(1.0 + million * per_million.get(name, 10.0) for name in names)


def has_case(job: Job) -> bool:
    """Whether upper case could tell a model something: at least 5% of the inputs hold more than a first capital."""
    rows = job.train[:2000]
    return sum(any(c.isupper() for c in e.input[1:]) for e in rows) > 0.05 * max(1, len(rows))
