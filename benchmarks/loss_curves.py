"""Does the fast step train as well as plain fp32? Loss curves of both, several seeds.

    python benchmarks/loss_curves.py --text FILE --valid FILE [--steps 1000] [--seeds 3] [--write]

Trains a model of about a million parameters on a text: the fast way (bf16 where the machine has it, libfry's kernels)
and the plain way (fp32, PyTorch's operations), with the same initial weights and the same data order for each seed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smallfry import fused
from smallfry.data import Batch
from smallfry.machine import compute_dtype, limit_threads, machine, versions
from smallfry.model import Transformer
from smallfry.report.svg import Drawing, Scale
from smallfry.sizes import shape_for
from smallfry.tokenizer import Tokenizer
from smallfry.train import Progress, Recipe, mean_loss, train

RESULTS = Path(__file__).parent.parent / "docs" / "results"
SEQ_LEN, ROWS, VALID_ROWS = 256, 8, 400
VOCAB, EVERY = 2048, 20  # steps that a point of the curve is the mean of


class Packed:
    """A text's tokens as rows of equal length, in an order that depends on the seed and the epoch alone."""

    def __init__(self, ids: np.ndarray, seed: int, steps: int) -> None:
        count = (len(ids) - 1) // SEQ_LEN
        self.rows = ids[: count * SEQ_LEN + 1]
        self.seed, self.steps, self.count = seed, min(steps, count // ROWS), count

    def batch(self, rows: np.ndarray) -> Batch:
        inputs = np.stack([self.rows[r * SEQ_LEN : (r + 1) * SEQ_LEN] for r in rows])
        targets = np.stack([self.rows[r * SEQ_LEN + 1 : (r + 1) * SEQ_LEN + 1] for r in rows])
        return Batch(inputs, targets, np.ones(inputs.shape, np.float32), rows)

    def epoch(self, epoch: int) -> list[Batch]:
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return [self.batch(order[i * ROWS : (i + 1) * ROWS]) for i in range(self.steps)]


def read(path: Path) -> str:
    """A text, or the column `text` of JSON lines."""
    data = path.read_bytes()
    raw = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    if ".jsonl" not in path.name:
        return raw
    return "\n\n".join(json.loads(line)["text"] for line in raw.splitlines() if line.strip())


def run(text: Path, valid: Path, fast: bool, seed: int, steps: int) -> dict[str, Any]:
    """One training: its curve and its loss on held-out text."""
    limit_threads()
    trained_on = read(text)
    tokenizer = Tokenizer.train([trained_on[:2_000_000]], VOCAB)
    data = Packed(np.array(tokenizer.encode(trained_on)), seed, steps)
    held = Packed(np.array(tokenizer.encode(read(valid)[:1_500_000])), 0, 1)
    batches = [held.batch(np.arange(i, i + ROWS)) for i in range(0, VALID_ROWS, ROWS)]
    losses: list[float] = []

    def watch(progress: Progress) -> None:
        losses.append(progress.loss)

    model = Transformer(shape_for("1m", tokenizer.vocab_size))
    model.init_weights(torch.Generator().manual_seed(seed))
    model = model.to(compute_dtype(torch.device("cpu")) if fast else torch.float32)
    recipe = Recipe(
        epochs=steps / data.steps, batch_tokens=ROWS * SEQ_LEN, lr=0.012, muon_lr=0.04, weight_decay=0.1, dropout=0.0,
        seed=seed,
    )  # fmt: skip
    with nullcontext() if fast else fused.switched_off():
        trained = train(model, data, recipe, watch=watch)
        loss = mean_loss(trained.model, batches)
    points = [statistics.fmean(losses[i : i + EVERY]) for i in range(0, len(losses), EVERY)]
    print(
        f"{'fast' if fast else 'plain'} seed {seed}: held-out loss {loss:.4f} after {trained.steps} steps", flush=True
    )
    return {
        "fast": fast, "seed": seed, "steps": trained.steps, "valid_loss": loss, "seconds": trained.seconds,
        "curve": points, "dtype": str(next(trained.model.parameters()).dtype)[6:],
    }  # fmt: skip


def figure(results: list[dict[str, Any]], steps: int) -> str:
    """Losses by step: thick and pale the plain runs, thin and dark the fast ones on top of them."""
    width, height, left, right, top, bottom = 720.0, 380.0, 52.0, 16.0, 34.0, 44.0
    last = [point for r in results for point in r["curve"]]
    x = Scale(0, steps, left, width - right)
    y = Scale(min(last) - 0.1, max(last), height - bottom, top, log=True)
    style = (
        "text{font:13px sans-serif;fill:#333}.paper{fill:#fff}.axis{stroke:#bbb}"
        "path{fill:none}.plain{stroke:#f2a65a;stroke-width:5;opacity:.55}.fast{stroke:#14508c;stroke-width:1.4}"
    )
    words = f"Training loss over {steps} steps, three seeds: fast and plain runs lie on one another"
    drawing = Drawing(width, height, "loss", "Loss curves", words)
    drawing.add("style").text = style
    drawing.add("rect", "paper", x=0, y=0, width=width, height=height)
    for value in (2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0):
        if y.lo < value < y.hi:
            drawing.line(left, y(value), width - right, y(value), "axis")
            drawing.text(f"{value:g}", left - 8, y(value) + 4, anchor="end")
    for value in range(0, steps + 1, max(1, steps // 5)):
        drawing.text(f"{value:,}", x(value), height - bottom + 20, anchor="middle")
    drawing.text("step", (left + width) / 2, height - 8, anchor="middle")
    drawing.text("training loss, nats a token", left - 40, 18)
    for fast in (False, True):
        for r in results:
            if r["fast"] == fast:
                points = [(x((i + 0.5) * EVERY), y(loss)) for i, loss in enumerate(r["curve"])]
                drawing.path(points, "fast" if fast else "plain")
    for index, (name, label) in enumerate(
        (("plain", "plain: PyTorch, fp32"), ("fast", "fast: libfry's kernels, bf16"))
    ):
        drawing.path([(width - 250, 60 + 22 * index), (width - 215, 60 + 22 * index)], name)
        drawing.text(label, width - 205, 64 + 22 * index)
    return drawing.render() + "\n"


def page(record: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    fast, plain = ({r["seed"]: r for r in record["runs"] if r["fast"] == way} for way in (True, False))
    lines = [
        "# The fast step trains as well as the plain one",
        "",
        f"`{record['command']}`",
        "",
        f"A model of {record['params']:,} parameters, {record['steps']:,} steps of {ROWS * SEQ_LEN:,} tokens on "
        "stories; both ways of a seed have the same initial weights and batches. Held-out loss in nats a token, of "
        f"averaged weights, on {VALID_ROWS * SEQ_LEN:,} tokens.",
        "",
        f"| seed | fast ({next(iter(fast.values()))['dtype']}, kernels) | plain (fp32, PyTorch) | difference |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {s} | {fast[s]['valid_loss']:.4f} | {plain[s]['valid_loss']:.4f} | "
        f"{fast[s]['valid_loss'] - plain[s]['valid_loss']:+.4f} |" for s in sorted(fast)
    ]  # fmt: skip
    d = record["differences"]
    lines += [
        "", f"Mean difference {d['mean']:+.4f}, largest {d['largest']:.4f}; the plain runs' own spread over seeds is "
        f"{d['spread']:.4f} (greatest minus least), {d['sd']:.4f} (standard deviation).", "",
        "![Loss curves](loss_curves.svg)", "",
        f"{record['machine']['cpu']}, torch {record['versions'].get('torch')}; each run one thread.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="a text, or .jsonl(.gz) with a column text")
    parser.add_argument("--valid", type=Path, required=True, help="held-out text of the same kind")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write docs/results/loss_curves.*")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    jobs = [(fast, seed) for seed in range(options.seeds) for fast in (False, True)]
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        futures = [pool.submit(run, options.text, options.valid, fast, seed, options.steps) for fast, seed in jobs]
        results = [future.result() for future in futures]
    by = {(r["fast"], r["seed"]): r["valid_loss"] for r in results}
    apart = [by[True, s] - by[False, s] for s in range(options.seeds)]
    plain = [by[False, s] for s in range(options.seeds)]
    record = {
        "command": f"python benchmarks/loss_curves.py --text {options.text.name} --valid {options.valid.name} "
        f"--steps {options.steps} --seeds {options.seeds}",
        "steps": options.steps, "params": shape_for("1m", VOCAB).params, "runs": results, "machine": machine(),
        "versions": versions(),
        "differences": {
            "mean": statistics.fmean(apart), "largest": max(abs(a) for a in apart), "spread": max(plain) - min(plain),
            "sd": statistics.stdev(plain) if len(plain) > 1 else 0.0,
        },
    }  # fmt: skip
    print(page(record))
    if options.write:
        (RESULTS / "loss_curves.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "loss_curves.md").write_text(page(record), encoding="utf-8")
        (RESULTS / "loss_curves.svg").write_text(figure(results, options.steps), encoding="utf-8")
    if options.json:
        print(json.dumps({"differences": record["differences"], "valid": {f"{k}": v for k, v in by.items()}}))


if __name__ == "__main__":
    main()
