"""Training settings by kind of job, form and size: the sweeps behind them stand in docs/LOG.md.

A recipe depends on the data and the rung alone, never on how fast the machine is: the same job and seed give the same
model whatever else runs beside it.
"""

from __future__ import annotations

from dataclasses import replace

from smallfry.data import Noise
from smallfry.forms import FormName
from smallfry.job import Job
from smallfry.train import Recipe

MIN_EPOCHS, MAX_EPOCHS = 2.0, 60.0


def recipe_for(job: Job, form: FormName, tokens_per_epoch: int, params: int, seed: int) -> Recipe:
    """The recipe for one training.

    Args:
        job: The job.
        form: Its output form.
        tokens_per_epoch: Padded tokens of one pass over the training rows.
        params: Parameters of the rung.
        seed: Seed of the run.
    """
    if job.kind == "classify":
        recipe = Recipe(batch_tokens=1536, noise=Noise(token_mask=0.2, bpe_dropout=0.1), prompt_loss=0.0)
        tokens = 3.0e6
    elif form == "inline":
        recipe = Recipe(batch_tokens=4096, noise=Noise(token_mask=0.1, answer_mask=0.1, swap=0.3))
        tokens = 6.0e6
    elif job.kind == "transform":
        recipe = Recipe(batch_tokens=4096, dropout=0.0, weight_decay=0.05)
        tokens = 7.0e6
    else:
        recipe = Recipe(batch_tokens=8192, dropout=0.0, weight_decay=0.05)
        tokens = 10.0e6
    epochs = min(MAX_EPOCHS, max(MIN_EPOCHS, round(tokens / max(1, tokens_per_epoch))))
    # Wider matrices want smaller steps; the exponents are those of the sweeps at 1m and 10m.
    scale = (params / 1e6) ** -0.25
    return replace(recipe, epochs=epochs, lr=recipe.lr * scale, muon_lr=recipe.muon_lr * scale**0.5, seed=seed)


def pilot_recipe(recipe: Recipe, share: float) -> Recipe:
    """The same recipe cut to ``share`` of its epochs, for comparing settings on the smallest rung."""
    return replace(recipe, epochs=max(1.0, recipe.epochs * share))
