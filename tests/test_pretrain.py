"""Pretraining end to end: every setting derived and told, killed and resumed the same bits, nothing overwritten."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import smallfry
from smallfry import cli_train
from smallfry.builtin.stories import generate
from smallfry.corpus.build import Progress as CorpusProgress
from smallfry.errors import SmallfryError
from smallfry.evals.suites.models import load_language_model
from smallfry.evals.suites.text import bits_per_byte, read_documents
from smallfry.files import read_json
from smallfry.pretraining import pretrain
from smallfry.pretraining.plan import Line, Plan, choose_vocab, make_plan
from smallfry.pretraining.record import Pretrained, Silent
from smallfry.pretraining.run import directory_of
from smallfry.sizes import RUNGS, shape_for
from smallfry.train import Progress

STORIES = [row.output for row in generate(0, 400, 0, 0)[0]]
TINY: dict[str, Any] = {"size": "60k", "vocab": 320, "tokens": 20_000, "seq_len": 64}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "tales.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in STORIES) + "\n")
    return path


class Recorder(Silent):
    """Remembers what it is told; may do something at a step or at a document."""

    def __init__(self, at_step: int = 0, at_document: int = 0, act: Callable[[], None] | None = None) -> None:
        self.said: list[str] = []
        self.lines: dict[str, Line] = {}
        self.bits: list[float] = []
        self.shares: list[float] = []
        self.at_step, self.at_document, self.act = at_step, at_document, act

    def say(self, text: str) -> None:
        self.said.append(text)

    def decided(self, lines: Sequence[Line]) -> None:
        self.lines = {line.name: line for line in lines}

    def made(self, progress: CorpusProgress) -> None:
        if self.act and self.at_document and progress.documents >= self.at_document:
            self.act()

    def step(self, progress: Progress) -> None:
        if self.act and progress.step == self.at_step:
            self.act()

    def measured(self, progress: Progress, bits: float) -> None:
        self.bits.append(bits)
        self.shares.append(progress.done)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Recorder]:
    """One run that nothing happened to."""
    out, seen = tmp_path_factory.mktemp("runs") / "whole", Recorder()
    return out, pretrain(corpus, out=out, watcher=seen, **TINY), seen


# ---- end to end -----------------------------------------------------------------------------------------------------


def test_a_model_is_trained_and_measured(finished: tuple[Path, Any, Recorder]) -> None:
    out, done, seen = finished
    assert done.tokens == 20_480 and done.steps == 5 and done.params == shape_for("60k", 320).params
    assert done.held_out.documents == done.held_out.total and 20 < done.held_out.documents < 80
    assert done.bits_per_byte < done.held_out.unigram + 0.5 < 5 and seen.bits == sorted(seen.bits, reverse=True)
    assert done.held_out.ci[0] < done.bits_per_byte < done.held_out.ci[1]
    assert seen.shares[-1] == 1.0 and [p["step"] for p in done.curve] == [2, 4, 5]
    card = read_json(out / "smallfry.json")
    facts = card["pretraining"]
    assert card["form"] is None and facts["bits_per_byte"] == done.bits_per_byte and facts["settings"]["size"] == "60k"
    assert facts["corpus"]["sources"][0]["counts"]["documents"] == 400 and len(facts["corpus"]["sha256"]) == 64
    assert [line["name"] for line in facts["lines"]] == list(seen.lines) and all(x.reason for x in seen.lines.values())
    assert seen.lines["tokens"].value == "20,480" and seen.lines["vocabulary"].reason == "as asked"
    assert read_json(out / "config.json")["max_position_embeddings"] == 64


def test_the_model_directory_is_used_like_any_other(finished: tuple[Path, Any, Recorder]) -> None:
    out, done, _ = finished
    assert smallfry.load(out)("Once upon a time").strip()
    found = bits_per_byte(load_language_model(out), read_documents(out / "corpus" / "held-out.jsonl"))
    assert found.score == pytest.approx(done.bits_per_byte, abs=0.01)  # bf16 there, fp32 here
    assert done.to_dict()["commands"][-1].endswith(f"--suite bpb --text {out}/corpus/held-out.jsonl")


def test_a_run_that_is_stopped_in_every_stage_ends_with_the_same_bits(
    corpus: Path, finished: tuple[Path, Any, Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smallfry.corpus.build.WATCH_EVERY", 1)
    out = tmp_path / "run"
    go_on = rf"interrupted: .*; go on with: smallfry pretrain --resume --out {out}"
    with pytest.raises(SmallfryError, match=go_on):
        pretrain(corpus, out=out, watcher=Recorder(at_document=150, act=terminate), **TINY)
    with pytest.raises(SmallfryError, match=go_on):
        pretrain(out=out, resume=True, watcher=Recorder(at_step=2, act=terminate))
    with pytest.raises(SmallfryError, match=go_on):
        pretrain(out=out, resume=True, watcher=Recorder(at_step=4, act=terminate))

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("smallfry.pretraining.run.measure", interrupt)
        with pytest.raises(SmallfryError, match=go_on):
            pretrain(out=out, resume=True)
    done = pretrain(out=out, resume=True)
    for name in ("model.safetensors", "tokenizer.json", "config.json", "corpus/00000.bin", "corpus/held-out.jsonl"):
        assert (out / name).read_bytes() == (finished[0] / name).read_bytes(), name
    assert done.held_out == finished[1].held_out
    assert [p["bits_per_byte"] for p in done.curve] == [p["bits_per_byte"] for p in finished[1].curve]
    again = pretrain(out=out, resume=True)  # finished: told, not trained
    assert again.to_dict() == done.to_dict()


def test_nothing_is_overwritten_unasked(corpus: Path, finished: tuple[Path, Any, Recorder], tmp_path: Path) -> None:
    out = finished[0]
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(SmallfryError, match="holds a finished run; use --resume"):
        pretrain(corpus, out=out, **TINY)
    with pytest.raises(SmallfryError, match="was begun with size 60k, not 80k"):
        pretrain(corpus, out=out, resume=True, size="80k")
    with pytest.raises(SmallfryError, match=r"was begun with corpora .*tales.jsonl, not other.txt"):
        pretrain("other.txt", out=out, resume=True)
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    (tmp_path / "thesis.tex").write_text("mine")
    for force in (False, True):
        with pytest.raises(SmallfryError, match="is not empty and no pretraining"):
            pretrain(corpus, out=tmp_path, force=force, **TINY)
    with pytest.raises(SmallfryError, match="nothing to resume"):
        pretrain(out=tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_forced_runs_keep_the_corpus_that_fits_and_replace_the_rest(
    corpus: Path, finished: tuple[Path, Any, Recorder], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    short = TINY | {"tokens": 4096}
    pretrain(corpus, out=out, **short)
    before = (out / "corpus" / "00000.bin").stat().st_mtime_ns
    seeded = pretrain(corpus, out=out, force=True, seed=1, **short)
    assert (out / "corpus" / "00000.bin").stat().st_mtime_ns == before and seeded.steps == 1
    pretrain(corpus, out=out, force=True, **(short | {"vocab": 300}))
    assert read_json(out / "config.json")["vocab_size"] == 300


def test_a_mistake_costs_no_earlier_run(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain(corpus, out=out, **(TINY | {"tokens": 4096}))
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    for words, wrong, match in (
        (tmp_path / "typo.txt", {}, "no such file"), (corpus, {"size": "10k"}, "10k"),
        (corpus, {"tokenizer": str(tmp_path / "none.json")}, "none.json"), (corpus, {"seed": -1}, "--seed -1"),
    ):  # fmt: skip
        with pytest.raises(SmallfryError, match=match):
            pretrain(words, out=out, force=True, **(TINY | wrong))
        assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    assert pretrain(out=out, resume=True).steps == 1
    again = pretrain(corpus, out=out, force=True, **(TINY | {"tokens": 8192}))
    assert again.steps == 2 and not (out / ".before").exists()


def test_a_run_may_stand_in_the_folder_that_it_reads(tmp_path: Path, corpus: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "tales.jsonl").write_bytes(corpus.read_bytes())
    out = folder / "runs" / "a"
    first = pretrain(folder, out=out, **(TINY | {"tokens": 4096}))
    second = pretrain(folder, out=out, force=True, **(TINY | {"tokens": 4096}))
    assert first.corpus["sha256"] == second.corpus["sha256"]
    third = pretrain(out, out=tmp_path / "b", size="80k", tokens=4096, seq_len=32)  # a run's directory is its corpus
    assert third.corpus["sha256"] == first.corpus["sha256"]


def test_a_plan_is_for_the_corpus_it_was_made_for(tmp_path: Path, corpus: Path) -> None:
    made, out = tmp_path / "made", tmp_path / "run"
    pretrain(corpus, out=made, **(TINY | {"tokens": 4096}))
    with pytest.raises(SmallfryError, match="interrupted"):
        pretrain(made / "corpus", out=out, size="60k", tokens=20_000, watcher=Recorder(at_step=2, act=terminate))
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({"text": text}) for text in STORIES[:300]) + "\n")
    tokens = tmp_path / "tokenizer.json"
    tokens.write_bytes((made / "tokenizer.json").read_bytes())
    pretrain(other, out=made, force=True, tokenizer=str(tokens), **(TINY | {"tokens": 4096}))
    with pytest.raises(SmallfryError, match="is another corpus than the run was begun with"):
        pretrain(out=out, resume=True)


def test_a_corpus_is_used_by_other_runs(finished: tuple[Path, Any, Recorder], tmp_path: Path) -> None:
    prepared = finished[0] / "corpus"
    done = pretrain(prepared, out=tmp_path / "a", size="80k", tokens=4096, seq_len=32)
    assert done.corpus["sha256"] == finished[1].corpus["sha256"] and not (tmp_path / "a" / "corpus").exists()
    with pytest.raises(SmallfryError, match="its vocabulary is 320, not 400"):
        pretrain(prepared, out=tmp_path / "b", size="80k", vocab=400)
    with pytest.raises(SmallfryError, match="cannot be mixed"):
        pretrain(prepared, "other.txt", out=tmp_path / "b", size="80k")
    assert not (tmp_path / "b").exists()


def test_a_mixture_is_measured_by_source(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("\n\n\n".join(f"Note {i}: the price of {w} rose by {i % 9} percent." for i, w in enumerate(
        " ".join(STORIES).split()[:300]
    )))  # fmt: skip
    how = TINY | {"tokens": 8192, "minutes": 5.0, "valid": 0.2, "skip": "near-duplicates"}
    done = pretrain(f"{corpus}:3", other, out=tmp_path / "run", **how)
    assert set(done.held_out.by_source) == {str(corpus), str(other)} and done.held_out.by_source[str(other)] > 2


def test_a_second_run_in_the_same_directory_is_refused(corpus: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SmallfryError, match="another run is writing there"):
            pretrain(corpus, out=tmp_path, **TINY)


def test_nothing_held_out_is_told(corpus: Path, tmp_path: Path) -> None:
    seen = Recorder()
    done = pretrain(corpus, out=tmp_path / "run", valid=0.0, watcher=seen, **(TINY | {"tokens": 4096}))
    assert done.held_out is None and done.bits_per_byte is None and "no document is held out" in " ".join(seen.said)
    assert len(done.to_dict()["commands"]) == 2


def test_what_is_held_out_of_a_single_text_is_told_beside_the_number(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("\n".join(f"{part}. {text}" for part in range(3) for text in STORIES))
    how = TINY | {"tokens": 4096, "valid": 0.3, "skip": "all"}
    done = pretrain(book, out=tmp_path / "run", **how)
    held = done.held_out
    assert held.unit == "sections of one text, not documents" and held.documents == held.total == held.sections > 1
    assert any(note.startswith("held out are sections of one text, not documents") for note in done.notes)
    facts = read_json(tmp_path / "run" / "smallfry.json")["pretraining"]
    assert facts["held_out"]["unit"] == held.unit and facts["corpus"]["sources"][0]["held_out_by"] == "sections"
    assert pretrain(out=tmp_path / "run", resume=True).to_dict() == done.to_dict()
    before = facts["held_out"].keys() - {"sections", "unit"}
    old = done.to_dict() | {"held_out": {name: facts["held_out"][name] for name in before}}
    assert Pretrained.from_dict(old).held_out.unit == "documents"  # a record of an earlier version


def test_a_run_is_named_after_its_corpus() -> None:
    names = {"a/tales.txt.gz": "tales", "hf:some/set": "set", "hf:some/set:en@valid#v1:2": "set", "a#b.txt:3": "a#b"}
    assert {name: str(directory_of([name], "1m")) for name in names} == {k: f"runs/{v}-1m" for k, v in names.items()}


# ---- what bad input gets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"size": "huge"}, "size 'huge' is not a size"),
        ({"vocab": 100}, "--vocab 100: expected 263"),
        ({"seq_len": 4}, "--seq-len 4: expected 8"),
        ({"tokens": 0}, "--tokens 0"),
        ({"valid": 1.0}, "--valid 1: expected a share"),
        ({"minutes": 0.0}, "--minutes 0"),
        ({"skip": "spelling"}, "--skip spelling"),
        ({"column": "body"}, "no column 'body'"),
        ({"size": "60k", "vocab": 8192}, "does not fit a 60k model"),
        ({"data_dir": "/none"}, "holds no benchmark data"),
        ({"tokenizer": "/none.json"}, "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(
    corpus: Path, tmp_path: Path, settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(SmallfryError, match=match) as caught:
        pretrain(corpus, out=tmp_path / "run", **settings)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_damaged_record_is_told(corpus: Path, tmp_path: Path) -> None:
    for text, match in (
        ("{", "not readable"),
        ("[]", "not a record"),
        ('{"format": "smallfry-pretrain/1"}', "damaged"),
    ):
        (tmp_path / "pretrain.json").write_text(text)
        with pytest.raises(SmallfryError, match=match):
            pretrain(out=tmp_path, resume=True)


# ---- the plan -------------------------------------------------------------------------------------------------------


def test_every_rung_gets_a_vocabulary_that_fits() -> None:
    found = {rung: choose_vocab(rung)[0] for rung in RUNGS}
    assert found["0.25m"] == 1024 and found["1m"] == 2048 and found["5m"] == found["100m"] == 4096
    for rung, vocab in found.items():
        shape = shape_for(rung, vocab)
        assert shape.params_by_part["embedding"] <= 0.31 * shape.params
    assert choose_vocab("1m")[1] == "its table takes 26% of the parameters; 4,096 would take 40%"


def plan(size: str = "1m", corpus_tokens: int = 10**8, tokens: int | None = None, **more: Any) -> Plan:
    return make_plan(size, 2048, "why", corpus_tokens, 256, tokens, 0, **more)


def test_tokens_are_twenty_a_parameter_but_no_more_than_four_passes() -> None:
    rich, poor = plan(), plan(corpus_tokens=10**6)
    assert rich.tokens == pytest.approx(20 * rich.shape.params, rel=0.001)
    assert poor.tokens == pytest.approx(4 * 10**6, rel=0.002)
    assert "Muennighoff" in {x.name: x for x in poor.lines}["tokens"].reason
    assert "teaches little" in {x.name: x for x in plan(tokens=9 * 10**6, corpus_tokens=10**6).lines}["passes"].reason
    timed = plan(limit=(500_000, "what a minute allows"))
    assert timed.tokens == pytest.approx(500_000, rel=0.01)
    assert {x.name: x for x in timed.lines}["tokens"].reason == "what a minute allows"
    assert plan(tokens=1000, limit=(500_000, "what a minute allows")).steps == 1


def test_batches_grow_and_rates_fall_with_the_size() -> None:
    plans = [plan(size) for size in ("1m", "2m", "5m", "10m", "20m", "50m")]
    assert [p.batch_tokens for p in plans] == [4096, 4096, 8192, 8192, 16_384, 16_384]
    rates = [(p.recipe.lr, p.recipe.muon_lr) for p in plans]
    assert rates == sorted(rates, reverse=True) and rates[0] == pytest.approx((0.012, 0.04), rel=0.01)


@pytest.mark.parametrize("tokens", [1, 4096, 40_000, 300_000, 4_100_000, 20_000_000])
def test_stretches_add_up_to_the_steps(tokens: int) -> None:
    p = plan(tokens=tokens)
    whole, rest = divmod(p.steps, p.stretch)
    assert p.recipe.epochs == pytest.approx(p.steps / p.stretch) and whole + bool(rest) <= 20
    assert Plan.from_dict(json.loads(json.dumps(p.to_dict()))) == p


# ---- the command ----------------------------------------------------------------------------------------------------


def test_numbers_of_tokens() -> None:
    assert [cli_train.parse_tokens(t) for t in ("20m", "200K", "1.5b", "12,345", " 7 ")] == [
        20_000_000, 200_000, 1_500_000_000, 12_345, 7,
    ]  # fmt: skip
    for wrong in ("", "m", "-3", "0", "20mb", "1e6"):
        with pytest.raises(SmallfryError, match="--tokens"):
            cli_train.parse_tokens(wrong)


def test_the_command_tells_what_it_does(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typer = pytest.importorskip("typer")
    app = typer.Typer()
    app.command()(cli_train.pretrain)
    monkeypatch.setattr(cli_train, "console", Console(width=100, file=None))
    out = tmp_path / "run"
    words = [
        str(corpus),
        "--size",
        "60k",
        "--vocab",
        "320",
        "--tokens",
        "8k",
        "--seq-len",
        "64",
        "--out",
        str(out),
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["smallfry", *words])
    app(words, standalone_mode=False)
    text = capsys.readouterr().out
    for expected in ("400 read", "held out", "as asked", "bits per byte", "95% interval", f"smallfry chat {out}"):
        assert expected in text, expected
    last = json.loads(text.splitlines()[-1])
    assert last["out"] == str(out) and last["steps"] == 2 and last["bits_per_byte"] > 0


def test_the_view_draws_on_a_terminal() -> None:
    console = Console(width=100, force_terminal=True, file=open(os.devnull, "w", encoding="utf-8"), record=True)  # noqa: PTH123, SIM115
    with cli_train.PretrainingView(console) as view:
        view._drawn = -100.0
        view.made(CorpusProgress(1000, 5_000_000, 1_300_000, 0))
        view.cleaned([("documents", "10 read")])
        for step in range(1, 5):
            view._drawn = -100.0
            view.step(Progress(step, step / 4, 3.0 + step % 2, 5000.0, float(step)))
        view.measured(Progress(2, 0.5, 3.0, 5000.0, 2.0), 2.5)
    console.file.close()
    text = console.export_text()
    assert "50%" in text and "2s left" in text and "held-out sample 2.500 bits per byte" in text
