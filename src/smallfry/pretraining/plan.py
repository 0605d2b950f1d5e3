"""From a size and a corpus to every setting of a pretraining, each with its reason."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from smallfry.errors import SmallfryError
from smallfry.recipes import GENERATE
from smallfry.sizes import Shape, parse_size, shape_for, train_efficiency
from smallfry.train import Recipe

VOCABS = (512, 1024, 2048, 4096)
TABLE_SHARE = 0.3  # of the parameters that the embedding table may take by default
TOKENS_A_PARAMETER = 20  # Hoffmann et al. 2022
MOST_PASSES = 4  # up to four passes are nearly as good as new text (Muennighoff et al. 2023)
BATCHES = ((3.2e6, 4096), (14e6, 8192), (math.inf, 16_384))  # parameters up to which so many tokens a step are taken
PROCESSES_PAY = 90.0  # seconds of training from which starting several processes is worth it
ROWS_A_CORE = 4  # of a batch, from which it does not matter that they do not divide
FEWEST_MEASURES, MOST_MEASURES, TOKENS_A_MEASURE = 4, 20, 200_000


@dataclass(frozen=True, slots=True)
class Line:
    """One setting as it is shown.

    Args:
        name: What is set.
        value: To what.
        reason: Why.
    """

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything that decides a pretraining, once its corpus is made.

    Args:
        shape: Of the model.
        recipe: How it is trained; its epochs are `stretches`.
        seq_len: Tokens a row.
        steps: Batches of the whole run.
        stretch: Batches between two measurements.
        lines: Every setting with its reason.
    """

    shape: Shape
    recipe: Recipe
    seq_len: int
    steps: int
    stretch: int
    lines: tuple[Line, ...]

    @property
    def batch_tokens(self) -> int:
        """Tokens of one step, padding included."""
        return max(1, self.recipe.batch_tokens // self.seq_len) * self.seq_len

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.batch_tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "shape": asdict(self.shape), "recipe": self.recipe.to_dict(), "seq_len": self.seq_len,
            "steps": self.steps, "stretch": self.stretch, "lines": [asdict(line) for line in self.lines],
        }  # fmt: skip

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Plan:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: It is damaged.
        """
        return Plan(
            Shape(**data["shape"]), Recipe.from_dict(data["recipe"]), int(data["seq_len"]), int(data["steps"]),
            int(data["stretch"]), tuple(Line(**line) for line in data["lines"]),
        )  # fmt: skip


def choose_vocab(size: str) -> tuple[int, str]:
    """The vocabulary of a size, and why: the largest whose table leaves most of the parameters to the layers.

    Raises:
        SmallfryError: The size is none, or too small for any.
    """
    parse_size(size)
    best, share, refused = VOCABS[0], 1.0, ""
    for vocab in VOCABS:
        try:
            shape = shape_for(size, vocab)
        except SmallfryError:
            break
        taken = shape.params_by_part["embedding"] / shape.params
        if taken > TABLE_SHARE:
            refused = f"; {vocab:,} would take {taken:.0%}"
            break
        best, share = vocab, taken
    if share == 1.0:
        shape = shape_for(size, best)
        share = shape.params_by_part["embedding"] / shape.params
    return best, f"its table takes {share:.0%} of the parameters{refused}"


def make_plan(
    size: str, vocab_size: int, vocab_reason: str, corpus_tokens: int, seq_len: int, tokens: int | None, seed: int,
    limit: tuple[int, str] | None = None,
) -> Plan:  # fmt: skip
    """Derive what was not asked for.

    Args:
        size: A rung or any size.
        vocab_size: Of the tokenizer that the corpus was made with.
        vocab_reason: Why.
        corpus_tokens: Tokens to train on.
        seq_len: Tokens a row.
        tokens: Tokens of the run, where the user set them.
        seed: Of the run.
        limit: Tokens that fit into the time, and how that is known.

    Raises:
        SmallfryError: The size cannot hold the vocabulary.
    """
    shape = shape_for(size, vocab_size)
    params = shape.params
    batch = next(tokens for most, tokens in BATCHES if params <= most)
    # Larger models want smaller steps: with the fourth root of the size for AdamW, with the eighth for Muon.
    scale = (params / 1e6) ** -0.25
    recipe = replace(
        GENERATE, batch_tokens=batch, lr=GENERATE.lr * scale, muon_lr=GENERATE.muon_lr * scale**0.5, seed=seed
    )
    wanted, why = _tokens(tokens, params, corpus_tokens)
    if limit is not None and limit[0] < wanted:
        wanted, why = limit
    step = max(1, batch // seq_len) * seq_len
    steps = max(1, -(-wanted // step))
    measures = min(steps, MOST_MEASURES, max(FEWEST_MEASURES, wanted // TOKENS_A_MEASURE))
    stretch = -(-steps // measures)
    recipe = replace(recipe, epochs=steps / stretch)
    passes = steps * step / max(1, corpus_tokens)
    lines = (
        Line("size", size, f"{params:,} parameters: {shape.num_layers} layers of width {shape.hidden_size}"),
        Line("vocabulary", f"{vocab_size:,}", vocab_reason),
        Line("row", f"{seq_len} tokens", "documents end to end, nothing cut off; what the model can look back on"),
        Line("batch", f"{step:,} tokens", "small models want many steps rather than large batches"),
        Line("tokens", f"{steps * step:,}", why),
        Line("passes", f"{passes:.3g}", f"over {corpus_tokens:,} training tokens{_many(passes)}"),
        Line("steps", f"{steps:,}", f"measured every {stretch:,}"),
        Line("AdamW rate", f"{recipe.lr:.4f}", "swept at 1m and 10m, with the fourth root of the size between"),
        Line("Muon rate", f"{recipe.muon_lr:.4f}", "likewise, with the eighth root"),
        Line("decay", f"{recipe.weight_decay:g}", "swept at 1m and 10m: 0.2 beat 0.05"),
        Line("schedule", recipe.schedule, f"up over {recipe.warmup:.0%} of the run, then down to 0; weights averaged"),
    )
    return Plan(shape, recipe, seq_len, steps, stretch, lines)


def _tokens(asked: int | None, params: int, corpus_tokens: int) -> tuple[int, str]:
    if asked is not None:
        return asked, "as asked, in whole steps"
    wanted, most = TOKENS_A_PARAMETER * params, MOST_PASSES * corpus_tokens
    rule = f"{TOKENS_A_PARAMETER} a parameter (Hoffmann et al. 2022)"
    if wanted <= most:
        return wanted, rule
    return most, (
        f"{rule} would be {wanted:,}, but beyond {MOST_PASSES} passes repeated text teaches little "
        "(Muennighoff et al. 2023)"
    )


def _many(passes: float) -> str:
    return f"; beyond {MOST_PASSES} repeated text teaches little" if passes > 1.05 * MOST_PASSES else ""


def processes_for(plan: Plan, cores: int, flops: float) -> tuple[int, str]:
    """How many processes should train on the cores of one machine without a GPU, and why.

    A process a core is faster than the threads of one process at every size measured (docs/results/two_cores.md): each
    keeps its caches. It costs seconds to begin, and batches of few rows would leave some processes idle.

    Args:
        plan: What is trained.
        cores: Cores there are.
        flops: FLOP/s of one core's matrix products.
    """
    if cores < 2:
        return 1, "there is one core"
    work = plan.shape.flops_per_token(plan.seq_len) * plan.tokens
    seconds = work / (cores * flops * train_efficiency(plan.shape.params))
    if seconds < PROCESSES_PAY:
        return 1, f"{cores} threads of one process: over in {max(1, round(seconds))} s, sooner than processes pay"
    rows = max(1, plan.recipe.batch_tokens // plan.seq_len)
    if rows % cores and rows < ROWS_A_CORE * cores:
        return 1, f"{cores} threads of one process: {rows} rows a batch do not go evenly into {cores} processes"
    return cores, "one on each core is faster than threads (docs/results/two_cores.md)"
