from __future__ import annotations

import json
import os

import pytest
import torch
from typer.testing import CliRunner

from smallfry import fused
from smallfry.bench import PARTS, Peaks, Step, TrainSpeed, measure_peaks, measure_training
from smallfry.cli import app
from smallfry.errors import SmallfryError
from smallfry.machine import stay_on_core, use_threads
from smallfry.sizes import Shape

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


@pytest.mark.parametrize(
    ("cores", "workers", "bound"),
    [({0, 1}, 2, [{0}, {1}]), ({3, 5}, 3, [{3}, {5}, {3}]), ({0, 1, 2}, 2, []), ({4}, 2, [])],
)
def test_workers_stay_on_cores_of_their_own_where_they_fill_the_machine(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], workers: int, bound: list[set[int]]
) -> None:
    chosen: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, core: chosen.append(core), raising=False)
    for index in range(workers):
        stay_on_core(index, workers)
    assert chosen == bound
