"""Does a model of d20's size take real training steps here? On one process, and in parts over two (FSDP2).

    python benchmarks/large.py [--size 561m] [--vocab 65536] [--steps 2] [--tokens 256] [--write]

Runs itself as one process and under torchrun as two, through the real training loop with its saves, and reports the
losses, seconds a step and the largest resident memory of each process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def work(options: argparse.Namespace) -> None:
    """What each process does; process r writes found-r.json into the directory."""
    import numpy as np
    import torch

    from smallfry.bench import peak_memory
    from smallfry.data import Batch
    from smallfry.machine import compute_dtype
    from smallfry.model import Transformer
    from smallfry.sizes import shape_for
    from smallfry.train import Progress, Recipe, train
    from smallfry.training.parallel import start

    world = start()
    shape = shape_for(options.size, options.vocab)
    rows = max(2, options.tokens // 128)

    class Random:
        """The same batch again and again: its loss must fall."""

        def epoch(self, epoch: int) -> list[Batch]:
            ids = np.random.default_rng(0).integers(options.vocab, size=(rows, 129))
            return [Batch(ids[:, :-1], ids[:, 1:], np.ones((rows, 128), np.float32), np.arange(rows))] * options.steps

    losses: list[float] = []
    times = [time.perf_counter()]

    def watch(progress: Progress) -> None:
        losses.append(progress.loss)
        times.append(time.perf_counter())

    with torch.device("meta"):
        model = Transformer(shape)
    model = model.to(compute_dtype(world.device)).to_empty(device=world.device)
    model.init_weights(torch.Generator().manual_seed(0))
    recipe = Recipe(epochs=1, lr=1e-3, muon_lr=0.01, dropout=0.0, ema=0.0, warmup=0.0)
    trained = train(
        model, Random(), recipe, run_dir=Path(options.directory) / "run", watch=watch, world=world, save_seconds=1e9
    )
    found = {
        "params": shape.params, "losses": losses, "finished": trained.finished, "peak_bytes": peak_memory(),
        "seconds_a_step": (times[-1] - times[1]) / max(1, len(times) - 2),
    }  # fmt: skip
    (Path(options.directory) / f"found-{world.rank}.json").write_text(json.dumps(found), encoding="utf-8")
    world.close()


def measure(options: argparse.Namespace, processes: int) -> list[dict[str, Any]]:
    """What each of so many processes found."""
    with tempfile.TemporaryDirectory() as directory:
        given = ["--size", options.size, "--vocab", str(options.vocab), "--steps", str(options.steps)]
        given += ["--tokens", str(options.tokens), "--directory", directory]
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        runner = torchrun if processes > 1 else []
        subprocess.run([sys.executable, *runner, __file__, *given], check=True)
        return [json.loads((Path(directory) / f"found-{r}.json").read_text()) for r in range(processes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="561m")
    parser.add_argument("--vocab", type=int, default=65_536)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write docs/results/large.json")
    options = parser.parse_args()
    if options.directory:
        work(options)
        return
    from smallfry.machine import machine, versions

    record = {
        "command": f"python benchmarks/large.py --size {options.size} --vocab {options.vocab} --steps {options.steps} "
        f"--tokens {options.tokens}",
        "one process": measure(options, 1), "two processes": measure(options, 2), "machine": machine(),
        "versions": versions(),
    }  # fmt: skip
    for name in ("one process", "two processes"):
        for rank, found in enumerate(record[name]):
            losses = " ".join(f"{loss:.4f}" for loss in found["losses"])
            print(
                f"{name}, {rank}: {found['params']:,} parameters, losses {losses}, "
                f"{found['seconds_a_step']:.1f} s a step, {found['peak_bytes'] / 2**30:.1f} GiB"
            )
    if options.write:
        (RESULTS / "large.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
