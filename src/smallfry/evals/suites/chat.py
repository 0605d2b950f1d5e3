"""ChatCORE: what a chat model answers to ARC, MMLU, GSM8K and HumanEval, as nanochat asks.

Choices are letters, and the likeliest letter counts. Word problems are answered in steps; where the model writes
``<<12/60=`` a calculator may finish it, as in the data set's own solutions (Cobbe et al. 2021). Programs run in the
sandbox. The score is the mean over the five of ``(accuracy - floor) / (1 - floor)``, with floors of a quarter for the
choices and nothing for the rest.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from smallfry.calculator import calculate as calculate
from smallfry.calculator import calculator as calculator
from smallfry.evals.suites import sandbox
from smallfry.evals.suites.code import humaneval_rows, run_all
from smallfry.evals.suites.measure import SuiteResult, TaskResult
from smallfry.evals.suites.scoring import Branch, Group, LanguageModel, Writing, score_all, too_long
from smallfry.evals.suites.sources import BASELINES, Data

LETTERS = "ABCDEFGHIJ"
MAX_NEW = 512
_ANSWER = re.compile(r"#### (-?[0-9.,]+)")
_BLOCK = re.compile(r"```(?:python)?\s*\n(.*?)\n```", re.DOTALL)


# ---- choices --------------------------------------------------------------------------------------------------------


def arc_rows(data: Data, name: str) -> list[dict[str, Any]]:
    """The test questions of ``arc_easy`` or ``arc_challenge``."""
    return [{**r, "query": str(r["query"]).removeprefix("Question: ")} for r in data.rows(f"core/{name}.jsonl.gz")]


def mmlu_rows(data: Data) -> list[dict[str, Any]]:
    """The test questions of all 57 subjects."""
    rows = [r for r in data.rows("mmlu.jsonl.gz") if r["split"] == "test"]
    return [{"query": r["question"], "choices": r["choices"], "gold": r["answer"]} for r in rows]


def letters_prompt(query: str, choices: Sequence[str], lead: str = "") -> str:
    """A question with lettered choices, the letter after the choice: small models bind it better so.

    Args:
        query: The question.
        choices: Up to ten.
        lead: What stands before a letter where the model answers with it, so that it is the same token here.
    """
    lines = "".join(f"- {choice}={lead}{letter}\n" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"Multiple Choice question: {query}\n{lines}\nRespond only with the letter of the correct answer."


def measure_letters(
    model: LanguageModel, name: str, rows: Sequence[Mapping[str, Any]], limit: int | None = None
) -> TaskResult:
    """Ask lettered questions; the answer is the letter with the highest log-probability."""
    asked = _order(rows)[:limit] if limit else rows
    groups = []
    cut = 0
    for row in asked:
        prefix = model.texts.chat(letters_prompt(row["query"], row["choices"], model.texts.lead))
        answers = [tuple(model.texts.encode(model.texts.lead + letter)) for letter in LETTERS[: len(row["choices"])]]
        room = model.context - max(map(len, answers))
        cut += len(prefix) > room
        groups.append(Group(tuple(prefix[-room:]), tuple(map(Branch, answers))))
    scored = score_all(model, groups)
    best = [max(range(len(s)), key=lambda i, s=s: s[i].logprob) for s in scored]  # type: ignore[misc]
    right = np.array([choice == int(row["gold"]) for choice, row in zip(best, asked, strict=True)], dtype=bool)
    return TaskResult(name, len(asked), len(rows), right, dict.fromkeys(BASELINES, 0.25), cut=cut)


def _order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A seeded order, so that the first few are a sample and not one subject."""
    order = list(rows)
    random.Random(42).shuffle(order)
    return order


# ---- word problems --------------------------------------------------------------------------------------------------


def gsm8k_rows(data: Data) -> list[dict[str, Any]]:
    """The 1,319 test problems."""
    return [r for r in data.rows("gsm8k.jsonl.gz") if r["split"] == "test"]


def final_answer(text: str) -> str | None:
    """The number after ``####``, without thousands separators; None where there is none."""
    found = _ANSWER.search(text)
    return found[1].replace(",", "").rstrip(".") if found else None


def measure_gsm8k(
    model: LanguageModel, rows: Sequence[Mapping[str, Any]], limit: int | None = None, tool: bool = True
) -> TaskResult:
    """Answer word problems greedily.

    Args:
        model: Whom to ask.
        rows: `gsm8k_rows`.
        limit: At most this many.
        tool: Whether the calculator finishes what the model asks of it.
    """
    asked = _order(rows)[:limit] if limit else rows
    prompts = [model.texts.chat(str(row["question"])) for row in asked]
    texts = model.generate(prompts, Writing(MAX_NEW, calculator if tool else None))
    right = np.array(
        [final_answer(text) == str(row["final"]).replace(",", "") for text, row in zip(texts, asked, strict=True)],
        dtype=bool,
    )
    name = "gsm8k" if tool else "gsm8k_no_tool"
    return TaskResult(
        name, len(asked), len(rows), right, dict.fromkeys(BASELINES, 0.0), cut=too_long(model, prompts, MAX_NEW)
    )


