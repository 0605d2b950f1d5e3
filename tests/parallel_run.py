"""What each process of ``tests/test_parallel.py`` runs, under torchrun: ``python -m tests.parallel_run DIRECTORY``.

Process r writes ``DIRECTORY/found-r.json``. The functions up to `train_some` are also what the one process does with
which the others are compared.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from smallfry.data import Batch
from smallfry.errors import SmallfryError
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.train import Progress, Recipe, loss_of, mean_loss, train
from smallfry.training.optim import Optimizer
from smallfry.training.parallel import World, start
from smallfry.training.runstate import RunState
from smallfry.training.sharding import ShardedOptimizer, shard, whole
from smallfry.training.sharedsaves import SharedSaves
from smallfry.tuning import problems
from smallfry.tuning.reinforce import reinforce
from tests.tuning_models import FEW, REINFORCED

# Nothing divides by two: an odd vocabulary, three blocks, and batches of five rows or one.
SHAPE = Shape(257, 64, 3, 1, 1, 64, 96)
STEPS, HALF, EPOCHS, LENGTH = 50, 25, 5, 12
RECIPE = Recipe(epochs=EPOCHS, lr=0.01, muon_lr=0.02, dropout=0.0, warmup=0.05, seed=1)
Found = dict[str, Any]
SETTINGS = {"lr": 0.01, "muon_lr": 0.02, "weight_decay": 0.1, "ema": 0.9}


def fresh(dtype: torch.dtype = torch.float32) -> Transformer:
    """The same weights in every process."""
    model = Transformer(SHAPE)
    model.init_weights(torch.Generator().manual_seed(3))
    return model.to(dtype)


def batch_of(step: int) -> Batch:
    """Text with something to learn: each token follows from the one before, with exceptions."""
    rng = np.random.default_rng([9, step])
    rows = 1 if step % 7 == 3 else 5
    ids = np.empty((rows, LENGTH + 1), dtype=np.int64)
    ids[:, 0] = rng.integers(SHAPE.vocab_size, size=rows)
    for at in range(LENGTH):
        follows = (ids[:, at] * 3 + 1) % 31
        ids[:, at + 1] = np.where(rng.random(rows) < 0.9, follows, rng.integers(SHAPE.vocab_size, size=rows))
    weights = (rng.random((rows, LENGTH)) < 0.7).astype(np.float32) * rng.random((rows, 1)).astype(np.float32)
    return Batch(ids[:, :-1], ids[:, 1:], weights, np.arange(rows))


class Text:
    """Fifty steps, ten an epoch."""

    def epoch(self, epoch: int) -> list[Batch]:
        return [batch_of(STEPS // EPOCHS * epoch + i) for i in range(STEPS // EPOCHS)]


def train_some(world: World, run_dir: Path, *, split: bool = False, until: int = STEPS, resume: bool = False) -> Found:
    """Losses of the real training loop, up to a step after which it is asked to stop; what the average is worth."""
    losses: list[float] = []
    first: list[int] = []

    def watch(progress: Progress) -> None:
        first.append(progress.step)
        losses.append(progress.loss)

    trained = train(
        fresh(), Text(), RECIPE, run_dir=run_dir, resume=resume, micro_tokens=2 * LENGTH, watch=watch, world=world,
        large_params=1 if split else 1 << 60, should_stop=lambda: world.main and first[-1] >= until < STEPS,
        measure=lambda model: (mean_loss(model, [batch_of(1000)]), None), measure_every=2,
    )  # fmt: skip
    average = mean_loss(trained.model, [batch_of(1000)])
    measured = [point.valid_loss for point in trained.curve if point.valid_loss is not None]
    return {
        "first": first[0], "losses": losses, "finished": trained.finished, "average": average, "measured": measured,
        "whole": all(type(p.data) is Tensor for p in trained.model.parameters()),
    }  # fmt: skip


# ---- only in several processes --------------------------------------------------------------------------------------


def check_agreements(world: World) -> dict[str, Any]:
    flat = torch.arange(10.0) * (world.rank + 1)
    return {
        "threads": torch.get_num_threads(),
        "sums": world.sums(1.5, float(world.rank)),
        "any": [world.any(world.rank == 1), world.any(False)],
        "same": [world.same(0.1), world.same(0.1 + world.rank)],
        "add": world.add(flat).tolist(),
    }


class _Loss(nn.Module):
    """A model whose forward is its loss, which is what DistributedDataParallel can wrap."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, total: float) -> Tensor:
        loss, weight = loss_of(self.model, batch)
        return loss * (weight / total)


