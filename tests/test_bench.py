from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from smallfry import fused, machine
from smallfry.bench import PARTS, Peaks, Step, TrainSpeed, measure_peaks, measure_training
from smallfry.cli import app
from smallfry.data import Batch
from smallfry.errors import SmallfryError
from smallfry.machine import use_threads
from smallfry.model import Transformer
from smallfry.sizes import Shape, shape_for
from smallfry.train import Recipe, train

SHAPE = Shape(64, 32, 2, 2, 1, 16, 48, True, True)
PEAKS = Peaks(4e11, 1e11)


def test_a_row_says_speed_share_memory_and_what_limits_it() -> None:
    row = measure_training("tiny", SHAPE, 256, 64, seconds=0.05, peaks=PEAKS)
    assert row.tokens == 256 and row.params == SHAPE.params
    assert row.flops_per_second == pytest.approx(row.tokens_per_second * SHAPE.flops_per_token(64))
    assert row.bf16_share == pytest.approx(row.flops_per_second / 4e11)
    assert row.fp32_share == pytest.approx(row.flops_per_second / 1e11)
    assert set(row.parts) == set(PARTS) and sum(row.parts.values()) == pytest.approx(1.0)
    assert row.parts["matrix products"] > 0 and row.parts["optimizer"] > 0
    assert row.memory_bytes > 50e6
    assert max(row.parts, key=lambda part: row.parts[part]) in row.limit


@pytest.mark.skipif(not fused.available(), reason="libfry has no kernels for this machine")
def test_every_fused_part_is_found_by_its_name() -> None:
    row = measure_training("tiny", SHAPE, 256, 64, seconds=0.05, peaks=PEAKS)
    assert row.kernels != "PyTorch"
    assert all(row.parts[part] > 0 for part in ("attention", "norms", "activation", "loss"))


def test_shares_are_of_all_threads_and_unknown_without_native_bf16() -> None:
    row = TrainSpeed("x", 1, 1, 1, 1, 2, "float32", "avx2", 1.0, 1e11, Peaks(None, 1e11), 1, {"loss": 1.0})
    assert row.bf16_share is None and row.fp32_share == pytest.approx(0.5)
    assert row.limit == "loss 100%"


def test_peaks_are_of_one_core_and_leave_the_threads_alone() -> None:
    before = torch.get_num_threads()
    peaks = measure_peaks(seconds=0.005)
    assert peaks.fp32 > 1e8 and (peaks.bf16 is None or peaks.bf16 > 1e8)
    assert torch.get_num_threads() == before


def test_micro_batches_are_the_same_step() -> None:
    """Rows of the same draw cut otherwise: the gradient is that of the whole step."""
    whole, parts = Step(SHAPE, 64 * 3, 64, 64 * 3), Step(SHAPE, 64 * 3, 64, 64)
    assert whole.tokens == parts.tokens == 192
    assert whole() > 0 and parts() > 0
    assert parts.optimizer.steps == 1


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    measure_training("tiny", SHAPE, 128, 64, threads=2, seconds=0.01, peaks=PEAKS)
    assert torch.get_num_threads() == before
    use_threads(before)


def test_a_step_without_a_row_is_refused() -> None:
    with pytest.raises(SmallfryError, match="hold no row of 256"):
        Step(SHAPE, 100, 256, 100)


def test_the_command_prints_a_table_and_json() -> None:
    arguments = "bench train --sizes 60k --vocab 256 --tokens 256 --seq-len 64 --seconds 0.1 --json"
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 0, result.output
    assert "tokens/s" in result.stdout and "one core multiplies matrices at" in result.stdout
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["rows"][0]["name"] == "60k" and found["peaks"]["fp32"] > 0


Shares = tuple[set[int], int]


@pytest.mark.parametrize(
    ("cores", "workers", "alone", "beside"),
    [
        ({0, 1}, 2, ({0, 1}, 2), ({1}, 1)),
        ({3, 5}, 3, ({3, 5}, 2), ({3}, 1)),
        ({0, 1, 2}, 2, ({0, 1, 2}, 2), ({0, 1, 2}, 1)),
        ({4}, 2, ({4}, 1), ({4}, 1)),
    ],
)
def test_a_worker_has_a_core_of_its_own_and_alone_all_that_the_workers_may_use(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], workers: int, alone: Shares, beside: Shares
) -> None:
    now = watched(monkeypatch, cores)
    share = machine.CoreShare(workers - 1, workers)
    assert (now["cores"], now["threads"]) == beside
    steps(share, 1, 30, {1: 0.1, 2: 0.06})
    assert (now["cores"], now["threads"]) == alone
    steps(share, 2, 1, {1: 0.1, 2: 0.06})
    assert (now["cores"], now["threads"]) == beside
    share.begin()
    assert now["threads"] == 1


def test_threads_that_are_slower_than_one_are_given_up_and_tried_again_ever_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = watched(monkeypatch, {0, 1})
    share = machine.CoreShare(0, 2)
    seen = steps(share, 1, 2000, {1: 0.1, 2: 0.5})
    assert now["threads"] in (1, 2) and 0.01 < seen.count(2) / len(seen) < 0.04
    begun = [i for i in range(1, len(seen)) if seen[i - 1 : i + 1] == [1, 2]]
    gaps = np.diff(begun)
    assert len(begun) >= 3 and (gaps[1:] > 1.5 * gaps[:-1]).all()
    seen = steps(share, 1, 2000, {1: 0.1, 2: 0.06})  # the other program has ended
    assert seen[-500:] == [2] * 500


def watched(monkeypatch: pytest.MonkeyPatch, cores: set[int]) -> dict[str, Any]:
    now: dict[str, Any] = {"cores": set(cores)}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, mine: now.update(cores=mine), raising=False)
    monkeypatch.setattr(machine, "use_threads", lambda count: now.update(threads=count))
    return now


def steps(share: machine.CoreShare, busy: int, count: int, seconds: dict[int, float]) -> list[int]:
    found = []
    for _ in range(count):
        found.append(share.threads)
        share.after_step(busy, 2048.0, seconds[share.threads])
    return found


def test_threads_that_come_and_go_leave_the_same_bits() -> None:
    text = torch.randint(300, (6, 65), generator=torch.Generator().manual_seed(1)).numpy()
    batch = Batch(text[:, :-1], text[:, 1:], np.ones((6, 64), dtype=np.float32), np.arange(6))

    class Same:
        def epoch(self, epoch: int) -> list[Batch]:
            return [batch] * 6

    def trained(threads: tuple[int, ...]) -> torch.Tensor:
        model = Transformer(shape_for("60k", 300), 0.1)
        model.init_weights(torch.Generator().manual_seed(0))
        model = model.to(machine.compute_dtype(torch.device("cpu")))
        before = torch.get_num_threads()
        try:
            train(model, Same(), Recipe(epochs=1), watch=lambda p: machine.use_threads(threads[p.step % len(threads)]))
        finally:
            use_threads(before)
        return torch.cat([p.detach().flatten().float() for p in model.parameters()])

    assert torch.equal(trained((1,)), trained((1, 2)))
