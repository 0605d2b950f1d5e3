"""Answering: constraints hold, batches do not matter, probabilities add up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from smallfry.data import JobData, Noise
from smallfry.engine.constraints import JsonConstraint, Trie, TrieConstraint, infer_schema
from smallfry.engine.decoding import Engine
from smallfry.engine.torch_engine import TorchModel
from smallfry.errors import SmallfryError
from smallfry.forms import MAX_PROMPT_TOKENS, Form, available_forms, build_form, find_units
from smallfry.frames import FrameCodec
from smallfry.job import Example, Job
from smallfry.model import Transformer
from smallfry.predictor import ModelPredictor
from smallfry.sizes import Shape
from smallfry.tokenizer import END, Tokenizer
from smallfry.train import Recipe, train
from tests.test_frames import json_rows, slot_rows
from tests.training_runs import JOB as COLOURS


def untrained(form: Form, seed: int = 0) -> Transformer:
    torch.set_num_threads(1)
    model = Transformer(Shape(form.tokenizer.vocab_size, 32, 2, 2, 1, 16, 64))
    model.init_weights(torch.Generator().manual_seed(seed))
    return model.eval()


def job_of(rows: list[Example], kind: str = "transform") -> Job:
    return Job("j", kind, tuple(rows), tuple(rows[:20]), tuple(rows[:20]), "exact_match")  # type: ignore[arg-type]


def scan_rows() -> list[Example]:
    rows = []
    for i in range(300):
        verbs = ["walk", "jump", "run"]
        a, b, n = verbs[i % 3], verbs[i // 3 % 3], 1 + i % 3
        out = " ".join([f"I_{a.upper()}"] * n + [f"I_{b.upper()}"])
        rows.append(Example(f"{a} {n} times and {b} number {i}", out))
    return rows


# ---- forms ----------------------------------------------------------------------------------------------------------


def test_forms_follow_from_the_outputs() -> None:
    slots = slot_rows()
    assert available_forms(COLOURS, None) == ["units"]
    assert available_forms(job_of(slots), FrameCodec.learn(slots)) == ["inline", "text"]
    assert available_forms(job_of(scan_rows()), None) == ["units", "text"]
    letters = [Example(f"{i:05d}x", f"x{i:05d}"[::-1]) for i in range(100)]
    assert available_forms(job_of(letters), None) == ["text"]


def test_units_are_words_that_recur() -> None:
    assert set(find_units(scan_rows())) == {" I_WALK", " I_JUMP", " I_RUN"}
    assert find_units([Example(str(i), f"a{i} b{i * 7} c{i * 3}") for i in range(100)]) == []


@pytest.mark.parametrize("name", ["inline", "text", "units"])
def test_answers_are_read_back_as_written(name: str) -> None:
    rows = scan_rows() if name == "units" else json_rows()
    codec = FrameCodec.learn(rows)
    form = build_form(job_of(rows), name, 300, name == "inline", codec)  # type: ignore[arg-type]
    again = Form.from_dict(json.loads(json.dumps(form.to_dict())), form.tokenizer)
    for row in rows[:50]:
        ids = form.answer_ids(row.input, row.output)
        assert ids is not None and ids[-1] == END
        assert form.read(row.input, ids) == row.output
        assert again.answer_ids(row.input, row.output) == ids
        assert form.prompt_ids(row.input) == again.prompt_ids(row.input)


# ---- constraints ----------------------------------------------------------------------------------------------------


def test_a_trie_allows_its_sequences_and_no_other() -> None:
    trie = TrieConstraint(Trie([[5, 6, END], [5, 7, END], [8, END]]))
    assert trie.allowed().tolist() == [5, 8]
    trie.advance(5)
    assert trie.allowed().tolist() == [6, 7]
    trie.advance(7)
    assert trie.allowed().tolist() == [END]


@pytest.mark.parametrize("name", ["inline", "text"])
def test_an_untrained_model_still_writes_what_the_job_allows(name: str) -> None:
    rows = json_rows()
    form = build_form(job_of(rows), name, 300, name == "inline", FrameCodec.learn(rows))  # type: ignore[arg-type]
    model = ModelPredictor("x", TorchModel(untrained(form)), form, 120)
    texts = [r.input for r in rows[:12]] + ["something else entirely", "a"]
    for text, answer in zip(texts, model.predict(texts), strict=True):
        value = json.loads(answer.output) if name == "inline" else _finished_json(answer.output)
        if value is None:
            continue
        assert value["call"] == "lamp" and value["args"]["state"] in ("on", "off")
        if name == "inline":
            for place in value["args"].get("place", ""), str(value["args"].get("minutes", "")):
                assert place in text


def _finished_json(text: str) -> dict[str, dict[str, str]] | None:
    """An untrained model may not come to an end of a free string in time."""
    return json.loads(text) if text.endswith("}") else None  # type: ignore[no-any-return]


def test_labels_are_the_job_s_labels() -> None:
    form = build_form(COLOURS, "units", 300, True, None)
    model = ModelPredictor("x", TorchModel(untrained(form)), form, 4)
    answers = model.predict([e.input for e in COLOURS.test])
    assert {a.output for a in answers} <= set(COLOURS.labels)
    scores = model.score([COLOURS.test[0].input], [list(COLOURS.labels)])[0]
    assert math.isclose(sum(math.exp(s) for s in scores), 1.0, rel_tol=1e-4)
    assert math.isclose(max(math.exp(s) for s in scores), answers[0].confidence, rel_tol=1e-3)


def test_valid_json_is_allowed_all_the_way() -> None:
    outputs = [r.output for r in json_rows()]
    tokenizer = Tokenizer.train([" " + o for o in outputs], 300)
    schema = infer_schema(outputs)
    assert schema is not None and schema["properties"]["args"]["properties"]["state"] == {"enum": ["off", "on"]}
    for output in outputs[:10]:
        constraint = JsonConstraint(tokenizer, schema)
        for token in tokenizer.encode_output(" " + output):
            assert token in constraint.allowed()
            constraint.advance(token)
        assert END in constraint.allowed()
    assert infer_schema(["{}", "[1]"]) is None and infer_schema(["x"]) is None


# ---- the engine -----------------------------------------------------------------------------------------------------


def test_batches_of_any_mix_give_the_answers_of_one_at_a_time() -> None:
    rows = slot_rows()
    form = build_form(job_of(rows), "inline", 300, True, FrameCodec.learn(rows))
    model = ModelPredictor("x", TorchModel(untrained(form, 4)), form, 60)
    texts = [r.input for r in rows[:9]] + ["fly", "a long text " * 8]
    together = model.predict(texts)
    for text, answer in zip(texts, together, strict=True):
        alone = model.predict([text])[0]
        assert alone.output == answer.output
        assert math.isclose(alone.confidence, answer.confidence, rel_tol=1e-3)


def test_a_cached_answer_scores_what_a_full_pass_scores() -> None:
    rows = slot_rows()
    form = build_form(job_of(rows), "inline", 300, True, FrameCodec.learn(rows))
    model = ModelPredictor("x", TorchModel(untrained(form, 5)), form, 60)
    texts = [r.input for r in rows[:6]]
    answers = model.predict(texts)
    scores = model.score(texts, [[a.output] for a in answers])
    for answer, score in zip(answers, scores, strict=True):
        assert math.isclose(math.exp(score[0]), answer.confidence, rel_tol=1e-2)


def test_an_answer_that_is_cut_off_has_no_confidence() -> None:
    rows = json_rows()
    form = build_form(job_of(rows), "text", 300, False, None)
    cut = ModelPredictor("x", TorchModel(untrained(form)), form, 4).predict([rows[0].input])[0]
    assert cut.output and (cut.confidence, cut.whole, cut.sureness) == (0.0, False, "cut off")
    labels = build_form(COLOURS, "units", 300, True, None)  # a label's end is forced
    whole = ModelPredictor("x", TorchModel(untrained(labels)), labels, 4).predict(["red"])[0]
    assert whole.whole and whole.confidence > 0


def test_free_answers_end_at_the_limit() -> None:
    form = build_form(job_of(scan_rows()), "units", 300, False, None)
    engine = Engine(TorchModel(untrained(form)))
    prompts = [form.prompt_ids("walk"), form.prompt_ids("jump and walk and run")]
    answers = engine.generate(prompts, [None, None], 7)
    assert all(len(a.ids) <= 7 for a in answers)


def test_what_cannot_be_written_scores_the_floor() -> None:
    rows = slot_rows()
    form = build_form(job_of(rows), "inline", 300, True, FrameCodec.learn(rows))
    model = ModelPredictor("x", TorchModel(untrained(form)), form, 60)
    scores = model.score(
        ["fly from rome to oslo"], [["Flight | from = rome ; to = oslo", "nonsense", "Flight | to = ulm"]]
    )
    assert scores[0][0] > scores[0][1] == scores[0][2]


def test_a_trained_model_answers_and_survives_the_disk(tmp_path: Path) -> None:
    form = build_form(COLOURS, "units", 300, True, None)
    model = Transformer(Shape(form.tokenizer.vocab_size, 32, 2, 1, 1, 32, 64))
    model.init_weights(torch.Generator().manual_seed(0))
    recipe = Recipe(epochs=25, batch_tokens=256, lr=0.01)
    train(model, JobData(COLOURS.train, form, Noise(), 0.0, 256, 0), recipe)
    predictor = ModelPredictor("tiny", TorchModel(model), form, 4)
    inputs = [e.input for e in COLOURS.test]
    answers = predictor.predict(inputs)
    assert np.mean([a.output == e.output for a, e in zip(answers, COLOURS.test, strict=True)]) > 0.9
    predictor.save(tmp_path, model, {"job": {"name": "colours"}})
    again = ModelPredictor.load(tmp_path)
    repeated = again.predict(inputs)
    assert [a.output for a in repeated] == [a.output for a in answers]
    assert np.allclose([a.confidence for a in repeated], [a.confidence for a in answers], rtol=1e-4)
    assert again("the red thing number 3") == answers[0].output


def test_long_texts_keep_their_likelihood_below_the_floor() -> None:
    rows = [Example("", f"once there was a dog number {i} who liked the sun " * 8) for i in range(40)]
    form = build_form(Job("s", "generate", tuple(rows), (), (), "bits_per_byte"), "text", 300, False, None)
    model = ModelPredictor("x", TorchModel(untrained(form)), form, 50)
    long, short = (s[0] for s in model.score(["", ""], [[rows[0].output], ["a dog"]]))
    assert long < -200 < short < 0


def test_each_tokenizer_compiles_its_own_grammar() -> None:
    outputs = [r.output for r in json_rows()]
    schema = infer_schema(outputs)
    assert schema is not None
    for size in (512, 270, 300, 400):  # made and dropped one after another, as pilots do
        tokenizer = Tokenizer.train([" " + o for o in outputs], size)
        constraint = JsonConstraint(tokenizer, schema)
        for token in tokenizer.encode_output(" " + outputs[0]):
            assert token in constraint.allowed()
            constraint.advance(token)


def test_values_are_swapped_where_no_word_stands_alone() -> None:
    rows = [Example(f"user=u{chr(97 + i % 7)} id={i}", f"user = u{chr(97 + i % 7)} ; id = {i}") for i in range(80)]
    codec = FrameCodec.learn(rows)
    assert codec is not None
    form = build_form(job_of(rows), "inline", 300, True, codec)
    assert JobData(rows, form, Noise(swap=1.0), 0.0, 512, 0).epoch(0)


@pytest.mark.parametrize("card", ["[]", "{}", '{"name": "x", "max_new": 3, "form": {"units": [], "codec": 3}}'])
def test_a_foreign_card_is_refused_in_one_line(tmp_path: Path, card: str) -> None:
    form = build_form(COLOURS, "units", 300, True, None)
    net = untrained(form)
    ModelPredictor("x", TorchModel(net), form, 4).save(tmp_path, net, {})
    (tmp_path / "smallfry.json").write_text(card)
    with pytest.raises(SmallfryError, match=r"smallfry\.json: not a card|has no job") as caught:
        ModelPredictor.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_copied_strings_become_no_enumeration_while_new_values_turn_up() -> None:
    closed = [json.dumps({"room": room}) for room in ("hall", "attic") * 60]
    assert infer_schema(closed)["properties"]["room"] == {"enum": ["attic", "hall"]}  # type: ignore[index]
    growing = [*closed, json.dumps({"room": "cellar"})]
    assert infer_schema(growing)["properties"]["room"] == {"type": "string"}  # type: ignore[index]


def test_a_text_of_many_thousand_tokens_keeps_its_ends_and_says_so() -> None:
    form = build_form(COLOURS, "units", 300, True, None)
    text = "first " + "the red thing number 3 " * 5000 + "last"
    ids = form.prompt_ids(text)
    assert len(ids) <= MAX_PROMPT_TOKENS + 2
    read = form.tokenizer.decode(ids)
    assert read.strip().startswith("first") and read.endswith("last")
    assert form.shortens(text) and not form.shortens("the red thing")
    answer = ModelPredictor("x", TorchModel(untrained(form)), form, 4).predict([text])[0]
    assert answer.output in COLOURS.labels
    for long in ("x" * 3000, "我的卡片丢失了" * 300):  # one "word", of which something must be read
        read = form.prompt_ids(long)
        assert 300 < len(read) <= MAX_PROMPT_TOKENS + 2 and form.shortens(long)


def test_arrays_and_objects_with_free_keys_have_schemas() -> None:
    arrays = infer_schema(['["a", "b"]', "[]", '["c"]'])
    assert arrays is not None and arrays["type"] == "array" and arrays["items"] == {"type": "string"}
    shopping = [json.dumps({f"thing{i}": i}) for i in range(40)]
    assert infer_schema(shopping) == {"type": "object", "additionalProperties": {"type": "integer"}}
    tokenizer = Tokenizer.train([" " + o for o in shopping], 300)
    constraint = JsonConstraint(tokenizer, infer_schema(shopping) or {})
    for token in tokenizer.encode_output(' {"eggs": 12}'):
        assert token in constraint.allowed()
        constraint.advance(token)
    assert END in constraint.allowed()