def check_gradients(world: World) -> dict[str, float]:
    """Relative difference from one process's gradient, of ours, FSDP's and DistributedDataParallel's."""
    batch = batch_of(0)
    total, part = float(batch.weights.sum()), world.share(batch)
    one, ours, theirs, split = fresh(), fresh(), fresh(), shard(fresh(), world)
    sums = [Optimizer(model, **SETTINGS) for model in (one, ours, theirs)]
    loss_of(one, batch)[0].backward()  # type: ignore[no-untyped-call]
    _Loss(ours)(part, total).backward()
    wrapped = DistributedDataParallel(_Loss(theirs))
    (wrapped(part, total) * world.size).backward()  # it averages
    expected, found, ddp = sums[0].sums, world.add(sums[1].sums), sums[2].sums
    _Loss(split)(part, total).backward()
    again = fresh()
    for p, rows in zip(again.parameters(), split.parameters(), strict=True):
        assert rows.grad is not None
        p.grad = rows.grad.full_tensor() if isinstance(rows.grad, DTensor) else world.add(rows.grad)
    fsdp = Optimizer(again, **SETTINGS).sums
    return {
        name: float((x - expected).norm() / expected.norm())
        for name, x in (("ours", found), ("ddp", ddp), ("fsdp", fsdp))
    }


class FullDisk:
    """Asks for one tensor and then has no room."""

    def save(self, tensors: Mapping[str, Tensor], plain: dict[str, Any]) -> None:
        next(iter(tensors.values())).detach()
        raise SmallfryError("no room")

    def load(self, before: int | None = None) -> RunState | None:
        return None


def full_disk(world: World, split: bool) -> None:
    model = fresh()
    optimizer = ShardedOptimizer(shard(model, world), world, **SETTINGS) if split else Optimizer(model, **SETTINGS)
    SharedSaves(FullDisk(), world).save(optimizer.state()[0], {"step": 0})


def error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except SmallfryError as error:
        return str(error)
    return ""


def check_sharded_weights(world: World) -> dict[str, bool]:
    """That a model comes back whole, in its precision."""
    model = shard(fresh(torch.bfloat16), world)
    back = whole(model, world)
    pairs = zip(back.parameters(), fresh(torch.bfloat16).parameters(), strict=True)
    return {"whole": all(torch.equal(p, q) and p.dtype == q.dtype for p, q in pairs)}


def reinforce_some(world: World, tuned: Path, out: Path) -> Found:
    """What is drawn and rewarded, step by step, and what the model solves."""
    problems._COUNTS = FEW
    done = reinforce(tuned, ["arithmetic"], out, world=world, **REINFORCED | {"steps": 3})
    steps = [json.loads(line) for line in (out / "run" / "steps.jsonl").read_text().splitlines()]
    rows = [list(row) for row in done.rows()]
    return {"rewards": [step["reward"] for step in steps], "answers": done.answers, "rows": rows}


def lost_contact(world: World) -> str:
    """What process 0 says when the other one is gone."""
    world.barrier()
    if not world.main:
        os._exit(0)  # as if killed, but torchrun then leaves process 0 alone
    return error_of(lambda: [world.sum(1.0) for _ in range(2)])


def main(directory: Path) -> None:
    world = start(pin=False)  # other tests run beside this one
    found: dict[str, Any] = {"agreements": check_agreements(world), "gradients": check_gradients(world)}
    found |= check_sharded_weights(world)
    for name, split in (("copied", False), ("split", True)):
        found[name] = train_some(world, directory / f"{name} whole", split=split)
        found[f"{name} stopped"] = train_some(world, directory / name, split=split, until=HALF)
        found[f"{name} after one"] = train_some(world, directory / f"one for {name}", split=split, resume=True)
        found[f"{name} full disk"] = error_of(lambda split=split: full_disk(world, split))  # type: ignore[misc]
    found["reinforced"] = reinforce_some(world, directory / "solver", directory / "reinforced")
    drifted = torch.zeros(3) + world.rank
    found["drifted"] = error_of(lambda: SharedSaves(FullDisk(), world).save({"x": drifted}, {"step": 0}))
    (directory / f"found-{world.rank}.json").write_text(json.dumps(found))
    found["lost"] = lost_contact(world)
    (directory / "found-0.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
