"""Sweep learning rate, weight decay and batch at two sizes and write docs/results/sweep.md from what was measured.

    python benchmarks/sweep.py                  run everything on the built-in stories, one process a core, then write
    python benchmarks/sweep.py --sizes 1m       only one size
    python benchmarks/sweep.py --json           also print one line of JSON

Every run differs from the recipe of its size in one setting. What is compared is the loss on validation rows after the
same tokens. The rates in `smallfry.recipes` follow from this page.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs" / "results"
VOCAB = 1024
VALID_ROWS = 200


@dataclass(frozen=True)
class Run:
    """One training: a size and what differs from its recipe."""

    size: str
    rows: int
    rate: float = 1.0  # factor on both learning rates
    weight_decay: float | None = None
    batch_tokens: int = 2048

    @property
    def label(self) -> str:
        decay = "" if self.weight_decay is None else f", weight decay {self.weight_decay:g}"
        batch = "" if self.batch_tokens == 2048 else f", batch {self.batch_tokens:,}"
        return f"rates x {self.rate:g}{decay}{batch}"


def runs(size: str, rows: int) -> list[Run]:
    """The recipe itself, then one change at a time."""
    return [
        Run(size, rows), Run(size, rows, 0.5), Run(size, rows, 2.0), Run(size, rows, weight_decay=0.2),
        Run(size, rows, batch_tokens=8192),
    ]  # fmt: skip


def measure(run: Run) -> dict[str, object]:
    """Train and give the validation loss in nats a token."""
    from smallfry.machine import limit_threads

    limit_threads()
    import torch

    from smallfry import Job
    from smallfry.data import JobData, Noise
    from smallfry.forms import build_form
    from smallfry.machine import compute_dtype
    from smallfry.model import Transformer
    from smallfry.recipes import recipe_for
    from smallfry.sizes import shape_for
    from smallfry.train import mean_loss, train

    job = Job.load("stories")
    job = replace(job, train=job.train[: run.rows], valid=job.valid[:VALID_ROWS])
    form = build_form(job, "text", VOCAB, False, None)
    shape = shape_for(run.size, form.tokenizer.vocab_size)
    tokens = JobData(job.train, form, Noise(), 0.0, 4096, 0).tokens_per_epoch()
    recipe = recipe_for(job, "text", tokens, shape.params, 0)
    recipe = replace(
        recipe, epochs=2.0, batch_tokens=run.batch_tokens, lr=recipe.lr * run.rate, muon_lr=recipe.muon_lr * run.rate,
        weight_decay=recipe.weight_decay if run.weight_decay is None else run.weight_decay,
    )  # fmt: skip
    data = JobData(job.train, form, recipe.noise, recipe.prompt_loss, recipe.batch_tokens, 0)
    model = Transformer(shape, recipe.dropout)
    model.init_weights(torch.Generator().manual_seed(0))
    model = model.to(compute_dtype(torch.device("cpu")))
    start = time.perf_counter()
    trained = train(model, data, recipe)
    seconds = time.perf_counter() - start
    loss = mean_loss(model, JobData(job.valid, form, Noise(), 0.0, 8192, 0).plain())
    return {
        **asdict(run), "label": run.label, "params": shape.params, "lr": recipe.lr, "muon_lr": recipe.muon_lr,
        "weight_decay": recipe.weight_decay, "steps": trained.steps, "tokens": trained.tokens, "loss": loss,
        "seconds": seconds,
    }  # fmt: skip


def page(found: list[dict[str, object]]) -> str:
    """The table."""
    lines = [
        "# Learning rate, weight decay and batch by size", "",
        "Written by `python benchmarks/sweep.py`: the built-in `stories`, two passes, one seed, loss in nats a token",
        f"on {VALID_ROWS} validation rows with averaged weights. The first line of each size is the recipe in use.", "",
        "| size | change | AdamW rate | Muon rate | decay | steps | tokens | loss | seconds |", "|" + "---|" * 9,
    ]  # fmt: skip
    lines += [
        f"| {r['size']} | {r['label']} | {r['lr']:.4f} | {r['muon_lr']:.4f} | {r['weight_decay']} | {r['steps']} "
        f"| {r['tokens']:,} | {r['loss']:.4f} | {r['seconds']:.0f} |"
        for r in found
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1m,10m")
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    # The largest first, so that no core waits for the last one alone.
    todo = [run for size in reversed(args.sizes.split(",")) for run in runs(size, args.rows)]
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        found = list(pool.map(measure, todo))
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "sweep.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "sweep.md").write_text(page(found), encoding="utf-8")
    print(page(found))
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
