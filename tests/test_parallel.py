"""Several processes that train like one: replicas, split models, saves that fit any number of them."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallfry.builtin.stories import generate
from smallfry.data import Batch
from smallfry.errors import SmallfryError
from smallfry.machine import own_cores
from smallfry.pretraining.plan import make_plan, processes_for
from smallfry.training import parallel
from smallfry.training.parallel import World, start, take_cores
from smallfry.tuning import problems
from tests.parallel_run import HALF, STEPS, Found, reinforce_some, train_some
from tests.tuning_models import FEW, solver


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What one process found, then two under torchrun (`tests.parallel_run`), then one again."""
    path = tmp_path_factory.mktemp("parallel")
    torch.set_num_threads(1)
    alone = train_some(World(), path / "one whole")
    stopped = train_some(World(), path / "one", until=HALF)
    for name in ("copied", "split"):
        shutil.copytree(path / "one", path / f"one for {name}")
    solver(path / "solver", 100)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.parallel_run"]
    done = subprocess.run(
        [sys.executable, *command, str(path)], cwd=Path(__file__).parent.parent, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    two: Found = json.loads((path / "found-0.json").read_text())
    other: Found = json.loads((path / "found-1.json").read_text())
    after = {f"one after {name}": train_some(World(), path / name, resume=True) for name in ("copied", "split")}
    return two | {"one": alone, "one stopped": stopped, "other": other, "solver": str(path / "solver")} | after


def difference(a: list[float], b: list[float]) -> float:
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


# ---- two processes --------------------------------------------------------------------------------------------------


def test_processes_agree_on_numbers_and_tensors(found: Found) -> None:
    agreements = found["agreements"]
    assert agreements["threads"] == max(1, len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity") else 1)
    assert agreements["sums"] == [3.0, 1.0]
    assert agreements["any"] == [True, False] and agreements["same"] == [True, False]
    assert agreements["add"] == [3.0 * i for i in range(10)]


def test_summed_gradients_are_one_processs_and_distributed_data_parallels(found: Found) -> None:
    assert max(found["gradients"].values()) < 1e-5
    assert set(found["gradients"]) == {"ours", "ddp", "fsdp"}


@pytest.mark.parametrize("way", ["copied", "split"])
def test_two_processes_train_like_one(found: Found, way: str) -> None:
    """The claim is 1e-3 over 50 steps; in fp32 it is far less."""
    one = found["one"]
    assert len(one["losses"]) == STEPS and one["finished"]
    assert one["losses"][-1] < one["losses"][0] / 2  # there was something to learn
    assert difference(found[way]["losses"], one["losses"]) < 1e-4
    assert difference(found[way]["measured"], one["measured"]) < 1e-4 and len(one["measured"]) == 3
    assert found[way]["average"] == pytest.approx(one["average"], abs=1e-4) == one["measured"][-1]


@pytest.mark.parametrize("way", ["copied", "split"])
def test_saves_of_one_and_two_processes_are_the_same_saves(found: Found, way: str) -> None:
    rest = found["one"]["losses"][HALF:]
    for name in (f"{way} after one", f"one after {way}"):
        assert found[name]["first"] == HALF + 1 and found[name]["finished"]
        assert difference(found[name]["losses"], rest) < 1e-4


@pytest.mark.parametrize("way", ["copied", "split"])
def test_a_stop_that_one_process_hears_stops_both_after_the_same_step(found: Found, way: str) -> None:
    for process in (found, found["other"]):
        assert not process[f"{way} stopped"]["finished"] and len(process[f"{way} stopped"]["losses"]) == HALF


@pytest.mark.parametrize("way", ["copied", "split"])
def test_all_processes_have_the_same_numbers_and_a_whole_model(found: Found, way: str) -> None:
    assert found[way] == found["other"][way]
    assert found[way]["whole"] and found["whole"] is True


def test_two_processes_reinforce_like_one(found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "_COUNTS", FEW)  # what follows sets it
    one, two = reinforce_some(World(), Path(found["solver"]), tmp_path / "one"), found["reinforced"]
    assert two == found["other"]["reinforced"]
    assert len(two["rewards"]) == 3 and 0 < two["rewards"][0] < 1
    # The first answers are drawn by the same weights; then gradients are summed in another order and weights drift.
    assert two["rewards"][0] == one["rewards"][0] and two["answers"] == one["answers"]
    assert [row[:2] for row in two["rows"]] == [row[:2] for row in one["rows"]]


def test_what_stops_one_process_stops_all_with_one_line(found: Found) -> None:
    for way in ("copied", "split"):
        assert found[f"{way} full disk"] == "no room"
        assert found["other"][f"{way} full disk"] == "process 0 could not save; its message says why"
    assert found["drifted"] == found["other"]["drifted"] != ""
    assert found["lost"].startswith("process 0 of 2: lost contact with the others (") and "onnection" in found["lost"]
    assert "\n" not in found["lost"] and ".cc" not in found["lost"]


# ---- one process ----------------------------------------------------------------------------------------------------


def make_batch(rows: int) -> Batch:
    rng = np.random.default_rng(rows)
    ids = rng.integers(100, size=(rows, 6))
    return Batch(ids[:, :-1], ids[:, 1:], rng.random((rows, 5)).astype(np.float32) + 0.1, np.arange(rows))


@given(st.integers(1, 12), st.integers(1, 5))
def test_every_row_counts_in_exactly_one_process(rows: int, size: int) -> None:
    batch = make_batch(rows)
    parts = [World(rank, size, device=torch.device("cpu")).share(batch) for rank in range(size)]
    assert {part.ids.shape for part in parts} == {(math.ceil(rows / size), 5)}
    counted = [(int(r), w.tolist()) for part in parts for r, w in zip(part.rows, part.weights, strict=True) if w.any()]
    assert sorted(counted) == [(r, batch.weights[r].tolist()) for r in range(rows)]
    for part in parts:
        assert np.array_equal(part.ids, batch.ids[part.rows]) and np.array_equal(part.targets, batch.targets[part.rows])
    assert batch.weights.all()  # the batch itself is as it was


def test_one_process_alone_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    world = start()
    assert (world.rank, world.size, world.main) == (0, 1, True)
    batch, flat = make_batch(3), torch.arange(4.0)
    assert world.share(batch) is batch
    assert world.add(flat) is flat and flat.tolist() == [0, 1, 2, 3]
    assert world.sums(1.0, 2.0) == [1.0, 2.0] and world.sum(0.3) == 0.3
    assert world.any(True) and not world.any(False) and world.same(1.0)
    world.barrier()
    world.quiet()
    world.close()
    print("still heard")  # noqa: T201


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE='two': expected a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set"),
        (
            {
                "WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
                "MASTER_PORT": "1",
            },
            "RANK 2 of WORLD_SIZE 2",
        ),
    ],
)  # fmt: skip
def test_a_broken_environment_is_one_line(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SmallfryError) as error:
        start()
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("cores", "processes", "shares"),
    [
        ({0, 1}, 2, [[0], [1]]),
        ({4, 5, 6, 7, 8}, 2, [[4, 5], [6, 7]]),  # the same number in each: sums over threads round alike
        ({3}, 3, [[3], [3], [3]]),
    ],
)
def test_processes_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], processes: int, shares: list[list[int]]
) -> None:
    bound: list[list[int]] = []
    threads: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, mine: bound.append(mine), raising=False)
    monkeypatch.setattr(parallel, "use_threads", threads.append)
    assert [take_cores(rank, processes) for rank in range(processes)] == shares == bound
    assert threads == [len(share) for share in shares]


