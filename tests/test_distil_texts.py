"""Teachers of texts: answers for conversations, labels and examples for jobs, and Hugging Face directories."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smallfry.checkpoint import save_model
from smallfry.data import Batch
from smallfry.engine.torch_engine import TorchModel
from smallfry.errors import SmallfryError
from smallfry.forms import build_form
from smallfry.job import Example, Job, Kind
from smallfry.model import Transformer
from smallfry.predictor import ModelPredictor
from smallfry.sizes import Shape
from smallfry.tokenizer import Tokenizer
from smallfry.tuning.asking import MOST_WITHOUT, Kept, Reply, TextTeacher
from smallfry.tuning.conversations import Conversation, Message
from smallfry.tuning.soft import LogitTeacher
from smallfry.tuning.teachers import HfTeacher, JobTeacher, WriterTeacher, identity_of, load_teacher
from smallfry.tuning.written import OutputForm, label, rewrite, write_examples

QUIET: list[str] = []


def talk(*turns: str) -> Conversation:
    """User and assistant in turn; a first turn that begins with ``sys:`` is the system's."""
    roles = ["user", "assistant"] * len(turns)
    if turns[0].startswith("sys:"):
        roles = ["system", *roles]
    return tuple(Message(role, text) for role, text in zip(roles, turns, strict=False))  # type: ignore[arg-type]


class Parrot:
    """Says how many turns it was shown and repeats the last; counts what it is asked.

    Args:
        fails_after: Fails as a whole after so many answers.
        refuses: A word in what it is asked; such questions get no answer.
    """

    name = "parrot"

    def __init__(self, fails_after: int = 10**9, refuses: str = "\0") -> None:
        self.asked: list[Conversation] = []
        self.fails_after, self.refuses = fails_after, refuses

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> Iterator[tuple[int, Reply]]:
        for place, conversation in enumerate(conversations):
            if len(self.asked) == self.fails_after:
                raise SmallfryError("--teacher parrot: answered 401")
            self.asked.append(conversation)
            last = conversation[-1].content
            if self.refuses in last:
                yield place, Reply("", "answered 400 Bad Request")
            else:
                yield place, Reply("" if "silence" in last else f"{len(conversation)} {last}")


def texts(replies: Iterator[tuple[int, Reply]]) -> list[str]:
    """Answers in the order of the questions."""
    return [reply.text for _, reply in sorted(replies, key=lambda pair: pair[0])]


# ---- conversations --------------------------------------------------------------------------------------------------


def test_the_teacher_answers_in_the_assistants_place() -> None:
    teacher, said = Parrot(), list[str]()
    found = rewrite(
        [talk("sys: be brief", "a", "old", "b", "older"), talk("c", "old", "left over"), talk("silence", "old")],
        teacher, 9, said.append,
    )  # fmt: skip
    assert found == [
        talk("sys: be brief", "a", "2 a", "b", "4 b"),  # the second answer is behind the teacher's own first
        talk("c", "1 c"),
    ]
    assert teacher.asked[-1] == talk("sys: be brief", "a", "2 a", "b")
    assert said == ["parrot: 1 answers were empty; 2 of 3 conversations left"]


def test_an_empty_answer_ends_a_conversation() -> None:
    assert rewrite([talk("a", "x", "silence", "y", "b", "z")], Parrot(), 9, QUIET.append) == [talk("a", "1 a")]
    with pytest.raises(SmallfryError, match="answered nothing to 1 conversations"):
        rewrite([talk("silence", "y")], Parrot(), 9, QUIET.append)
    assert rewrite([], Parrot(), 9, QUIET.append) == []


def test_a_killed_run_asks_for_nothing_twice(tmp_path: Path) -> None:
    conversations = [talk(f"question {n}", "x", f"more {n}", "y") for n in range(40)]
    kept = tmp_path / "run" / "teacher.jsonl"
    first = Parrot(fails_after=35)
    with pytest.raises(SmallfryError, match=r"answered 401; 35 answers are kept: start again with --resume"):
        rewrite(conversations, first, 9, QUIET.append, Kept(kept))
    with kept.open("ab") as file:
        file.write(b'{"key": "half a li')  # killed while it wrote
    second = Parrot()
    found = rewrite(conversations, second, 9, QUIET.append, Kept(kept))
    assert len(second.asked) == 80 - 35 and not set(first.asked) & set(second.asked)
    assert found == rewrite(conversations, Parrot(), 9, QUIET.append)
    third = Parrot()
    assert rewrite(conversations, third, 9, QUIET.append, Kept(kept)) == found and not third.asked
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 80
    fourth = Parrot()
    rewrite(conversations[:1], fourth, 10, QUIET.append, Kept(kept))  # another length is another question
    assert len(fourth.asked) == 2


