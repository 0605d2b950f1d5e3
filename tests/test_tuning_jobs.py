"""Jobs on models that exist and on fresh ones: tokens are added without moving any, what is learned is measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import smallfry
from smallfry.errors import SmallfryError
from smallfry.files import read_json
from smallfry.forms import Form
from smallfry.job import Job
from smallfry.predictor import ModelPredictor
from smallfry.tokenizer import Tokenizer
from smallfry.tuning import tune
from smallfry.tuning.asking import Kept
from smallfry.tuning.extend import extend_model, extend_tokenizer
from smallfry.tuning.jobs import JobTuning
from smallfry.tuning.record import TuneSettings
from smallfry.tuning.teachers import Committee, JobTeacher, WriterTeacher
from smallfry.tuning.teaching import Teaching, read_inputs, read_questions
from tests.test_tuning import Recorder, terminate
from tests.tuning_models import COLOURS, TEXT, THINGS, TOKENIZER, exchanges, network, save, write_rows

UNITS = [" red", " very red", " blue and green"]
SYMBOLS = ["h:find colour", "t:B-thing", "t:O"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"input": f"the {a} {t} and the {b} {u} {i}", "output": a}
        for i in range(2) for a in COLOURS[:3] for b in COLOURS[3:] for t in THINGS for u in THINGS[:3]
    ]  # fmt: skip
    return write_rows(tmp_path_factory.mktemp("jobs") / "first.jsonl", rows)


# ---- more tokens ----------------------------------------------------------------------------------------------------


def test_new_tokens_move_no_old_one() -> None:
    longer = extend_tokenizer(TOKENIZER, UNITS, SYMBOLS)
    for text in (*TEXT[:40], " very red and blue", "<|t:O|>"):
        assert longer.encode(text) == TOKENIZER.encode(text)
    assert longer.units[" red"] == TOKENIZER.vocab["Ġred"] < TOKENIZER.vocab_size  # a piece that was there
    assert longer.encode_output(" very red") == [TOKENIZER.vocab_size]
    assert longer.symbol("t:O") == longer.vocab_size - 1 == TOKENIZER.vocab_size + 4
    assert longer.decode(longer.encode_output(" blue and green")) == " blue and green"
    again = extend_tokenizer(longer, [*UNITS, " black hat"], ["t:I-thing", *SYMBOLS])
    assert again.vocab_size == longer.vocab_size + 2 and again.units[" black hat"] == longer.vocab_size
    assert [again.symbol(s) for s in SYMBOLS] == [longer.symbol(s) for s in SYMBOLS]
    assert all(again.encode(text) == TOKENIZER.encode(text) for text in TEXT[:40])


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_said_of_old_tokens_does_not_change(tied: bool) -> None:
    longer, old = extend_tokenizer(TOKENIZER, UNITS, SYMBOLS), network(tied=tied)
    new = extend_model(old, TOKENIZER, longer)
    ids = torch.tensor([TOKENIZER.encode(" what colour is the ball? the ball is red.")])
    with torch.no_grad():
        before, after = old.logits(old(ids)), new.logits(new(ids))
    assert after.shape[-1] == longer.vocab_size == before.shape[-1] + 5
    torch.testing.assert_close(after[..., : before.shape[-1]], before, rtol=1e-6, atol=1e-6)
    table = old.embed.weight
    expected = table[TOKENIZER.encode(" blue and green")].mean(0)
    torch.testing.assert_close(new.embed.weight[longer.units[" blue and green"]], expected)
    torch.testing.assert_close(
        new.embed.weight[longer.symbol("h:find colour")], table[TOKENIZER.encode(" find colour")].mean(0)
    )
    assert torch.equal(old.embed.weight, network(tied=tied).embed.weight)
    if not tied:
        expected = old.head.weight[TOKENIZER.encode(" blue and green")].mean(0)
        torch.testing.assert_close(new.head.weight[longer.units[" blue and green"]], expected)


def test_rows_that_no_token_used_are_taken_first() -> None:
    longer = extend_tokenizer(TOKENIZER, [" very red"], [])
    wide = network(vocab_size=TOKENIZER.vocab_size + 8)
    new = extend_model(wide, TOKENIZER, longer)
    assert new.shape.vocab_size == wide.shape.vocab_size
    expected = wide.embed.weight[TOKENIZER.encode(" very red")].mean(0)
    torch.testing.assert_close(new.embed.weight[TOKENIZER.vocab_size], expected)


# ---- jobs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(model: Path, job: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Recorder]:
    out, seen = tmp_path_factory.mktemp("runs") / "colours", Recorder()
    # After 6 epochs labels are as good as tied, and what rounding does to a stored weight decides between them.
    return out, tune(model, job, out=out, watcher=seen, epochs=8.0, lr_scale=1.0), seen


def test_a_job_is_learned_from_where_the_model_stands(tuned: tuple[Path, Any, Recorder]) -> None:
    out, done, seen = tuned
    assert done.kind == "job" and done.job["kind"] == "classify" and done.job["form"] == "units"
    assert done.after.loss < done.before.loss - 1.0 and done.better[0] > 0
    assert done.job["n"] == 29 and done.job["ci"][0] <= done.job["score"] <= done.job["ci"][1]
    assert done.data["counts"]["train"] == 230 and done.curve[-1]["valid_score"] is not None
    assert "accuracy" in seen.found[-1] and seen.shares == sorted(seen.shares)
    card = read_json(out / "smallfry.json")
    assert card["tuned_from"]["name"] == "tiny" and card["job"]["name"] == "first" and "chat" not in card
    assert card["form"]["grammar"]["labels"] == sorted(COLOURS[:3])


def test_the_directory_answers_the_job(tuned: tuple[Path, Any, Recorder], job: Path) -> None:
    from smallfry.evals.suites.jobs import evaluate

    found = evaluate(Job.load(job), [tuned[0]], None, with_controls=False)
    assert found["score"] == pytest.approx(tuned[1].job["score"]) and not found["warnings"]
    assert smallfry.load(tuned[0])("the red ball and the white cap 0") in COLOURS[:3]
    assert Form.from_dict(
        read_json(tuned[0] / "smallfry.json")["form"], Tokenizer.load(tuned[0] / "tokenizer.json", [" red"])
    ).name == "units"  # fmt: skip


def test_a_job_that_is_stopped_and_resumed_ends_with_the_same_bits(
    model: Path, job: Path, tuned: tuple[Path, Any, Recorder], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(SmallfryError, match="interrupted: the training is saved"):
        tune(model, job, out=out, watcher=Recorder(5, terminate), epochs=8.0, lr_scale=1.0)
    done = tune(out=out, resume=True)
    assert (out / "model.safetensors").read_bytes() == (tuned[0] / "model.safetensors").read_bytes()
    assert done.job == tuned[1].job


def test_a_job_model_learns_another_job_and_keeps_its_tokens(tuned: tuple[Path, Any, Recorder], tmp_path: Path) -> None:
    rows = [{"input": f"{n} {t}", "output": f"no{n % 3}"} for n in range(20) for t in THINGS[:4]]
    done = tune(tuned[0], write_rows(tmp_path / "second.jsonl", rows), out=tmp_path / "run", epochs=2.0)
    assert done.vocab_size == tuned[1].vocab_size + 3
    card = read_json(tmp_path / "run" / "smallfry.json")
    assert set(card["form"]["grammar"]["labels"]) == {"no0", "no1", "no2"} and " red" in card["form"]["units"]
    assert ModelPredictor.load(tmp_path / "run")("3 ball") in {"no0", "no1", "no2"}


def test_the_inline_form_gets_its_symbols(model: Path, tmp_path: Path) -> None:
    rows = [
        {"input": f"put the {c} {t} away {i}", "output": json.dumps({"do": "put", "what": f"{c} {t}"})}
        for i in range(2) for c in COLOURS for t in THINGS
    ]  # fmt: skip
    path = write_rows(tmp_path / "frames.jsonl", rows)
    done = tune(model, path, out=tmp_path / "run", epochs=4.0)
    assert done.job["form"] == "inline" and done.before is not None and done.after.loss < done.before.loss
    plain = tune(model, path, out=tmp_path / "text", epochs=0.2, form="text")
    assert plain.job["form"] == "text" and plain.vocab_size == TOKENIZER.vocab_size
    with pytest.raises(SmallfryError, match=r"--form units: does not fit the job frames; expected inline or text"):
        tune(model, path, out=tmp_path / "no", form="units")


def test_fresh_weights_learn_a_job_with_its_own_words(job: Path, tmp_path: Path) -> None:
    seen = Recorder()
    done = tune("60k", job, out=tmp_path / "run", epochs=1.0, vocab=300, watcher=seen)
    assert done.tuned_from is None and done.before is None and done.vocab_size >= 300 and done.params > 50_000
    assert seen.lines["vocabulary"].reason == "of the job's own words" and "lower case" in seen.lines["form"].reason
    assert read_json(tmp_path / "run" / "smallfry.json")["lineage"] == []
    with pytest.raises(SmallfryError, match="has its own; leave it out, or name a size"):
        tune(tmp_path / "run", job, out=tmp_path / "no", vocab=300)


# ---- teachers -------------------------------------------------------------------------------------------------------


def test_a_student_learns_from_the_distributions_of_a_job_model(
    tuned: tuple[Path, Any, Recorder], job: Path, tmp_path: Path
) -> None:
    inputs = write_rows(tmp_path / "more.jsonl", [{"input": f"the blue {t} {i}"} for t in THINGS for i in range(3)])
    seen = Recorder()
    done = tune(
        "60k", job, out=tmp_path / "run", epochs=0.5, teacher=str(tuned[0]), unlabelled=str(inputs), watcher=seen
    )
    assert any("teaches by its distributions, a share of 0.5" in text for text in seen.said)
    assert done.data["counts"]["taught"] == 24 and seen.data["from the teacher"] == "24 rows"
    assert done.vocab_size == tuned[1].vocab_size  # it takes the teacher's form
    settings = TuneSettings("60k", (str(job),), teacher=(str(tuned[0]),))
    assert read_json(tmp_path / "run" / "smallfry.json")["tuning"]["settings"]["teacher"] == list(settings.teacher)


def test_several_teachers_give_an_input_one_label(
    tuned: tuple[Path, Any, Recorder], model: Path, job: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    tune(model, job, out=other, epochs=0.5, seed=1)
    texts = [f"the blue {t} and the red ball {i}" for t in THINGS for i in range(3)]
    inputs = write_rows(tmp_path / "more.jsonl", [{"input": text} for text in texts])
    done = tune(
        "60k", job, out=tmp_path / "run", epochs=0.2, teacher=(str(tuned[0]), str(other)), unlabelled=str(inputs)
    )
    assert done.data["counts"]["taught"] == len(texts)
    members, labels = [JobTeacher(tuned[0]), JobTeacher(other)], list(COLOURS[:3])
    options = [labels] * len(texts)
    one, two = (np.exp(member.predictor.score(texts, options)) for member in members)
    said = Committee(members, labels).outputs(texts)
    assert said == [labels[at] for at in (one + two).argmax(1)] and set(said) <= set(labels)


def test_a_teacher_of_another_job_is_refused(tuned: tuple[Path, Any, Recorder], tmp_path: Path) -> None:
    rows = [{"input": f"{n} {t}", "output": f"no{n % 3}"} for n in range(20) for t in THINGS[:4]]
    path = write_rows(tmp_path / "second.jsonl", rows)
    with pytest.raises(SmallfryError, match="never learned the label 'no0'; give a model of the same job"):
        tune("60k", path, out=tmp_path / "run", teacher=(str(tuned[0]),))


def test_a_job_model_makes_up_no_inputs(tuned: tuple[Path, Any, Recorder], job: Path, tmp_path: Path) -> None:
    with pytest.raises(SmallfryError, match="answers a job and cannot make up inputs; give --unlabelled FILE"):
        tune("60k", job, out=tmp_path / "run", teacher=str(tuned[0]), write=3)


def test_a_chat_student_of_the_teachers_tokenizer_and_one_with_another(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "chat.jsonl", exchanges(60))
    teacher = tmp_path / "teacher"
    tune(save(tmp_path / "tiny"), data, out=teacher, epochs=8.0, lr_scale=1.0)
    seen = Recorder()
    fresh = tune("60k", data, out=tmp_path / "fresh", epochs=1.0, teacher=teacher, watcher=seen)
    assert fresh.before is None and fresh.vocab_size == TOKENIZER.vocab_size
    assert any("teaches by its distributions" in text for text in seen.said)
    other = save(tmp_path / "other", Tokenizer.train(TEXT, 300))
    seen = Recorder()
    done = tune(other, data, out=tmp_path / "run", epochs=1.0, teacher=str(teacher), max_new=12, watcher=seen)
    assert any("has another tokenizer, teaches by what it writes" in text for text in seen.said)
    kept = (tmp_path / "run" / "run" / "answers-0.jsonl").read_text().splitlines()
    assert 0 < done.data["counts"]["conversations"] <= 48 == len(kept)
    with pytest.raises(SmallfryError, match="--write: a teacher writes examples of a job"):
        tune(other, data, out=tmp_path / "no", teacher=str(teacher), write=5)


def test_a_run_does_not_go_on_with_another_teacher(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "chat.jsonl", exchanges(60))
    teacher, out = tmp_path / "teacher", tmp_path / "run"
    tune(save(tmp_path / "tiny"), data, out=teacher, epochs=8.0, lr_scale=1.0)
    first = read_json(teacher / "smallfry.json")["weights_sha256"]
    for source, model in (("distributions", save(tmp_path / "same")), ("texts", other_words(tmp_path / "other"))):
        out = tmp_path / source
        with pytest.raises(SmallfryError, match="interrupted"):
            tune(model, data, out=out, epochs=2.0, teacher=str(teacher), max_new=12, watcher=Recorder(1, terminate))
        assert read_json(out / "tune.json")["teachers"] == [{"name": str(teacher), "weights_sha256": first}]
    shutil.copytree(teacher, tmp_path / "put away")
    tune(tmp_path / "tiny", data, out=teacher, epochs=4.0, lr_scale=1.0, force=True)
    for source in ("distributions", "texts"):
        with pytest.raises(
            SmallfryError, match="teacher has other weights than when the run was begun; put it ba"
        ) as e:
            tune(out=tmp_path / source, resume=True)
        assert "\n" not in str(e.value)
    shutil.rmtree(teacher)
    shutil.copytree(tmp_path / "put away", teacher)
    tune(out=tmp_path / "texts", resume=True)
    card = read_json(tmp_path / "texts" / "smallfry.json")
    assert card["tuning"]["teachers"] == [{"name": str(teacher), "weights_sha256": first}]
    tune(tmp_path / "texts", data, out=tmp_path / "next", epochs=0.2)
    assert read_json(tmp_path / "next" / "smallfry.json")["lineage"][-1]["teachers"] == card["tuning"]["teachers"]


def test_a_teacher_is_known_before_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_rows(tmp_path / "chat.jsonl", exchanges(60))
    teacher, out = tmp_path / "teacher", tmp_path / "run"
    tune(save(tmp_path / "tiny"), data, out=teacher, epochs=8.0, lr_scale=1.0)
    with monkeypatch.context() as patch, pytest.raises(SmallfryError, match="no more; 5 answers are kept"):
        patch.setattr(WriterTeacher, "answer", failing(WriterTeacher.answer, 5))
        tune(other_words(tmp_path / "other"), data, out=out, epochs=0.5, teacher=str(teacher), max_new=12)
    tune(tmp_path / "tiny", data, out=teacher, epochs=4.0, lr_scale=1.0, force=True)
    with pytest.raises(SmallfryError, match="has other weights than when the run was begun"):
        tune(out=out, resume=True)
    assert len(Kept(out / "run" / "answers-0.jsonl")) == 5


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_rows(tmp_path / "chat.jsonl", exchanges(60))
    teacher, out = tmp_path / "teacher", tmp_path / "run"
    tune(save(tmp_path / "tiny"), data, out=teacher, epochs=8.0, lr_scale=1.0)
    with monkeypatch.context() as patch:  # it kept answers by the teacher's name, and did not say who it was
        patch.setattr(Teaching, "_store", lambda self, name, _: Kept(self.kept / f"{name}.jsonl"))
        with pytest.raises(SmallfryError, match="interrupted"):
            tune(
                other_words(tmp_path / "other"), data, out=out, epochs=2.0, teacher=str(teacher), max_new=12,
                watcher=Recorder(1, terminate),
            )  # fmt: skip
    record = read_json(out / "tune.json")
    del record["teachers"]
    (out / "tune.json").write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setattr(WriterTeacher, "answer", failing(WriterTeacher.answer, 0))
    tune(out=out, resume=True)
    assert read_json(out / "smallfry.json")["tuning"]["teachers"] is None
    assert "teachers" not in read_json(out / "tune.json")


def other_words(path: Path) -> Path:
    """A model whose tokenizer is no teacher's here."""
    return save(path, Tokenizer.train(TEXT, 300))