def smallfry(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smallfry", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_one_command_trains_in_two_processes_and_says_errors_in_lines(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(r.output for r in generate(0, 200, 0, 0)[0]), encoding="utf-8")
    options = {"size": "60k", "vocab": "300", "tokens": "4k", "seq-len": "64", "processes": "2", "out": "made"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = smallfry("pretrain", "text.txt", *words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["params"] > 50_000  # once, by process 0
    assert done.stdout.count("held-out text:") == 1 and (tmp_path / "made" / "model.safetensors").exists()
    again = smallfry("pretrain", "text.txt", *words, cwd=tmp_path)
    assert again.returncode == 2 and "holds a finished run" in again.stderr and "Traceback" not in again.stderr


def test_by_itself_a_long_run_takes_a_process_a_core(tmp_path: Path) -> None:
    if own_cores() < 2:
        pytest.skip("needs two cores")
    (tmp_path / "text.txt").write_text("\n\n".join(r.output for r in generate(0, 200, 0, 0)[0]), encoding="utf-8")
    words = "smallfry pretrain text.txt --size 60k --vocab 300 --tokens 4k --seq-len 64 --out made --json"
    script = f"""
import sys
from smallfry.pretraining import plan
plan.PROCESSES_PAY = 0.0
sys.argv = {words.split()!r}
from smallfry.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"processes: {own_cores()}; one on each core" in done.stdout
    assert done.stdout.count("Plan") == done.stdout.count("held-out text:") == 1
    assert json.loads(done.stdout.splitlines()[-1])["params"] > 50_000


@pytest.mark.parametrize(
    ("cores", "tokens", "seq_len", "expected"),
    [(2, 40_000_000, 256, 2), (1, 40_000_000, 256, 1), (2, 1_000_000, 256, 1), (3, 40_000_000, 512, 1)],
)
def test_short_runs_and_batches_that_do_not_divide_keep_to_threads(
    cores: int, tokens: int, seq_len: int, expected: int
) -> None:
    plan = make_plan("1m", 2048, "as asked", 10_000_000, seq_len, tokens, 0)
    chosen, why = processes_for(plan, cores, 4e11)
    assert chosen == expected and ("threads" in why or chosen > 1 or cores == 1)