def test_every_answer_is_on_the_disk_before_the_next_is_asked_for(tmp_path: Path) -> None:
    kept, there = tmp_path / "teacher.jsonl", list[int]()

    class Watching(Parrot):
        def answer(self, conversations: Sequence[Conversation], max_new: int) -> Iterator[tuple[int, Reply]]:
            for each in super().answer(conversations, max_new):
                there.append(len(kept.read_bytes().splitlines()) if kept.exists() else 0)
                yield each

    rewrite([talk(f"question {n}", "x") for n in range(5)], Watching(), 9, QUIET.append, Kept(kept))
    assert there == [0, 1, 2, 3, 4] and len(Kept(kept)) == 5


def test_a_refusal_costs_no_other_answer(tmp_path: Path) -> None:
    conversations = [talk(f"question {n}", "x") for n in range(40)]
    teacher, said, kept = Parrot(refuses="question 2"), list[str](), tmp_path / "k.jsonl"
    found = rewrite(conversations, teacher, 9, said.append, Kept(kept))
    assert found == [talk(f"question {n}", f"1 question {n}") for n in range(40) if n != 2 and not 20 <= n < 30]
    assert said == [
        "parrot: 0 answers were empty, 11 questions got no answer (answered 400 Bad Request); 29 of 40 conversations "
        "left"
    ]
    again = Parrot()
    assert rewrite(conversations, again, 9, said.append, Kept(kept)) == found and not again.asked
    assert said[1] == said[0]


def test_a_teacher_that_answers_hardly_anything_is_stopped(tmp_path: Path) -> None:
    conversations = [talk(f"question {n}", "x") for n in range(40)]
    kept = tmp_path / "k.jsonl"
    teacher = Parrot(refuses="question")
    with pytest.raises(SmallfryError, match=r"16 questions in a row got no answer \(answered 400 Bad Request\)$"):
        rewrite(conversations, teacher, 9, QUIET.append, Kept(kept))
    assert len(teacher.asked) == MOST_WITHOUT and not kept.exists()  # it was broken: nothing of it counts
    teacher = Parrot()
    assert len(rewrite(conversations, teacher, 9, QUIET.append, Kept(kept))) == 40 == len(teacher.asked)
    silent = [talk(f"silence {n}", "x") for n in range(40)]
    said = r"16 questions in a row got no answer \(empty answers; a larger --max-new may help\); 56 answers are kept"
    with pytest.raises(SmallfryError, match=said):
        rewrite(silent, Parrot(), 9, QUIET.append, Kept(kept))  # empty answers are answers, and may be paid
    few, teacher = [talk(f"question {n}", "x") for n in range(3)], Parrot(refuses="question")
    with pytest.raises(SmallfryError, match=r"answered nothing to 3 conversations; 3 questions got no answer \(answ"):
        rewrite(few, teacher, 9, QUIET.append, Kept(tmp_path / "few.jsonl"))
    assert not (tmp_path / "few.jsonl").exists()


def test_answers_are_kept_by_who_gave_them(tmp_path: Path) -> None:
    kept, conversations = tmp_path / "k.jsonl", [talk("question", "x")]
    for teacher, asked in (("a" * 64, 1), ("b" * 64, 1), ("a" * 64, 0), ("", 1), ("", 0)):
        parrot = Parrot()
        rewrite(conversations, parrot, 9, QUIET.append, Kept(kept, teacher))
        assert len(parrot.asked) == asked


def test_a_broken_store_is_said(tmp_path: Path) -> None:
    file = tmp_path / "teacher.jsonl"
    file.write_text("[]\n", encoding="utf-8")
    with pytest.raises(SmallfryError, match=r"teacher\.jsonl: not what .* delete it"):
        Kept(file)
    with pytest.raises(SmallfryError, match="cannot write"):
        Kept(tmp_path / "teacher.jsonl" / "below").add([("k", "q", Reply("a"))])


# ---- jobs -----------------------------------------------------------------------------------------------------------


def job(kind: Kind = "classify", pairs: Sequence[tuple[str, str]] = ()) -> Job:
    rows = pairs or [(f"{word} thing {n}", word.upper()) for n in range(12) for word in ("red", "blue", "green")]
    examples = tuple(Example(*pair) for pair in rows)
    metric = "accuracy" if kind == "classify" else "exact_match"
    return Job("things", kind, examples, examples[:4], (Example("pink thing", "RED"),), metric)  # type: ignore[arg-type]