# ---- programs, and the whole ----------------------------------------------------------------------------------------


def chat_program(problem: Mapping[str, Any], reply: str) -> str:
    """The first code block of a reply, or all of it, after the prompt's imports and before the tests."""
    imports = []
    for line in map(str.strip, str(problem["prompt"]).split("\n")):
        if line.startswith(("import ", "from ")):
            imports.append(line)
        elif line and not line.startswith("#"):
            break
    block = _BLOCK.search(reply)
    code = (block[1] if block else reply).strip()
    return "\n".join([*imports, "", code, "", str(problem["test"]), f"check({problem['entry_point']})", ""])


def measure_chat_code(
    model: LanguageModel, problems: Sequence[Mapping[str, Any]], limit: int | None = None, unsafe: bool = False
) -> TaskResult:
    """Ask for each function in a conversation and run what comes back."""
    if not unsafe:
        sandbox.require()
    asked = _order(problems)[:limit] if limit else problems
    prompts = [model.texts.chat(str(p["prompt"])) for p in asked]
    replies = model.generate(prompts, Writing(MAX_NEW))
    right = run_all([chat_program(p, reply) for p, reply in zip(asked, replies, strict=True)], unsafe)
    cut = too_long(model, prompts, MAX_NEW)
    return TaskResult("humaneval", len(asked), len(problems), right, dict.fromkeys(BASELINES, 0.0), cut=cut)


def code_items(suite: str, data: Data) -> dict[str, list[str]]:
    """What each item of ``chatcore`` or ``humaneval`` says, right answer included, for the contamination check."""
    found = {"humaneval": [f"{p['prompt']} {p['canonical_solution']}" for p in humaneval_rows(data)]}
    if suite == "chatcore":
        choices = {name: arc_rows(data, name) for name in ("arc_easy", "arc_challenge")} | {"mmlu": mmlu_rows(data)}
        found |= {
            name: [f"{r['query']} {r['choices'][int(r['gold'])]}" for r in rows] for name, rows in choices.items()
        }
        found["gsm8k"] = [f"{row['question']} {row['answer']}" for row in gsm8k_rows(data)]
    return found


def most_frequent(suite: str, data: Data, limit: int | None = None) -> SuiteResult:
    """The control that always gives the most frequent letter or number; no program is frequent.

    Args:
        suite: ``chatcore`` or ``humaneval``.
        data: The suites' data.
        limit: At most this many questions a task.
    """
    tasks: list[TaskResult] = []
    if suite == "chatcore":
        choices = [("arc_easy", arc_rows(data, "arc_easy")), ("arc_challenge", arc_rows(data, "arc_challenge"))]
        for name, rows in (*choices, ("mmlu", mmlu_rows(data))):
            tasks.append(_constant(name, rows, "gold", 0.25, limit))
        tasks.append(_constant("gsm8k", gsm8k_rows(data), "final", 0.0, limit))
    problems = humaneval_rows(data)
    asked = min(len(problems), limit or len(problems))
    none = np.zeros(asked, dtype=bool)
    tasks.append(TaskResult("humaneval", asked, len(problems), none, dict.fromkeys(BASELINES, 0.0)))
    return SuiteResult(suite, "majority", tasks, "v1" if suite == "chatcore" else None)


def _constant(name: str, rows: Sequence[Mapping[str, Any]], key: str, floor: float, limit: int | None) -> TaskResult:
    common = Counter(str(row[key]) for row in rows).most_common(1)[0][0]
    asked = _order(rows)[:limit] if limit else rows
    right = np.array([str(row[key]) == common for row in asked], dtype=bool)
    return TaskResult(name, len(asked), len(rows), right, dict.fromkeys(BASELINES, floor))


def measure_chatcore(
    model: LanguageModel, data: Data, limit: int | None = None, unsafe: bool = False,
    watch: Callable[[TaskResult], None] | None = None,
) -> SuiteResult:  # fmt: skip
    """All five, and GSM8K without its calculator beside them, which is not in the score.

    Args:
        model: Whom to ask.
        data: The suites' data.
        limit: At most this many questions a task.
        unsafe: Run programs without the sandbox.
        watch: Told of every finished task.
    """
    if not unsafe:
        sandbox.require()
    problems = gsm8k_rows(data)
    steps: list[Callable[[], TaskResult]] = [
        lambda: measure_letters(model, "arc_easy", arc_rows(data, "arc_easy"), limit),
        lambda: measure_letters(model, "arc_challenge", arc_rows(data, "arc_challenge"), limit),
        lambda: measure_letters(model, "mmlu", mmlu_rows(data), limit),
        lambda: measure_gsm8k(model, problems, limit),
        lambda: measure_chat_code(model, humaneval_rows(data), limit, unsafe),
        lambda: measure_gsm8k(model, problems, limit, tool=False),
    ]
    found = []
    for step in steps:
        found.append(step())
        if watch is not None:
            watch(found[-1])
    return SuiteResult("chatcore", model.name, found[:5], "v1", beside=found[5:])
