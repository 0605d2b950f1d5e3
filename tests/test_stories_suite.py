"""The stories suite, its judge, the contamination check and hub data."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smallfry.builtin import load_builtin
from smallfry.checkpoint import save_model
from smallfry.cli import main
from smallfry.errors import SmallfryError
from smallfry.evals.suites import contamination, hub, sources, stories
from smallfry.evals.suites.core import CORE
from smallfry.evals.suites.judge import Judge, graded
from smallfry.evals.suites.measure import measure_task
from smallfry.evals.suites.prompts import Task
from smallfry.evals.suites.scoring import GuessingModel
from tests.test_suites import DATA, TOKENIZER, model

NAMES = ("Lily", "Tom", "Anna", "Ben", "Mia", "Sam", "Zoe", "Max")
THINGS = ("ball", "kite", "drum", "boat", "lamp", "cake", "hat", "coin")


def told(n: int) -> str:
    name, thing = NAMES[n % 8], THINGS[n // 8 % 8]
    return (
        f"Once upon a time there was a child named {name}. One day {name} found a {thing}. It was very old. "
        f"When {name} came home, mother saw the {thing}. Then {name} slept in bed {n}. Day {n} came. "
        f"In the morning the {thing} was gone. The end."
    )


TEXTS = [told(n) for n in range(64)]


def test_questions_have_one_true_answer_and_no_other_hint() -> None:
    built = stories.build("told", TEXTS)
    assert [t.name for t in built.tasks] == ["continuation", "names", "objects"]
    for task in built.tasks:
        assert len(task.rows) > 20
        for row in task.rows:
            choices = row["choices"]
            assert len(choices) == len(set(choices)) == stories.CHOICES
            whole = f"{row['query']} {choices[row['gold']]}"
            assert any(text.startswith(whole) for text in TEXTS)
            if task.name != "continuation":
                assert choices[row["gold"]] in row["query"]
                assert not any(c in row["query"] for i, c in enumerate(choices) if i != row["gold"])
        golds = np.bincount([row["gold"] for row in task.rows], minlength=4) / len(task.rows)
        assert golds.max() < 0.6
    mine = [name for name in NAMES if name in built.tasks[0].rows[0]["query"]]
    assert all(mine[0] in c for c in built.tasks[0].rows[0]["choices"] if any(name in c for name in NAMES))
    assert built == stories.build("told", TEXTS) != stories.build("told", TEXTS, seed=1)
    with pytest.raises(SmallfryError, match="five sentences or more; expected at least 4"):
        stories.build("short", ["One. Two."] * 9)


def test_comparing_words_finds_all_that_comes_again() -> None:
    asked = stories.build("told", TEXTS)
    found = {task.name: task for task in stories.story_overlap(asked)}
    assert found["names"].accuracy == found["objects"].accuracy == 1.0
    assert found["continuation"].n == len(asked.tasks[0].rows) and 0.0 < found["continuation"].accuracy < 1.0
    # Of two shared words the rarer counts more, and without one it guesses: always the first would be right.
    rows = ({"query": "The dog saw a comet", "choices": ["the dog", "a comet", "Rain.", "Snow."], "gold": 1},)
    blank = tuple({"query": "Rain", "choices": ["a", "b", "c", "d"], "gold": 0} for _ in range(200))
    texts = ("The dog ran.", "A dog ate.", "The dog saw a comet.", "The end.")
    two = stories.Stories("x", texts, (Task("one", "multiple_choice", rows), Task("two", "multiple_choice", blank)), ())
    one, two_ = stories.story_overlap(two)
    assert one.accuracy == 1.0 and 0.1 < two_.accuracy < 0.4


def test_stories_keep_their_quotation_marks() -> None:
    text = 'He said, "I know!" She said, "Yes." They ran.\n\nThen it was late. The end.'
    parts = [text[a:b] for a, b in stories.sentences(text)]
    assert parts == ['He said, "I know!"', 'She said, "Yes."', "They ran.", "Then it was late.", "The end."]
    for task in stories.build("quoted", [text.replace("ran", f"ran {n} miles") for n in range(40)]).tasks[:1]:
        for row in task.rows:
            assert text.replace("ran", "X")[:10] == row["query"][:10] and row["query"].count('"') % 2 == 0


def test_what_is_written_is_counted() -> None:
    prompts = ["There was a girl named Lily. She had a cat."] * 2
    found = {
        m.name: m.value for m in stories.written_measures(prompts, ["so then Lily ran to Ben and Lily", "a b " * 9])
    }
    assert found["names kept"] == pytest.approx(2 / 3) and found["hero mentioned"] == 0.5
    assert found["repetition"] == pytest.approx((0 + 13 / 15) / 2)
    assert found["variety"] == pytest.approx((7 + 2) / (7 + 17))


def test_the_built_in_stories_need_no_data() -> None:
    source, texts = stories.story_texts(None, None)
    assert source == "built-in stories" and len(texts) > 1000
    built = stories.build(source, texts, limit=60)
    assert [len(t.rows) for t in built.tasks] == [60, 60, 60]
    guessed = measure_task(GuessingModel(model()), built.tasks[0])
    assert guessed.accuracy == pytest.approx(0.25, abs=0.17)


@pytest.mark.skipif(not DATA.exists(), reason="needs the stories beside the checkout")
def test_questions_of_real_stories() -> None:
    source, texts = stories.story_texts(None, DATA)
    built = stories.build(source, texts)
    assert source == "tinystories_valid.jsonl.gz" and [len(t.rows) for t in built.tasks] == [1000] * 3


class Endpoint(BaseHTTPRequestHandler):
    """Grades by the length of what it is shown."""

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        asked = json.loads(self.rfile.read(size))
        text = asked["messages"][0]["content"]
        clear = "<think>Grammar: 2?</think> Grammar: 7/10, Creativity (1-10): 5, **Consistency**: 8.5"
        reply = "I cannot say." if "unreadable" in text else clear
        self.server.seen.append((self.path, asked["model"], self.headers["Authorization"]))  # type: ignore[attr-defined]
        body = json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
        codes = {"forbidden": 403, "elsewhere": 302, "busy": 429 if len(self.server.seen) % 2 else 200}  # type: ignore[attr-defined]
        self.send_response(next((code for word, code in codes.items() if word in text), 200))
        self.send_header("Location", self.path)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_judge_grades(endpoint: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALLFRY_JUDGE_KEY", "secret")
    judge = Judge(f"http://127.0.0.1:{endpoint.server_port}/v1", "big")
    measures, note = graded(judge, ["a", "b", "c"], ["x", "unreadable", "y"])
    assert note == "judge: grades of 2 of 3 continuations could be read"
    found = {m.name: (m.value, m.n) for m in measures}
    assert found == {"grammar": (7.0, 2), "creativity": (5.0, 2), "consistency": (8.5, 2)}
    assert endpoint.seen[0] == ("/v1/chat/completions", "big", "Bearer secret")  # type: ignore[attr-defined]
    with pytest.raises(SmallfryError, match="answered 403"):
        judge.grade("forbidden", "")
    before = len(endpoint.seen)  # type: ignore[attr-defined]
    with pytest.raises(SmallfryError, match="answered 302"):
        judge.grade("elsewhere", "")
    assert len(endpoint.seen) == before + 1  # type: ignore[attr-defined]
    measures, note = graded(judge, ["a", "forbidden", "c"], ["x", "y", "z"])
    assert [m.n for m in measures] == [1, 1, 1] and "1 of 3" in note and "answered 403" in note
    busy = Judge(judge.url, "big", patience=0.001)
    assert busy.grade("busy", "") is not None
    with pytest.raises(SmallfryError, match="expected an address"):
        Judge("file:///etc/passwd", "x").grade("a", "b")
    with pytest.raises(SmallfryError, match="no usable answer"):
        Judge("http://127.0.0.1:9/v1", "x", timeout=2).grade("a", "b")


def test_stories_from_the_command_line(
    tmp_path: Path, endpoint: HTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        save_model(tmp_path / name, model(seed=seed).model, TOKENIZER, {"name": name})
    texts = tmp_path / "told.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    args = [str(tmp_path / "a"), str(tmp_path / "b"), "--suite", "stories", "--text", str(texts), "--limit", "8"]
    judge = ["--judge", f"http://127.0.0.1:{endpoint.server_port}/v1", "--judge-model", "big"]
    argv = ["smallfry", "eval", *args, *judge, "--trained-on", str(texts), "--json"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr().out
    assert ended.value.code == 0, out
    found = json.loads(out.splitlines()[-1])
    assert {t["name"] for t in found["tasks"]} == {"continuation", "names", "objects"}
    assert {"bits per byte", "repetition", "variety", "grammar"} <= {m["name"] for m in found["measures"]}
    assert set(found["controls"]) == {"guessing", "untrained", "majority", "overlap"}
    assert len(found["comparison"]) == 3
    assert all(o["found"] == o["n"] for o in found["contamination"])  # it was trained on exactly these
    assert "share 13 words in a row" in out
    assert len(found["written"][str(tmp_path / "a")]) == 8


# ---- contamination --------------------------------------------------------------------------------------------------


def test_items_in_the_training_text_are_found(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(400)]
    (tmp_path / "a.txt").write_text("Other things. " + " ".join(words[:60]))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(json.dumps({"messages": [{"content": "Before, " + ", ".join(words[100:130]).upper()}]}) + "\n")
    (tmp_path / "c.bin").write_bytes(b"\xff")
    rows = tuple(
        {"query": " ".join(words[at : at + 20]), "choices": ["x", "y"], "gold": 0} for at in (5, 105, 200, 300)
    )
    short = ({"query": "too short", "choices": ["x", "y"], "gold": 0},)
    task = Task("mc", "multiple_choice", rows + short)
    found = contamination.overlaps(contamination.texts_of([task]), contamination.training_texts(tmp_path))
    assert [o.to_dict() for o in found] == [{"task": "mc", "n": 4, "whole": 0, "found": 2, "short": 1}]
    assert contamination.overlaps(contamination.texts_of([task]), [])[0].found == 0
    with pytest.raises(SmallfryError, match="no training text"):
        list(contamination.training_texts(tmp_path / "c.bin"))
    (tmp_path / "d.jsonl").write_text("{")
    with pytest.raises(SmallfryError, match=r"d\.jsonl: cannot be read as training text"):
        list(contamination.training_texts(tmp_path / "d.jsonl"))


# ---- the hub --------------------------------------------------------------------------------------------------------

LETTERED = {"question": "Why?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}
HUB_ROWS: dict[str, dict[str, Any]] = {
    "core/arc_easy.jsonl.gz": LETTERED,
    "core/openbook_qa.jsonl.gz": {**LETTERED, "question_stem": "Why?"},
    "core/boolq.jsonl.gz": {"passage": "P.", "question": "is it", "answer": True},
    "core/copa.jsonl.gz": {"premise": "It fell.", "question": "cause", "choice1": "He", "choice2": "She", "label": 1},
    "core/hellaswag.jsonl.gz": {
        "activity_label": "Roof", "ctx_a": "A man sits.", "ctx_b": "he", "endings": ["[title] sings"] * 4, "label": "3",
    },
    "core/lambada_openai.jsonl.gz": {"text": "He saw the dog"},
    "core/piqa.jsonl.gz": {"goal": "How?", "sol1": "so", "sol2": "not", "label": 0},
    "core/squad.jsonl.gz": {"context": "C", "question": "Q?", "answers": {"text": ["A"]}},
    "core/winogrande.jsonl.gz": {"sentence": "Ann met Bo and _ ran.", "option1": "Ann", "option2": "Bo", "answer": "2"},
    "core/coqa.jsonl.gz": {"story": "S", "questions": ["q1", "q2"], "answers": {"input_text": ["a1", "a2"]}},
    "gsm8k.jsonl.gz": {"question": "Q", "answer": "so\n#### 1,200"},
}  # fmt: skip


def test_hub_rows_take_the_form_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, config: str | None, split: str) -> list[dict[str, Any]]:
        asked.append((name, config, split))
        return [next(row for file, row in HUB_ROWS.items() if hub.SOURCES[file].name == name)]

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = sources.Data(None, True)
    made = {file: data.rows(file) for file in HUB_ROWS}
    assert made["core/arc_easy.jsonl.gz"][0] == {
        "query": "Question: Why?", "choices": ["a", "b"], "gold": 1, "split": "test",
    }  # fmt: skip
    assert made["core/copa.jsonl.gz"][0]["query"] == "It fell, because"
    assert made["core/piqa.jsonl.gz"][0]["query"] == "Question: How?\n"
    assert made["core/hellaswag.jsonl.gz"][0]["query"] == "Roof: A man sits. he"
    assert made["core/winogrande.jsonl.gz"][0]["context_options"] == ["Ann met Bo and Ann", "Ann met Bo and Bo"]
    assert [r["continuation"] for r in made["core/coqa.jsonl.gz"]] == ["a1", "a2"]
    assert "Preceding questions:\nQuestion: q1\nAnswer: a1\n" in made["core/coqa.jsonl.gz"][1]["context"]
    assert made["gsm8k.jsonl.gz"][0]["final"] == "1,200"
    assert ("allenai/ai2_arc", "ARC-Easy", "test") in asked


@pytest.mark.skipif(not DATA.exists(), reason="needs the benchmark data beside the checkout")
def test_hub_rows_have_the_fields_of_the_local_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for file, raw in HUB_ROWS.items():
        if file == "core/coqa.jsonl.gz":
            continue
        made, local = hub.SOURCES[file].row(raw), sources.read_rows(DATA / file)[0]
        assert isinstance(made, dict) and set(made) <= set(local), file
        for key, value in made.items():
            assert type(value) is type(local[key]), (file, key)
            if isinstance(value, str) and value[-1] in ":\n":  # the template's end
                assert local[key][-1] == value[-1], (file, key)


def test_what_neither_folder_nor_hub_has_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    tries: list[str] = []

    def gone(name: str, *_: Any, **__: Any) -> None:
        tries.append(name)
        raise ConnectionError("no network\nhere")

    monkeypatch.setattr(datasets, "load_dataset", gone)
    monkeypatch.setattr(datasets, "get_dataset_config_names", gone)
    monkeypatch.delenv(sources.VARIABLE, raising=False)
    for ask in (sources.blimp_tasks, sources.core_tasks):
        with pytest.raises(SmallfryError) as told_why:
            ask(sources.Data.find(None))
        message = str(told_why.value)
        assert "--data-dir or SMALLFRY_DATA" in message and "Hugging Face hub" in message and "\n" not in message
    assert len(tries) == 2  # one way to the hub that fails is enough for a suite
    (tmp_path / "core").mkdir()
    with pytest.raises(
        SmallfryError, match=r"has no core/lambada_openai\.jsonl\.gz, and the Hugging Face hub gave none"
    ):
        sources.lambada_tasks(sources.Data.find(tmp_path, hub=True))


@pytest.mark.skipif(not DATA.exists(), reason="needs the benchmark data beside the checkout")
def test_the_table_of_core_is_the_field_s() -> None:
    assert [tuple(t) for t in sources._config(DATA)] == [tuple(t) for t in CORE] and len(CORE) == 22


def test_job_stories_are_held_out() -> None:
    held_out = {row.output for row in load_builtin("stories", n_train=1).test}
    assert set(stories.story_texts(None, None)[1]) == held_out