class Answers:
    """Answers by a rule, None being no answer; keeps what it was shown."""

    name = "answers"

    def __init__(self, rule: Any) -> None:
        self.rule, self.shown = rule, list[str]()

    def answer(self, conversations: Sequence[Conversation], max_new: int) -> Iterator[tuple[int, Reply]]:
        for place, conversation in enumerate(conversations):
            self.shown.append(conversation[-1].content)
            said = self.rule(conversation[-1].content)
            yield place, Reply("", "answered 422 Unprocessable") if said is None else Reply(said)


def test_labels_must_be_labels(tmp_path: Path) -> None:
    said: list[str] = []
    answers = {"x1": "red", "x2": "Output: BLUE\nbecause", "x3": "purple", "x4": ""}
    teacher = Answers(lambda shown: answers[shown.split("Input: ")[-1].split("\n")[0]])
    kept = tmp_path / "k.jsonl"
    found = label(job(), teacher, list(answers), say=said.append, kept=Kept(kept))
    assert found == [Example("x1", "RED"), Example("x2", "BLUE")]
    assert said == ["answers: 2 of 4 answers were not of the job's form"]
    assert "one of: BLUE, GREEN, RED." in teacher.shown[0] and "Input: red thing 0\nOutput: RED" in teacher.shown[0]
    assert "pink" not in "".join(teacher.shown)  # nothing of the test rows is shown
    teacher.shown.clear()
    assert label(job(), teacher, list(answers), kept=Kept(kept)) == found and not teacher.shown


def test_inputs_without_an_answer_get_no_label(tmp_path: Path) -> None:
    said: list[str] = []
    answers = {"x1": "red", "x2": None, "x3": "purple"}
    teacher = Answers(lambda shown: answers[shown.split("Input: ")[-1].split("\n")[0]])
    found = label(job(), teacher, list(answers), say=said.append, kept=Kept(tmp_path / "k.jsonl"))
    assert found == [Example("x1", "RED")]
    assert said == [
        "answers: 1 of 3 answers were not of the job's form; 1 questions got no answer (answered 422 Unprocessable)"
    ]
    with pytest.raises(SmallfryError, match=r"labelled nothing; 2 questions got no answer \(answered 422"):
        label(job(), Answers(lambda shown: None), ["x1", "x2"], kept=Kept(tmp_path / "none.jsonl"))
    assert not (tmp_path / "none.jsonl").exists()


FRAMES = [
    (f"play {name}{n} now on {device}", f"Play | name = {name}{n} ; device = {device}")
    for n, name in enumerate(("abba", "queen", "bach", "muse") * 10)
    for device in ("phone", "radio")
]


@pytest.mark.parametrize(
    ("pairs", "text", "good", "bad"),
    [
        (FRAMES, "play toto on tv", "Play | name = toto ; device = tv", "Stop | name = toto ; device = tv"),
        ([(str(n), json.dumps({"n": n})) for n in range(9)], "77", '{"n": 77}', '{"n": 77'),
        ([(str(n), str(n)[::-1]) for n in range(100, 120)], "456", "654", "a much longer answer than any"),
    ],
)  # fmt: skip
def test_outputs_of_other_jobs_must_have_their_form(
    pairs: list[tuple[str, str]], text: str, good: str, bad: str
) -> None:
    form = OutputForm(job("transform", pairs).train, "transform")
    assert form.read(text, f" {good} ") == good
    assert form.read(text, bad) is None and form.read(text, "") is None


def test_written_examples_are_read_strictly() -> None:
    said: list[str] = []
    lines = [
        json.dumps({"input": "red kite", "output": "red"}),
        json.dumps({"input": "Red  Kite!", "output": "RED"}),  # the same again
        json.dumps({"input": "red thing 0", "output": "RED"}),  # stands in train
        json.dumps({"input": "PINK thing", "output": "RED"}),  # stands in test
        json.dumps({"input": "mauve kite", "output": "MAUVE"}),
        json.dumps({"input": "blue kite"}), json.dumps({"input": 3, "output": "RED"}), "Here you are:", "[1", "",
        json.dumps({"input": "blue kite", "output": "BLUE", "why": "x"}),
    ]  # fmt: skip
    teacher = Answers(lambda shown: "\n".join(lines))
    known = [e.input for e in (*job().valid, *job().test)]
    found = write_examples(teacher, job().train, 5, 0, kind="classify", against=known, say=said.append)
    assert found == [Example("red kite", "RED")]
    asked = len(teacher.shown)
    assert asked == 6  # one that gave something new, five that did not
    assert said == [
        f"answers: wrote 1 of 5 examples; dropped: {3 + 4 * (asked - 1)} known inputs, {5 * asked} lines that are no "
        f"example, {asked} outputs of another form"
    ]
    assert len(set(teacher.shown)) == asked  # other examples are shown each time
    with pytest.raises(SmallfryError, match="no examples to show"):
        write_examples(teacher, [], 5, 0)


