"""ChatCORE: letters, word problems with their calculator, programs from conversations."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallfry.checkpoint import save_model
from smallfry.evals.suites import chat
from smallfry.evals.suites.models import HfScorer, load_language_model
from smallfry.evals.suites.scoring import Group, GuessingModel, Scored, Writing
from smallfry.evals.suites.sources import Data
from smallfry.evals.suites.texts import HfTexts
from smallfry.evals.suites.transformer import TransformerScorer
from tests.test_suites import DATA, TOKENIZER, model

QUESTION = {"query": "Which?", "choices": ["this", "that", "these"], "gold": 1}
PROBLEM = {"question": "How many?", "final": "1,200"}


class Scripted(GuessingModel):
    """Prefers one letter and writes one text, asking the tool as it goes."""

    def __init__(self, letter: str = "A", text: str = "") -> None:
        super().__init__(model())
        self.letter, self.text = letter, text

    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        wanted = tuple(self.texts.encode(self.texts.lead + self.letter))
        return [[Scored(0.0 if b.ids == wanted else -1.0, 1, False) for b in g.branches] for g in groups]

    def generate(self, prompts: Sequence[Sequence[int]], how: Writing) -> list[str]:
        tool = how.tool
        written = ""
        for char in self.text:
            written += char
            written += (tool(written) or "") if tool else ""
        return [written] * len(prompts)


def test_letters_stand_after_the_choices_as_the_model_will_write_them() -> None:
    asked = chat.letters_prompt("Which?", ["this", "that"], " ")
    assert "- this= A\n- that= B\n" in asked and asked.endswith("Respond only with the letter of the correct answer.")
    found = chat.measure_letters(Scripted("B"), "mc", [QUESTION] * 4)
    assert found.accuracy == 1.0 and found.floors == {"v1": 0.25, "v2": 0.25}
    assert chat.measure_letters(Scripted("C"), "mc", [QUESTION] * 4).accuracy == 0.0


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12/60", "0.2"),
        ("2*(3+4)", "14"),
        ("-3 + 5", "2"),
        ("1,000*2", "2000"),
        ("$5*3", "15"),
        ("1/3", "0.3333333333"),
    ],
)
def test_arithmetic(expression: str, value: str) -> None:
    assert chat.calculate(expression) == value


@given(st.text(max_size=30))
def test_nothing_but_arithmetic_is_calculated(text: str) -> None:
    value = chat.calculate(text)
    assert value is None or float(value) == float(value)


@pytest.mark.parametrize("text", ["9**9**9", "__import__('os')", "1/0", "x", "", "True", "'a'", "(" * 500, "1e400"])
def test_what_is_refused(text: str) -> None:
    assert chat.calculate(text) is None


def test_the_calculator_finishes_what_the_model_asks_of_it() -> None:
    solution = "That is 12*100 = <<12*100="
    with_tool = Scripted(text=solution)
    assert with_tool.generate([[1]], Writing(9, chat.calculator)) == [solution + "1200>>"]
    right = Scripted(text="So it is <<600*2=.\n#### 1,200")
    assert chat.measure_gsm8k(right, [PROBLEM] * 2).accuracy == 1.0
    assert chat.measure_gsm8k(right, [PROBLEM] * 2, tool=False).name == "gsm8k_no_tool"
    assert chat.final_answer("#### -3.5.") == "-3.5" and chat.final_answer("7") is None


def test_a_tool_writes_into_both_kinds_of_models(tmp_path: Path) -> None:
    lm = model()
    save_model(tmp_path, lm.model, TOKENIZER, {"name": "tiny"})
    (tmp_path / "smallfry.json").unlink()
    other = HfScorer(tmp_path)
    same = load_language_model(tmp_path)
    assert isinstance(same, TransformerScorer) and isinstance(same.texts, HfTexts)

    def once(text: str) -> str | None:
        return " yes" if " yes" not in text else None

    prompt = [lm.texts.start() + lm.texts.encode("the small dog")]
    for scorer in (lm, other, same):
        assert " yes" in " " + scorer.generate(prompt, Writing(4, once))[0]
    assert other.texts.chat("hello")[-1] == lm.texts.chat("hello")[-1]  # the same chat template


def test_programs_come_from_the_first_code_block() -> None:
    problem = {
        "prompt": "from typing import List\n\ndef f(x):\n",
        "test": "def check(g): assert g(1) == 2",
        "entry_point": "f",
    }
    reply = "Sure.\n```python\ndef f(x):\n    return x + 1\n```\nDone."
    program = chat.chat_program(problem, reply)
    assert program.startswith("from typing import List\n") and "Sure" not in program and "Done" not in program
    if shutil.which("bwrap"):
        assert chat.measure_chat_code(Scripted(text=reply), [problem]).accuracy == 1.0
        assert chat.measure_chat_code(Scripted(text="no"), [problem]).accuracy == 0.0


@pytest.mark.skipif(not DATA.exists(), reason="needs the benchmark data beside the checkout")
def test_the_field_s_test_sets() -> None:
    sizes = [len(chat.arc_rows(Data(DATA), n)) for n in ("arc_easy", "arc_challenge")]
    assert [*sizes, len(chat.mmlu_rows(Data(DATA))), len(chat.gsm8k_rows(Data(DATA)))] == [2376, 1172, 14_042, 1319]


@pytest.mark.skipif(
    not DATA.exists() or shutil.which("bwrap") is None, reason="needs the benchmark data and bubblewrap"
)
def test_a_guesser_scores_nothing() -> None:
    found = chat.measure_chatcore(GuessingModel(model()), Data(DATA), limit=200)
    low, high = found.interval(level=0.999)
    assert low < 0 < high and [t.name for t in found.tasks] == [
        "arc_easy",
        "arc_challenge",
        "mmlu",
        "gsm8k",
        "humaneval",
    ]
    assert [t.name for t in found.beside] == ["gsm8k_no_tool"]
