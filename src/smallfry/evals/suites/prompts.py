"""From benchmark rows to groups of scored tokens, as DCLM and nanochat build their prompts.

Examples before a question are drawn from the task's own rows by ``Random(1234 + index)``, the question itself left out;
rows are first put in the order of ``Random(1337).shuffle``. Choices are compared by mean log-probability a token after
their common prefix, schemas by that of their common suffix, a free continuation counts when greedy decoding writes it
(nanochat, core_eval; DCLM, Li et al. 2024), and of a minimal pair the sentence with the higher log-probability is taken
(BLiMP, Warstadt et al. 2020).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smallfry.evals.suites.scoring import Branch, Group, LanguageModel, Scored

TaskType = Literal["multiple_choice", "schema", "language_modeling", "pair"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One task of a suite.

    Args:
        name: Its label.
        type: How rows are asked and scored.
        rows: Rows in the order they are asked.
        shots: Examples before each question.
        delimiter: What stands between a question and its answer.
        floors: What counts as knowing nothing, as shares, by version of the baselines.
        rule: Whether choices are compared by mean log-probability a token or by their sum; pairs always by the sum.
    """

    name: str
    type: TaskType
    rows: tuple[Row, ...]
    shots: int = 0
    delimiter: str = " "
    floors: Mapping[str, float] | None = None
    rule: Literal["mean", "sum"] = "mean"

    @property
    def golds(self) -> list[int]:
        """The right choice of each row; 0 where there is nothing to choose."""
        return [int(row.get("gold", 0)) for row in self.rows]

    @property
    def choices(self) -> list[int]:
        """How many choices each row has; 0 where there is nothing to choose."""
        key = {"multiple_choice": "choices", "schema": "context_options", "pair": "choices"}.get(self.type)
        return [len(row[key]) if key else 0 for row in self.rows]

    def choose(self, scored: Sequence[Scored]) -> int:
        """The choice that a model's scores name; for a free continuation 0 when it would write it, else -1."""
        if self.type == "language_modeling":
            return 0 if scored[0].greedy else -1
        summed = self.type == "pair" or self.rule == "sum"
        each = [s.logprob if summed else s.logprob / max(1, s.tokens) for s in scored]
        return max(range(len(each)), key=each.__getitem__)


@dataclass(frozen=True, slots=True)
class Question:
    """One row as a model is asked.

    Args:
        group: What is scored.
        shots: Examples that fit before it.
        cut: Tokens cut from the left because not even the question fitted.
    """

    group: Group
    shots: int
    cut: int


def shuffled(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The order in which the field asks them."""
    order = list(rows)
    random.Random(1337).shuffle(order)
    return tuple(order)


def examples_for(task: Task, index: int) -> list[Row]:
    """The rows that stand before a question."""
    if not task.shots:
        return []
    others = [i for i in range(len(task.rows)) if i != index]
    return [task.rows[i] for i in random.Random(1234 + index).sample(others, min(task.shots, len(others)))]


def render(task: Task, row: Row, examples: Sequence[Row]) -> list[str]:
    """The texts of a question: one a choice, or for a free continuation without and with it."""
    if task.type == "pair":
        return list(row["choices"])
    shots = "".join(f"{_solved(task, example)}\n\n" for example in examples)
    if task.type == "multiple_choice":
        return [f"{shots}{row['query']}{task.delimiter}{choice}" for choice in row["choices"]]
    if task.type == "schema":
        return [f"{shots}{option}{task.delimiter}{row['continuation']}" for option in row["context_options"]]
    bare = f"{shots}{row['context'].strip()}{task.delimiter}"
    return [bare.strip(), f"{bare}{row['continuation']}"]


def _solved(task: Task, row: Row) -> str:
    if task.type == "multiple_choice":
        return f"{row['query']}{task.delimiter}{row['choices'][row['gold']]}"
    if task.type == "schema":
        return f"{row['context_options'][row['gold']]}{task.delimiter}{row['continuation']}"
    return f"{row['context'].strip()}{task.delimiter}{row['continuation']}"


def ask(task: Task, index: int, model: LanguageModel) -> Question:
    """Build a question for a model; whole examples are left out from the left until it fits the model's context."""
    examples = examples_for(task, index)
    start = model.texts.start()
    while True:
        texts = [start + ids for ids in model.texts.encode_all(render(task, task.rows[index], examples))]
        if max(map(len, texts)) <= model.context or not examples:
            break
        examples = examples[1:]
    return _question(task, texts, len(examples), model.context, len(start))


def _question(task: Task, texts: list[list[int]], shots: int, context: int, start: int) -> Question:
    if task.type == "language_modeling":
        whole = texts[1]
        common = min(_common(texts), len(whole) - 1)
        branches = [(whole[common:], 0)]
        prefix = whole[:common]
    else:
        # A branch needs a token of its own, and something before it: where one text is the beginning of another, or
        # both begin with their first token, a token of the prefix is asked again.
        common = max(start, min(_common(texts), min(map(len, texts)) - 1))
        prefix = texts[0][:common]
        rest = [text[common:] for text in texts]
        same = _common([text[::-1] for text in rest]) if task.type == "schema" else 0
        branches = [(ids, max(0, len(ids) - same) if same else 0) for ids in rest]
    longest = len(prefix) + max(len(ids) for ids, _ in branches)
    cut = max(0, longest - context)
    prefix = prefix[min(cut, len(prefix) - 1) :]
    return Question(Group(tuple(prefix), tuple(Branch(tuple(ids), at) for ids, at in branches)), shots, cut)


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the common prefix."""
    length = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return length