def test_as_many_examples_as_were_asked_for(tmp_path: Path) -> None:
    def rule(shown: str) -> str:
        number = int(np.frombuffer(shown.encode()[-200:], np.uint8).sum()) + len(teacher.shown) * 100_000
        return "\n".join(json.dumps({"input": f"red {number} {n}", "output": "RED"}) for n in range(10))

    teacher = Answers(rule)
    kept = tmp_path / "k.jsonl"
    found = write_examples(teacher, job().train, 25, 7, kind="classify", kept=Kept(kept))
    assert len(found) == 25 == len({e.input for e in found}) and len(teacher.shown) == 3
    teacher.shown.clear()
    again = write_examples(teacher, job().train, 25, 7, kind="classify", kept=Kept(kept))
    assert again == found and not teacher.shown


def test_prompts_without_an_answer_do_not_make_a_teacher_dry(tmp_path: Path) -> None:
    said: list[str] = []

    def rule(shown: str) -> str | None:
        return None if len(teacher.shown) % 7 else json.dumps({"input": f"red {len(teacher.shown)}", "output": "RED"})

    teacher = Answers(rule)
    found = write_examples(teacher, job().train, 3, 7, kind="classify", kept=Kept(tmp_path / "k"), say=said.append)
    assert len(found) == 3 and len(teacher.shown) == 21
    assert said == ["answers: wrote 3 of 3 examples; dropped: 18 prompts without an answer"]
    teacher = Answers(lambda shown: None)
    with pytest.raises(SmallfryError, match="16 questions in a row got no answer"):
        write_examples(teacher, job().train, 3, 7, kind="classify", kept=Kept(tmp_path / "none"))
    assert not (tmp_path / "none").exists()  # nor is it asked for ever: what is not kept is asked again


def test_a_job_of_one_row_is_asked_about_again_and_again() -> None:
    teacher = Answers(lambda shown: json.dumps({"input": f"red kite {len(teacher.shown)}", "output": "RED"}))
    found = write_examples(teacher, [Example("red thing", "RED")], 20, 0, kind="classify")
    assert len(found) == 20 and len(set(teacher.shown)) == 1


# ---- models as teachers ---------------------------------------------------------------------------------------------


def network(vocab_size: int, seed: int = 0) -> Transformer:
    made = Transformer(Shape(vocab_size, 16, 1, 2, 1, 8, 32))
    made.init_weights(torch.Generator().manual_seed(seed))
    return made


def other() -> Tokenizer:
    return Tokenizer.train(["entirely other words entirely other words"], 290)


def test_a_chat_model_with_other_tokens_gives_texts(tmp_path: Path) -> None:
    mine = Tokenizer.train(["red blue green red blue green"], 280)
    save_model(tmp_path / "chat", network(mine.vocab_size), mine, {"name": "c", "form": None, "chat": True})
    teacher = load_teacher(str(tmp_path / "chat"), other(), None)
    assert isinstance(teacher, WriterTeacher)
    conversations = [talk("red"), talk("blue", "green", "red red red"), talk("green blue")]
    answers = texts(teacher.answer(conversations, 6))
    assert answers == [texts(teacher.answer([each], 6))[0] for each in conversations] and any(answers)
    assert isinstance(load_teacher(str(tmp_path / "chat"), mine, None), LogitTeacher)


def test_a_model_of_the_job_labels_in_the_jobs_form(tmp_path: Path) -> None:
    form = build_form(job(), "units", 280, True, None)
    model = network(form.tokenizer.vocab_size)
    ModelPredictor("0.1m", TorchModel(model), form, 4).save(tmp_path / "j", model, {})
    teacher = load_teacher(str(tmp_path / "j"), other(), None, job_form=True)
    assert isinstance(teacher, JobTeacher)
    found = label(job(), teacher, ["red kite", "blue kite"])
    assert (
        [e.output for e in found]
        == teacher.outputs(["red kite", "blue kite"])
        == texts(teacher.answer([talk("red kite"), talk("x", "y", "blue kite")], 1))
    )
    assert all(e.output in job().labels for e in found)
    with pytest.raises(SmallfryError, match="cannot converse"):
        load_teacher(str(tmp_path / "j"), other(), None)


