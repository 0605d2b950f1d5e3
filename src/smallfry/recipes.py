"""Training settings by kind of job, form and size: the sweeps behind them stand in docs/LOG.md.

A recipe depends on the data and the rung alone, never on how fast the machine is: the same job and seed give the same
model whatever else runs beside it.
"""

from __future__ import annotations

from dataclasses import replace

from smallfry.data import Noise
from smallfry.errors import SmallfryError
from smallfry.forms import FormName
from smallfry.job import Job
from smallfry.sizes import shape_for
from smallfry.train import Recipe

MIN_EPOCHS, MAX_EPOCHS = 2.0, 40.0
LARGE_DATA = 4.0  # times the usual tokens that two passes over a large data set may cost; beyond, it is not read whole

# Labels: input noise and language modelling of the prompt keep a model from learning its few sentences by heart.
CLASSIFY = Recipe(
    batch_tokens=2048, lr=0.012, muon_lr=0.03, prompt_loss=0.3, noise=Noise(token_mask=0.25, bpe_dropout=0.1)
)
# Frames: values are swapped and words hidden, so that a value is found by what surrounds it; reading the words again
# with a loss of their own teaches the model where in the prompt it stands.
INLINE = Recipe(
    batch_tokens=4096, lr=0.012, muon_lr=0.05, copy_loss=0.2, noise=Noise(token_mask=0.1, answer_mask=0.1, swap=0.4)
)
# One right output per input: nothing to regularise, only steps.
TRANSFORM = Recipe(batch_tokens=4096, lr=0.012, muon_lr=0.04, dropout=0.0, weight_decay=0.05)
# Open text: more decay than other outputs want, and steps rather than large batches (docs/results/sweep.md).
GENERATE = Recipe(batch_tokens=4096, lr=0.012, muon_lr=0.04, dropout=0.0, weight_decay=0.2)

TABLE_SHARE = 0.45  # on CLINC150 at 1m, 4,096 tokens (40%) beat 2,048 (27%) and 8,192 (78%)
TOKENS = {"classify": 5.0e6, "inline": 7.2e6, "transform": 6.0e6, "generate": 10.0e6}


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
        base, tokens = CLASSIFY, TOKENS["classify"]
    elif form == "inline":
        base, tokens = INLINE, TOKENS["inline"]
    elif job.kind == "transform":
        base, tokens = TRANSFORM, TOKENS["transform"]
    else:
        base, tokens = GENERATE, TOKENS["generate"]
    usual = tokens / max(1, tokens_per_epoch)
    epochs = float(min(MAX_EPOCHS, max(min(MIN_EPOCHS, LARGE_DATA * usual), round(usual))))
    # Larger models want smaller steps: with the fourth root of the size for AdamW, with the eighth for Muon.
    scale = (params / 1e6) ** -0.25
    return replace(base, epochs=epochs, lr=base.lr * scale, muon_lr=base.muon_lr * scale**0.5, seed=seed)


def pilot_recipe(recipe: Recipe, share: float) -> Recipe:
    """The same recipe cut to ``share`` of its epochs, for comparing settings on the smallest rung."""
    return replace(recipe, epochs=recipe.epochs * share)


def larger_vocab(rung: str, piloted: int) -> int:
    """Twice the piloted vocabulary where a rung can hold it: its table may take `TABLE_SHARE` of the parameters.

    The smallest rung cannot say what a larger one could use: at 4,096 tokens it has no width left.
    """
    if not holds(rung, 2 * piloted):
        return piloted
    shape = shape_for(rung, 2 * piloted)
    return 2 * piloted if shape.params_by_part["embedding"] <= TABLE_SHARE * shape.params else piloted


def holds(rung: str, vocab_size: int) -> bool:
    """Whether a rung has parameters left for layers beside the table of a vocabulary."""
    try:
        shape_for(rung, vocab_size)
    except SmallfryError:
        return False
    return True
