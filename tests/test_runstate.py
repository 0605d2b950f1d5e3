"""Run states: whichever moment a process ends at, and whatever happens to the files, at most one save is lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from smallfry.errors import SmallfryError
from smallfry.training import runstate
from smallfry.training.runstate import MemorySaves, load_state, remove_states, save_state

SIZE = 5000


def tensors(step: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return {"w": torch.randn(SIZE, generator=draw), "half": torch.randn(3, 4, generator=draw).bfloat16()}


def save(path: Path, step: int, **more: object) -> None:
    save_state(path, tensors(step), {"step": step, **more})


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in expected)


def loaded(path: Path) -> int:
    """The step of the save that is read; its tensors are that step's."""
    found = load_state(path)
    assert found is not None
    step = found.plain["step"]
    assert same(found.tensors, tensors(step))
    return int(step)


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def pair(step: int) -> list[str]:
    return [f"state-{step}.json", f"state-{step}.safetensors"]


# ---- what is saved is what is read ----------------------------------------------------------------------------------


def test_everything_comes_back_to_the_bit(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
    held = {f"kind {kind}": torch.arange(7).to(kind) for kind in kinds}
    held |= {"flag": torch.tensor([True, False]), "scalar": torch.tensor(1.5), "empty": torch.empty(0, 4)}
    held |= {"turned": torch.randn(3, 5).t(), "öä": torch.ones(1)}
    plain = {
        "step": 12,
        "loss": 0.1 + 0.2,
        "pair": (1, 2),
        7: "seven",
        "nothing": None,
        "odd": float("inf"),
        "ü": "\ud800",
    }
    save_state(tmp_path, held, plain)
    found = load_state(tmp_path)
    assert found is not None and found.note == ""
    assert same(found.tensors, held) and same(load_file(tmp_path / "state-12.safetensors"), held)
    assert found.plain == json.loads(json.dumps(plain))


def test_no_directory_and_an_empty_one_hold_no_save(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    assert load_state(tmp_path / "none") is None


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text("{}", encoding="utf-8")
    for step in (0, 3, 20, 100):
        save(tmp_path, step)
    assert names(tmp_path) == ["outcome.json", *sorted(pair(20) + pair(100))]
    assert loaded(tmp_path) == 100
    remove_states(tmp_path)
    assert names(tmp_path) == ["outcome.json"]


def test_a_run_that_starts_again_or_goes_back_leaves_no_later_save(tmp_path: Path) -> None:
    for step in (300, 400):
        save(tmp_path, step)
    save(tmp_path, 350)
    assert names(tmp_path) == sorted(pair(300) + pair(350))
    save(tmp_path, 0)
    assert names(tmp_path) == pair(0)


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 5, rollbacks=0)
    save(tmp_path, 5, rollbacks=1)
    found = load_state(tmp_path)
    assert found is not None and found.plain["rollbacks"] == 1 and names(tmp_path) == pair(5)
    save_state(tmp_path, tensors(6), {"step": 5})
    found = load_state(tmp_path)
    assert found is not None and same(found.tensors, tensors(6))


@pytest.mark.parametrize(("before", "expected"), [(None, 40), (40, 40), (39, 30), (30, 30), (29, 30), (0, 30)])
def test_a_save_from_before_a_step_is_preferred(tmp_path: Path, before: int | None, expected: int) -> None:
    memory = MemorySaves()
    for step in (20, 30, 40):
        save(tmp_path, step)
        memory.save(tensors(step), {"step": step})
    for found in (load_state(tmp_path, before), memory.load(before)):
        assert found is not None and found.plain["step"] == expected and same(found.tensors, tensors(expected))


# ---- damage ---------------------------------------------------------------------------------------------------------


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def noise(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 8)


def nested(file: Path) -> None:
    file.write_text("[" * 100_000, encoding="utf-8")


def number(file: Path) -> None:
    file.write_text("17", encoding="utf-8")


def another_position(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace('"index": 7', '"index": 8')
    assert '"index": 8' in text
    file.write_text(text, encoding="utf-8")


def another_file(file: Path) -> None:
    file.write_bytes(file.with_name("state-10.json").read_bytes())


DAMAGE = [
    *[(how, "safetensors") for how in (cut, empty, flip, noise, Path.unlink)],
    *[(how, "json") for how in (cut, empty, flip, noise, nested, number, another_position, another_file)],
]


@pytest.mark.parametrize(("how", "suffix"), DAMAGE)
def test_a_damaged_save_costs_one_save(tmp_path: Path, how: Callable[[Path], None], suffix: str) -> None:
    for step in (10, 20):
        save(tmp_path, step, index=7)
    how(tmp_path / f"state-20.{suffix}")
    found = load_state(tmp_path)
    assert found is not None and found.plain["step"] == 10 and same(found.tensors, tensors(10))
    assert "state-20" in found.note and "going on from step 10" in found.note and "\n" not in found.note
    save(tmp_path, 15)
    assert names(tmp_path) == sorted(pair(10) + pair(15))


@pytest.mark.parametrize(("how", "suffix"), DAMAGE)
def test_only_two_damaged_saves_are_an_error(tmp_path: Path, how: Callable[[Path], None], suffix: str) -> None:
    for step in (10, 20):
        save(tmp_path, step, index=7)
    how(tmp_path / f"state-20.{suffix}")
    cut(tmp_path / f"state-10.{suffix}")
    with pytest.raises(SmallfryError, match=r"no save is whole .*--force") as caught:
        load_state(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("left", ["state-30.safetensors", "state-30.safetensors.part", "state-30.json.part"])
def test_an_unfinished_save_is_noted_and_swept_away(tmp_path: Path, left: str) -> None:
    for step in (10, 20):
        save(tmp_path, step)
    (tmp_path / left).write_bytes(b"half")
    found = load_state(tmp_path)
    assert found is not None and found.plain["step"] == 20
    assert "step 30 was cut short" in found.note
    save(tmp_path, 25)
    assert names(tmp_path) == sorted(pair(20) + pair(25))


def test_what_another_version_wrote_is_an_error_not_a_new_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.json").write_text('{"step": 4}', encoding="utf-8")
    with pytest.raises(SmallfryError, match="older smallfry"):
        load_state(tmp_path)
    save(tmp_path, 10)
    monkeypatch.setattr(runstate, "FORMAT", "smallfry-run/9")
    save(tmp_path, 20)
    monkeypatch.undo()
    with pytest.raises(SmallfryError, match=r"state-20\.json: written by another version"):
        load_state(tmp_path)


# ---- ends at any moment ---------------------------------------------------------------------------------------------


class Dead(BaseException):
    """The process ended here."""


def count_of(patch: pytest.MonkeyPatch, limit: int, error: Callable[[], BaseException], forever: bool) -> list[int]:
    """Make the operation of number ``limit`` that touches the disk fail, and all later ones if ``forever``."""
    done = [0]

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            done[0] += 1
            if done[0] == limit or (forever and done[0] > limit):
                raise error()
            return real(*args, **kwargs)

        return operation

    for owner, name in ((Path, "open"), (Path, "replace"), (Path, "unlink"), (os, "fsync")):
        patch.setattr(owner, name, failing(getattr(owner, name)))
    return done


@pytest.mark.parametrize("new", [10, 25, 20])
def test_a_process_that_ends_at_any_operation_leaves_a_whole_save(tmp_path: Path, new: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        save(tmp_path / "0", 10)
        done = count_of(patch, 0, Dead, False)
        save(tmp_path / "0", new)
        operations = done[0]
    assert operations > 8
    for limit in range(1, operations + 1):
        path = tmp_path / str(limit)
        for step in (10, 20):
            save(path, step)
        with pytest.MonkeyPatch.context() as patch:
            count_of(patch, limit, Dead, True)
            with pytest.raises(Dead):
                save(path, new)
        assert loaded(path) in {10, 20, new}
        save(path, 30)
        assert loaded(path) == 30 and not list(path.glob("*.part"))


def no_space() -> OSError:
    return OSError(28, "No space left on device")


def test_no_space_at_any_operation_leaves_the_saves_before(tmp_path: Path) -> None:
    refused = 0
    for limit in range(1, 12):
        path = tmp_path / str(limit)
        for step in (10, 20):
            save(path, step)
        with pytest.MonkeyPatch.context() as patch:
            count_of(patch, limit, no_space, False)
            try:
                save(path, 30)
            except SmallfryError as error:
                refused += 1
                assert "cannot save step 30 (No space left on device)" in str(error) and "\n" not in str(error)
                assert f"the save of step {loaded(path)} is intact" in str(error)
        assert loaded(path) in {20, 30} and not list(path.glob("*.part"))
    assert refused > 4


def test_a_file_system_that_takes_no_more_leaves_the_saves_before(tmp_path: Path) -> None:
    for step in (10, 20):
        save(tmp_path, step)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, hard))  # the write really stops half way
        with pytest.raises(SmallfryError, match=r"cannot save step 30 .*step 20 is intact.*--resume"):
            save(tmp_path, 30)
        with pytest.raises(SmallfryError, match="nothing was saved before"):
            save(tmp_path / "new", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before
    assert names(tmp_path / "new") == []


def test_a_place_that_is_no_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SmallfryError, match="cannot save step 1") as caught:
        save(tmp_path / "file", 1)
    assert "\n" not in str(caught.value)


# ---- in memory ------------------------------------------------------------------------------------------------------


def test_a_save_in_memory_does_not_change_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemorySaves()
    assert memory.load() is None
    held, notes = tensors(1), ["one"]
    memory.save(held, {"step": 1, "notes": notes})
    held["w"].zero_()
    notes.append("two")
    for _ in range(2):
        found = memory.load()
        assert found is not None and same(found.tensors, tensors(1)) and found.plain["notes"] == ["one"]
        found.tensors["w"].zero_()  # what was read is not what is kept
    monkeypatch.setattr(runstate, "_LARGEST_IN_MEMORY", 100)
    memory.save(tensors(2), {"step": 2})
    found = memory.load()
    assert found is not None and found.plain["step"] == 1


# ---- for real -------------------------------------------------------------------------------------------------------


def test_five_kills_change_nothing() -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "tests.kills", "--kills", "5"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["equal"] and found["kills"] == found["restarts"] == 5