def gpt2(path: Path, tokenizer: Tokenizer, positions: int = 64) -> Path:
    """An architecture that smallfry does not compute itself, with a tokenizer of ours."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=tokenizer.vocab_size + 6, n_positions=positions, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
        eos_token_id=3,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    tokenizer.save(path / "tokenizer.json")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "bos_token": "<|bos|>"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return path


def test_a_hugging_face_model_with_the_same_tokens_gives_distributions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Tokenizer.train(["red blue green red blue green"], 280)
    teacher = load_teacher(str(gpt2(tmp_path / "gpt2", mine)), mine, None)
    assert isinstance(teacher, LogitTeacher) and teacher.vocab_size == mine.vocab_size
    rng = np.random.default_rng(0)
    ids = rng.integers(mine.vocab_size, size=(5, 12))
    weights = (rng.random((5, 11)) < 0.4).astype(np.float32)
    weights[2] = 0.0
    batch = Batch(ids[:, :-1], ids[:, 1:], weights, np.arange(5))
    whole = teacher.soft(batch, 0.5, 2.0, 8)
    with torch.no_grad():
        network: Any = teacher.network
        logits = network.model(torch.from_numpy(batch.ids)).logits[..., : mine.vocab_size]
    best = torch.softmax(logits.float() / 2.0, -1).topk(8, -1).values.numpy()
    assert np.allclose(whole.probs, np.where(weights[..., None] > 0, best, 0.0), atol=1e-6)
    monkeypatch.setattr("smallfry.tuning.soft._LOGITS", 1)  # a row at a time
    apart = teacher.soft(batch, 0.5, 2.0, 8)
    assert np.allclose(apart.probs, whole.probs, atol=1e-6)
    none = teacher.soft(replace(batch, weights=np.zeros_like(weights)), 0.5, 2.0, 8)
    assert not none.probs.any()
    long = np.zeros((1, 80), dtype=np.int64)
    with pytest.raises(SmallfryError, match="reads 64 tokens at most, got rows of 80"):
        teacher.soft(Batch(long, long, np.ones((1, 80), np.float32), np.arange(1)), 0.5, 2.0, 8)


def test_a_hugging_face_model_with_other_tokens_gives_texts(tmp_path: Path) -> None:
    mine = Tokenizer.train(["red blue green red blue green"], 280)
    teacher: LogitTeacher | TextTeacher = load_teacher(str(gpt2(tmp_path / "gpt2", mine)), other(), None)
    assert isinstance(teacher, HfTeacher)
    asked = [talk("red"), talk("sys: x", "blue", "green", "red")]
    answers = texts(teacher.answer(asked, 5))
    assert len(answers) == 2 and answers == texts(teacher.answer(asked, 5))


# ---- who they are ---------------------------------------------------------------------------------------------------


def test_a_teacher_is_known_by_its_weights(tmp_path: Path) -> None:
    mine = Tokenizer.train(["red blue green red blue green"], 280)
    paths = [tmp_path / name for name in ("one", "same", "other")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        save_model(path, network(mine.vocab_size, seed), mine, {"name": path.name, "form": None, "chat": True})
    one, same, other = (identity_of(str(path), None) for path in paths)
    card = json.loads((paths[0] / "smallfry.json").read_text(encoding="utf-8"))
    assert one == {"name": str(paths[0]), "weights_sha256": card["weights_sha256"]}
    assert one["weights_sha256"] == same["weights_sha256"] != other["weights_sha256"]
    assert identity_of("http://me:hush@host/v1?token=hush", "big") == {"address": "http://host/v1", "model": "big"}
    with pytest.raises(SmallfryError, match="which model there"):
        identity_of("http://host/v1", None)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (paths[0] / "model.safetensors").rename(paths[0] / "model-1.safetensors")
    (paths[0] / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(SmallfryError, match="its weights cannot be read") as caught:
        identity_of(str(paths[0]), None)
    assert "\n" not in str(caught.value)
    (paths[0] / "model-2.safetensors").write_bytes(b"more")
    assert identity_of(str(paths[0]), None)["weights_sha256"] not in (one, other)