def failing(answer: Any, after: int) -> Any:
    """A teacher's way of answering that breaks off after some answers."""

    def some(*asked: Any) -> Iterator[Any]:
        yield from islice(answer(*asked), after)
        raise SmallfryError("no more")

    return some


def test_questions_and_inputs_are_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [
        {"prompt": " hello "}, {"messages": [{"role": "user", "content": "why?"}]},
        {"prompt": "x", "response": "y"}, {"prompt": " "}, {"prompt": "z", "response": ""},
    ])  # fmt: skip
    found = [[(m.role, m.content) for m in c] for c in read_questions(str(path))]
    assert found == [
        [("user", "hello"), ("assistant", "")], [("user", "why?"), ("assistant", "")],
        [("user", "x"), ("assistant", "y")], [("user", "z"), ("assistant", "")],
    ]  # fmt: skip
    with pytest.raises(SmallfryError, match="line 1: nothing to ask in other"):
        read_questions(str(write_rows(tmp_path / "b.jsonl", [{"other": 1}])))
    assert read_inputs(str(write_rows(tmp_path / "c.jsonl", [{"input": "a"}, {"input": "a"}])), "input") == ["a"]
    with pytest.raises(SmallfryError, match="line 1: no text in column 'input'; name the column"):
        read_inputs(str(path), "input")
    with pytest.raises(SmallfryError, match=r"--unlabelled .*none\.jsonl: no such file; expected rows with a column"):
        read_inputs(str(tmp_path / "none.jsonl"), "input")


def test_answers_of_a_job_are_weighted_as_its_loss_is(model: Path, job: Path) -> None:
    side = JobTuning(TuneSettings(str(model), (str(job),)), Job.load(job), None)
    sums = side.answers(side.start.model)
    assert sums.shape == (29, 2)
    np.testing.assert_allclose(sums[:, 1], 1.05, rtol=1e-6)  # a label, and the end that follows it
