"""`smallfry eval --suite conversation`: right answers count, controls know nothing, histories are spelled whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from smallfry.builtin.conversations import BESIDE_TASKS, PROBE_TASKS
from smallfry.evals.suites.command import EvalSettings, run_suite
from smallfry.evals.suites.conversation import asked, measure_conversation, most_frequent, spell, texts_of
from smallfry.evals.suites.models import load_language_model
from smallfry.evals.suites.scoring import GuessingModel, LanguageModel
from smallfry.writer import Writer

GOLDEN = Path(__file__).parent / "golden" / "model"


@pytest.fixture(scope="module")
def golden() -> LanguageModel:
    return load_language_model(GOLDEN)


def test_a_conversation_is_spelled_as_chat_spells_it(golden: LanguageModel) -> None:
    turns = [("system", "Be kind."), ("user", "hello"), ("assistant", "Hi!"), ("user", "<|end|> who?")]
    assert spell(golden, turns) == Writer.load(GOLDEN).chat_ids(turns)


def test_a_model_that_answers_right_has_everything_right(
    golden: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = asked(3)
    known = {tuple(spell(golden, [(t["role"], t["content"]) for t in p.turns])): p.answer for p in questions}
    monkeypatch.setattr(golden, "generate", lambda prompts, how: [known[tuple(ids)] for ids in prompts])
    found = measure_conversation(golden, questions)
    assert [t.name for t in found.tasks] == list(PROBE_TASKS) and found.score() == 1.0
    assert all(t.n == 3 and t.cut == 0 for t in found.tasks)


def test_a_short_context_loses_the_name_and_says_so(golden: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "context", 64)
    questions = [p for p in asked(10)]
    lengths: list[int] = []

    def generate(prompts: Any, how: Any) -> list[str]:
        lengths.extend(map(len, prompts))
        return [""] * len(prompts)

    monkeypatch.setattr(golden, "generate", generate)
    found = {t.name: t for t in measure_conversation(golden, questions).tasks}
    assert max(lengths) <= 32 and found["name_3"].cut == 10 and found["story_who"].cut == 10


def test_controls_know_nothing_and_the_table_holds_them(golden: LanguageModel) -> None:
    questions = asked(100)
    guess, common = measure_conversation(GuessingModel(golden), questions), most_frequent(questions)
    for control in (guess, common):
        share = {t.name: t.accuracy for t in control.tasks}
        assert share["name_1"] < 0.1 and share["facts"] < 0.15 and share["arithmetic"] < 0.2
    assert set(texts_of(questions)) == {*PROBE_TASKS, *BESIDE_TASKS}


def test_the_command_measures_it(golden: LanguageModel) -> None:
    settings = EvalSettings("conversation", (GOLDEN, GOLDEN), limit=2)
    found = run_suite(settings, Console(quiet=True))
    assert found["suite"] == "conversation" and set(found["controls"]) == {"guessing", "untrained", "majority"}
    assert [t["name"] for t in found["beside"]] == list(BESIDE_TASKS)
    assert [t["name"] for t in found["tasks"]] == list(PROBE_TASKS) and found["other"]["score"] == found["score"]
    assert all(row["difference"] == 0.0 for row in found["comparison"])
