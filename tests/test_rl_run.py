"""Reinforcing end to end: a directory, a record, the same bits after an interruption, refusals in one line."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from smallfry.errors import SmallfryError
from smallfry.files import read_json
from smallfry.train import Progress
from smallfry.tuning import problems, rollouts
from smallfry.tuning.record import Silent
from smallfry.tuning.reinforce import reinforce
from smallfry.tuning.reinforced import Reinforced, ReinforceSettings
from tests.tuning_models import FEW, REINFORCED, solver


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "_COUNTS", FEW)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return solver(tmp_path_factory.mktemp("models") / "tuned", 100)


@pytest.fixture(scope="module")
def whole(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reinforced]:
    patch = pytest.MonkeyPatch()
    patch.setattr(problems, "_COUNTS", FEW)
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = reinforce(tuned, ["arithmetic"], out, **REINFORCED)
    patch.undo()
    return out, done


class Stopping(Silent):
    """Terminates the process's run at a step, and remembers what it is told."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.steps, self.said, self.seen = at, 0, list[str](), list[str]()

    def say(self, text: str) -> None:
        self.said.append(text)

    def step(self, progress: Progress) -> None:
        self.steps += 1
        if progress.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)

    def measured(self, progress: Progress, found: str) -> None:
        self.seen.append(found)


