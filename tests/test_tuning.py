"""Tuning on conversations end to end: measured before and after, stopped and resumed the same bits, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import smallfry
from smallfry.cli import main
from smallfry.errors import SmallfryError
from smallfry.files import read_json
from smallfry.pretraining.plan import Line
from smallfry.train import Progress
from smallfry.tuning import tune
from smallfry.tuning.record import Silent, TuneSettings
from smallfry.tuning.start import open_model
from smallfry.writer import Writer
from tests.tuning_models import TEXT, TOKENIZER, exchanges, save, write_rows

HOW: dict[str, Any] = {"epochs": 16.0, "lr_scale": 1.0}


class Recorder(Silent):
    """Remembers what it is told; may do something at a step."""

    def __init__(self, at_step: int = 0, act: Callable[[], None] | None = None) -> None:
        self.said: list[str] = []
        self.data: dict[str, str] = {}
        self.lines: dict[str, Line] = {}
        self.found: list[str] = []
        self.shares: list[float] = []
        self.at_step, self.act = at_step, act

    def say(self, text: str) -> None:
        self.said.append(text)

    def read(self, lines: Sequence[tuple[str, str]]) -> None:
        self.data = dict(lines)

    def decided(self, lines: Sequence[Line]) -> None:
        self.lines = {line.name: line for line in lines}

    def step(self, progress: Progress) -> None:
        if self.act and progress.step == self.at_step:
            self.act()

    def measured(self, progress: Progress, found: str) -> None:
        self.found.append(found)
        self.shares.append(progress.done)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("chat") / "chat.jsonl", exchanges(160))


@pytest.fixture(scope="module")
def finished(model: Path, chat: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Recorder]:
    """One run that nothing happened to."""
    out, seen = tmp_path_factory.mktemp("runs") / "whole", Recorder()
    return out, tune(model, chat, out=out, watcher=seen, **HOW), seen


# ---- end to end -----------------------------------------------------------------------------------------------------


def test_held_out_answers_are_known_better_afterwards(finished: tuple[Path, Any, Recorder]) -> None:
    _, done, seen = finished
    assert done.kind == "chat" and done.before.n == done.after.n == 32
    assert done.after.loss < done.before.loss - 1.0 and done.better[0] > 0.5
    assert done.after.ci[0] < done.after.loss < done.after.ci[1]
    assert done.after.perplexity < done.before.perplexity
    assert done.curve[-1]["valid_loss"] == pytest.approx(done.after.loss, abs=1e-6)
    assert [p["step"] for p in done.curve][-1] == done.steps and len(done.curve) >= 4
    assert seen.shares[-1] == 1.0 and seen.shares == sorted(seen.shares) and len(seen.found) == len(done.curve)
    assert seen.lines["passes"].value == "16" and all(line.reason for line in seen.lines.values())
    assert seen.data["held out"] == "32 conversations" and any("before: held-out" in text for text in seen.said)


def test_the_directory_is_a_chat_model_that_says_where_it_comes_from(
    model: Path, finished: tuple[Path, Any, Recorder]
) -> None:
    out, done, _ = finished
    card, begun = read_json(out / "smallfry.json"), read_json(model / "smallfry.json")
    assert card["chat"] is True and card["form"] is None and card["name"] == "whole"
    assert card["tuned_from"] == {"name": "tiny", "weights_sha256": begun["weights_sha256"]} == done.tuned_from
    assert card["lineage"] == [{**card["tuned_from"], "by": "train"}]
    facts = card["tuning"]
    assert facts["before"]["loss"] == done.before.loss and facts["curve"] == done.curve
    assert facts["data"]["counts"]["conversations"] == 128 and len(facts["data"]["hashes"]["train"]) == 64
    assert facts["settings"]["epochs"] == 16.0 and read_json(out / "config.json")["max_position_embeddings"] == 64
    writer = Writer.load(out)
    assert writer.chats
    answer = writer.write(writer.chat_ids([("user", "what colour is the ball? 3")]), 12)
    assert answer.strip().startswith("the ") and answer.endswith(".")


def test_a_second_tuning_knows_both_before_it(chat: Path, finished: tuple[Path, Any, Recorder], tmp_path: Path) -> None:
    tune(finished[0], chat, out=tmp_path / "more", epochs=0.5)
    lineage = read_json(tmp_path / "more" / "smallfry.json")["lineage"]
    assert [step["name"] for step in lineage] == ["tiny", "whole"]
    assert lineage[1]["by"] == "tune" and lineage[1]["data"]["counts"]["conversations"] == 128


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_bits(
    model: Path, chat: Path, finished: tuple[Path, Any, Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    go_on = rf"interrupted: .*; go on with: smallfry tune --resume --out {out}"
    with pytest.raises(SmallfryError, match=go_on):
        tune(model, chat, out=out, watcher=Recorder(3, terminate), **HOW)
    with pytest.raises(SmallfryError, match=go_on):
        tune(out=out, resume=True, watcher=Recorder(17, terminate))

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("smallfry.tuning.run.summary", interrupt)
        with pytest.raises(SmallfryError, match=go_on):
            tune(out=out, resume=True)
    seen = Recorder()
    done = tune(out=out, resume=True, watcher=seen)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (out / name).read_bytes() == (finished[0] / name).read_bytes(), name
    assert (done.before, done.after, done.better) == (finished[1].before, finished[1].after, finished[1].better)
    assert [p["valid_loss"] for p in done.curve] == [p["valid_loss"] for p in finished[1].curve]
    assert tune(out=out, resume=True).to_dict() == done.to_dict()  # finished: told, not trained


def test_a_run_does_not_go_on_with_other_data_or_another_model(tmp_path: Path) -> None:
    model, data = save(tmp_path / "tiny"), write_rows(tmp_path / "chat.jsonl", exchanges(40))
    out = tmp_path / "run"
    with pytest.raises(SmallfryError, match="interrupted"):
        tune(model, data, out=out, watcher=Recorder(1, terminate), **HOW)
    write_rows(data, exchanges(41))
    with pytest.raises(SmallfryError, match="the data changed since the run was begun"):
        tune(out=out, resume=True)
    write_rows(data, exchanges(40))
    save(model, card={"name": "other"}, positions=64)
    other = open_model(str(model)).model
    other.norm.data += 1.0
    from smallfry.checkpoint import save_model

    save_model(model, other, TOKENIZER, {"name": "other", "form": None}, 64)
    with pytest.raises(SmallfryError, match="the model changed since the run was begun"):
        tune(out=out, resume=True)


def test_nothing_is_overwritten_unasked(
    model: Path, chat: Path, finished: tuple[Path, Any, Recorder], tmp_path: Path
) -> None:
    out = finished[0]
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(SmallfryError, match="holds a finished run; use --resume"):
        tune(model, chat, out=out, **HOW)
    with pytest.raises(SmallfryError, match=r"was begun with epochs 16\.0, not 7\.0"):
        tune(model, chat, out=out, resume=True, epochs=7.0)
    with pytest.raises(SmallfryError, match=r"was begun with data .*chat.jsonl, not other.jsonl"):
        tune(model, "other.jsonl", out=out, resume=True)
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    (tmp_path / "thesis.tex").write_text("mine")
    for force in (False, True):
        with pytest.raises(SmallfryError, match="is not empty and no tuning"):
            tune(model, chat, out=tmp_path, force=force, **HOW)
    with pytest.raises(SmallfryError, match="is the model that is to be tuned"):
        tune(out, chat, out=out, force=True)
    with pytest.raises(SmallfryError, match="nothing to resume"):
        tune(out=tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_a_forced_run_replaces_the_one_before(model: Path, chat: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = tune(model, chat, out=out, tokens=600)
    second = tune(model, chat, out=out, force=True, tokens=600, seed=1)
    assert first.steps == second.steps == 1 and first.after.loss != second.after.loss


def test_a_mistake_costs_no_earlier_model(model: Path, chat: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = tune(model, chat, out=out, tokens=600)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    for who, what, wrong, match in (
        (model, tmp_path / "typo.jsonl", {}, "no such file"), (tmp_path / "typo", chat, {}, "no such model"),
        (model, chat, {"seed": -1}, "--seed -1"), (model, chat, {"mix": "none:0.5"}, "no corpus"),
    ):  # fmt: skip
        with pytest.raises(SmallfryError, match=match):
            tune(who, what, out=out, force=True, **wrong)
        assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    assert tune(out=out, resume=True).to_dict() == done.to_dict()


def test_text_keeps_its_share(chat: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n\n".join(f"{t.strip()} {i}" for i, t in enumerate(TEXT)))
    smallfry.pretrain(text, out=tmp_path / "made", size="60k", vocab=300, tokens=2000, seq_len=48, skip="all")
    seen = Recorder()
    done = tune(tmp_path / "made", chat, out=tmp_path / "run", epochs=1.0, mix=f"{tmp_path / 'made'}:0.3", watcher=seen)
    assert seen.lines["text"].value == "30% of the tokens" and done.data["mix"].endswith("made:0.3")
    card = read_json(tmp_path / "run" / "smallfry.json")
    assert card["lineage"][0]["by"] == "pretrain" and card["lineage"][0]["corpus_sha256"]
    other = save(tmp_path / "other")
    with pytest.raises(SmallfryError, match="made with another tokenizer than the model's"):
        tune(other, chat, out=tmp_path / "no", mix=f"{tmp_path / 'made' / 'corpus'}:0.3")
    with pytest.raises(SmallfryError, match=r"--mix .*: no corpus"):
        tune(other, chat, out=tmp_path / "no", mix=f"{tmp_path}:0.3")
    assert not (tmp_path / "no").exists()


# ---- what bad input gets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"tokens": 0}, "--tokens 0: expected at least 1"),
        ({"limit": 0}, "--limit 0: expected at least 1"),
        ({"epochs": 0.0}, "--epochs 0: expected more than 0"),
        ({"epochs": 1.0, "tokens": 5}, "both say how long"),
        ({"lr_scale": -1.0}, "--lr-scale -1"),
        ({"seq_len": 4}, "--seq-len 4: expected 8"),
        ({"seq_len": 8}, "no exchange fits into 8 tokens"),
        ({"mix": "corpus"}, "--mix corpus: expected CORPUS:SHARE"),
        ({"mix": "corpus:1.5"}, "--mix corpus:1.5: expected"),
        ({"form": "verse"}, "--form verse: expected text"),
        ({"teacher_share": 0.0}, "--teacher-share 0"),
        ({"temperature": 0.0}, "--temperature 0"),
        ({"unlabelled": "x.jsonl"}, "--unlabelled: needs a --teacher"),
        ({"write": 5}, "--write: needs a --teacher"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(
    model: Path, chat: Path, tmp_path: Path, settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(SmallfryError, match=match) as caught:
        tune(model, chat, out=tmp_path / "run", **settings)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_models_that_cannot_be_tuned_are_refused(model: Path, chat: Path, tmp_path: Path) -> None:
    for name, match in (
        ("1m", "fresh weights know no words to converse in"),
        ("huge", "no such model directory and no size; sizes are 0.25m"),
        (str(tmp_path / "tinj"), "no such model directory and no size"),
        ("shipped:none", "shipped:none: no such model"),
    ):
        with pytest.raises(SmallfryError, match=match) as caught:
            tune(name, chat, out=tmp_path / "run")
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    foreign = save(tmp_path / "foreign", card={"imported_from": "elsewhere"})
    with pytest.raises(SmallfryError, match="its tokenizer has no tokens that mark turns"):
        tune(foreign, chat, out=tmp_path / "run")
    near = model.with_name("tini")
    with pytest.raises(SmallfryError, match=rf"did you mean {model}\?"):
        tune(near, chat, out=tmp_path / "run")
    for asked in ({}, {"model": model}):
        with pytest.raises(SmallfryError, match="no model and data"):
            tune(**asked)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    for text, match in (("{", "not readable"), ("[]", "not a record"), ('{"format": "smallfry-tune/1"}', "damaged")):
        (tmp_path / "tune.json").write_text(text)
        with pytest.raises(SmallfryError, match=match):
            tune(out=tmp_path, resume=True)


def test_settings_survive_the_record() -> None:
    asked = TuneSettings("m", ("a:1", "b"), epochs=2.5, teacher=("t",))
    from dataclasses import asdict

    assert TuneSettings.from_dict(json.loads(json.dumps(asdict(asked)))) == asked


# ---- the command ----------------------------------------------------------------------------------------------------


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("smallfry.machine.own_cores", lambda: 1)  # threads that share busy cores wait for each other
    monkeypatch.setattr(sys, "argv", ["smallfry", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_command_tells_what_it_does(
    model: Path, chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(["tune", str(model), str(chat), "--out", str(out), "--tokens", "2k", "--json"], monkeypatch) == 0
    text = capsys.readouterr().out
    for expected in (
        "conversations, by its columns messages", "128 conversations", "answers only", "held-out answers before",
        "held-out answers after", "95% interval", "perplexity", f"smallfry chat {out}",
    ):  # fmt: skip
        assert expected in text, expected
    last = json.loads(text.splitlines()[-1])
    assert last["out"] == str(out) and last["after"]["perplexity"] > 1 and last["commands"] == [f"smallfry chat {out}"]


def test_two_processes_tune_like_one(
    model: Path, chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["tune", str(model), str(chat), "--epochs", "4", "--lr-scale", "1", "--json"]
    assert run([*words, "--out", str(tmp_path / "one")], monkeypatch) == 0
    one = json.loads(capsys.readouterr().out.splitlines()[-1])
    command = [sys.executable, "-m", "smallfry", *words, "--processes", "2", "--out", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    two = json.loads(done.stdout.splitlines()[-1])  # once, by process 0
    assert two["steps"] == one["steps"] and two["tokens"] == one["tokens"]
    gain = one["before"]["loss"] - one["after"]["loss"]
    assert gain > 0.1 and two["after"]["loss"] == pytest.approx(one["after"]["loss"], abs=0.02 * gain)
    assert Writer.load(tmp_path / "two").chat_ids([("user", "hello")])


def test_options_of_the_other_kind_are_refused(
    model: Path, chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, match in (
        (["--samples", "4"], "--samples: belongs to --rl"),
        (["--rl", "--mix", "a:0.5"], "--mix: has no use with --rl"),
        (["--rl"], "--rl: where to?"),
        (["--rl", "--levels", "one"], "--levels one: expected numbers"),
    ):
        assert run(["tune", str(model), str(chat), *words], monkeypatch) == 2
        assert match in capsys.readouterr().err