def lines(out: Path) -> list[dict[str, Any]]:
    """The log of the steps, without what depends on the clock."""
    found = [json.loads(line) for line in (out / "run" / "steps.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "loading")} for line in found]


def test_a_reinforced_model_is_a_chat_model_that_says_where_it_is_from(
    tuned: Path, whole: tuple[Path, Reinforced]
) -> None:
    out, done = whole
    card = read_json(out / "smallfry.json")
    source = read_json(tuned / "smallfry.json")
    assert card["chat"] is True and card["form"] is None
    assert card["tuned_from"] == {"name": "tuned", "weights_sha256": source["weights_sha256"]} == done.tuned_from
    assert [step["name"] for step in card["lineage"]] == ["tuned"]
    assert card["reinforced"]["settings"]["samples"] == 6
    assert "right" not in card["reinforced"]["tests"]["test"]["before"]
    assert (done.steps, done.answers) == (6, sum(line["draws"] for line in lines(out)) * 36)
    assert [line["step"] for line in lines(out)] == list(range(6))
    assert [point["step"] for point in done.curve] == [3, 6]
    for point in done.curve:
        assert 0.0 <= point["more"]["train_reward"] <= 1.0 and "pass@4" in point["more"] and point["valid_loss"] is None
    found = done.tests["test"]
    assert found["before"].n == 20 and found["before"].any > 0.0 and found["before"].levels.keys() == {"1"}
    assert found["greedy"].difference == pytest.approx(found["after"].greedy - found["before"].greedy)
    assert found["drawn"].difference == pytest.approx(found["after"].drawn - found["before"].drawn)
    assert found["before"].any >= found["before"].drawn
    assert [row[0] for row in done.rows()] == ["test: likeliest answer", "test: pass@1, drawn", "test: pass@4"]
    assert Reinforced.from_dict(json.loads(json.dumps(done.to_dict()))) == done


def test_an_interrupted_run_goes_on_to_the_same_weights(
    tuned: Path, whole: tuple[Path, Reinforced], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done = whole
    with pytest.raises(SmallfryError, match=r"--resume --out") as error:
        reinforce(tuned, ["arithmetic"], tmp_path / "cut", watcher=Stopping(4), **REINFORCED)
    assert "\n" not in str(error.value) and not (tmp_path / "cut" / "model.safetensors").exists()
    asked: list[int] = []
    ask = rollouts.Answerer.ask

    def counted(self: rollouts.Answerer, *what: Any) -> Any:
        asked.append(len(what[0]))
        return ask(self, *what)

    monkeypatch.setattr(rollouts.Answerer, "ask", counted)
    watcher = Stopping()
    again = reinforce("", [], tmp_path / "cut", resume=True, watcher=watcher)
    assert watcher.steps == 2 and len(watcher.seen) == 1
    assert asked == [36, 36, 10, 40, 20, 80]  # two steps, the curve's last point, the test after; none before again
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert lines(tmp_path / "cut") == lines(out)
    assert again.tests == done.tests
    assert [p["more"] for p in again.curve] == [p["more"] for p in done.curve]


def test_a_finished_run_is_not_made_again_nor_overwritten(tuned: Path, whole: tuple[Path, Reinforced]) -> None:
    out, done = whole
    watcher = Stopping()
    assert reinforce("", [], out, resume=True, watcher=watcher) == done and watcher.steps == 0
    assert watcher.said == [f"{out}: is finished"]
    with pytest.raises(SmallfryError, match="holds a finished run"):
        reinforce(tuned, ["arithmetic"], out, **REINFORCED)
    with pytest.raises(SmallfryError, match="was begun with samples 6, not 8"):
        reinforce("", [], out, resume=True, samples=8)


def test_gsm8k_is_measured_beside(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The package's name of the module is the function's.
    monkeypatch.setattr(importlib.import_module("smallfry.tuning.reinforce"), "_GSM8K_NEW", 16)
    rows = [{"question": f"What is {i} plus 2?", "answer": f"#### {i + 2}", "split": "test"} for i in range(5)]
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = reinforce(tuned, ["arithmetic"], tmp_path / "out", gsm8k=str(path), **{**REINFORCED, "steps": 1, "kl": 0.01})
    assert done.tests["gsm8k"]["after"].n == 5 and done.steps == 1 and len(done.rows()) == 6


def test_other_weights_do_not_go_on(tuned: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tuned, model)
    with pytest.raises(SmallfryError):
        reinforce(model, ["arithmetic"], tmp_path / "out", watcher=Stopping(1), **REINFORCED)
    solver(model, 1)
    with pytest.raises(SmallfryError, match="has other weights than when the run was begun"):
        reinforce("", [], tmp_path / "out", resume=True)


def asked_for(path: Path, numbers: Sequence[int], split: str) -> Path:
    rows = [{"question": f"What is {i} plus 2?", "answer": f"#### {i + 2}", "split": split} for i in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("split", "other"), [("train", range(1, 21)), ("valid", range(100, 108)), ("test", range(200, 203))]
)
def test_other_problems_do_not_go_on(tuned: Path, tmp_path: Path, split: str, other: range) -> None:
    given = {"train": range(20), "valid": range(100, 120), "test": range(200, 220)}
    files = {name: tmp_path / f"{name}.jsonl" for name in given}
    sources = ["arithmetic", *(str(asked_for(files[name], numbers, name)) for name, numbers in given.items())]
    with pytest.raises(SmallfryError, match="interrupted"):
        reinforce(tuned, sources, tmp_path / "out", watcher=Stopping(1), **REINFORCED)
    asked_for(files[split], other, split)
    with pytest.raises(SmallfryError, match=r"test\.jsonl: has other problems than when the run was begun") as error:
        reinforce("", [], tmp_path / "out", resume=True)
    assert "\n" not in str(error.value)
    asked_for(files[split], given[split], split)
    assert reinforce("", [], tmp_path / "out", resume=True).steps == 6


def test_another_file_of_gsm8k_does_not_go_on(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("smallfry.tuning.reinforce"), "_GSM8K_NEW", 16)
    path = asked_for(tmp_path / "gsm8k.jsonl", range(5), "test")
    with pytest.raises(SmallfryError, match="interrupted"):
        reinforce(tuned, ["arithmetic"], tmp_path / "out", watcher=Stopping(1), gsm8k=str(path), **REINFORCED)
    asked_for(path, range(1, 6), "test")
    with pytest.raises(SmallfryError, match=r"gsm8k\.jsonl: has other problems than when the run was begun"):
        reinforce("", [], tmp_path / "out", resume=True)
    record = read_json(tmp_path / "out" / "reinforce.json")
    del record["data"]  # an earlier version's, which says only how many problems there were
    (tmp_path / "out" / "reinforce.json").write_text(json.dumps(record), encoding="utf-8")
    asked_for(path, range(6), "test")
    with pytest.raises(SmallfryError, match=r"gsm8k\.jsonl: has other problems than when the run was begun"):
        reinforce("", [], tmp_path / "out", resume=True)
    asked_for(path, range(5), "test")
    assert reinforce("", [], tmp_path / "out", resume=True).tests["gsm8k"]["after"].n == 5


def test_what_cannot_be_reinforced_is_refused_and_leaves_nothing(tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(SmallfryError, match="solves none of 20 problems in 4 tries each"):
        reinforce(solver(tmp_path / "blank", 0), ["arithmetic"], out, **REINFORCED)
    card = read_json(tuned / "smallfry.json")
    shutil.copytree(tuned, tmp_path / "job")
    (tmp_path / "job" / "smallfry.json").write_text(json.dumps({**card, "form": {"name": "text"}}))
    with pytest.raises(SmallfryError, match="is a job's model"):
        reinforce(tmp_path / "job", ["arithmetic"], out, **REINFORCED)
    with pytest.raises(SmallfryError, match="no question fits into"):
        reinforce(tuned, ["arithmetic"], out, **{**REINFORCED, "max_new": 126})
    with pytest.raises(SmallfryError, match="nothing to resume"):
        reinforce("", [], out, resume=True)
    assert not out.exists()


@pytest.mark.parametrize(("settings", "says"), [
    ({"model": ""}, "no model"), ({"problems": ()}, "no problems"), ({"levels": (0,)}, "expected some of 1 to 6"),
    ({"steps": 0}, "--steps 0"), ({"samples": 1}, "--samples 1"), ({"lr_scale": 0.0}, "--lr-scale 0"),
    ({"temperature": 0.0}, "--temperature 0"), ({"kl": -1.0}, "--kl -1"), ({"max_new": 0}, "--max-new 0"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SmallfryError, match=says) as error:
        ReinforceSettings(**{"model": "m", "problems": ("arithmetic",), **settings}).check()
    assert "\n" not in str(error.value)
