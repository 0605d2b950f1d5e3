"""Asking a model a suite: every task with its interval, the controls beside it, two models on the same items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from smallfry.evals.paired import Paired, holm, mcnemar
from smallfry.evals.statistics import minimum_detectable_difference, normal_quantile, wilson
from smallfry.evals.suites.prompts import Question, Task, ask
from smallfry.evals.suites.scoring import LanguageModel, in_threads

CHUNK = 200  # questions between two looks at whether a task is worth going on with
LEAVE = 0.01  # a task whose upper bound lies this close to the floor or below cannot leave it
MIN_BEFORE_STOP = 400
STOP_LEVEL = 0.9999  # of the bound: a usual one, looked at again and again, would stop tasks that were only unlucky


@dataclass(slots=True)
class TaskResult:
    """One task, measured.

    Args:
        name: Of the task.
        n: Questions asked.
        total: Questions there are.
        right: ``(n,)`` booleans, in the order asked.
        floors: What counts as knowing nothing, by version.
        shots: Mean number of examples that fitted before a question.
        cut: Questions that had to be cut even without examples.
        stopped: Whether the task was broken off because its upper bound could not leave the floor.
    """

    name: str
    n: int
    total: int
    right: np.ndarray
    floors: dict[str, float]
    shots: float = 0.0
    cut: int = 0
    stopped: bool = False

    @property
    def accuracy(self) -> float:
        """Share of questions answered right."""
        return float(self.right.mean()) if self.n else 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Wilson's."""
        return wilson(float(self.right.sum()), self.n, level)

    def centered(self, version: str) -> float:
        """``(accuracy - floor) / (1 - floor)``: 0 for knowing nothing by that version's baselines, 1 for everything."""
        floor = self.floors[version]
        return (self.accuracy - floor) / (1.0 - floor)

    def error(self, version: str | None) -> float:
        """Standard error of the accuracy, or of the centred score."""
        low, high = self.interval()
        half = (high - low) / 2 / normal_quantile(0.95)
        return half if version is None else half / (1.0 - self.floors[version])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the single answers."""
        low, high = self.interval()
        return {
            "name": self.name, "n": self.n, "total": self.total, "accuracy": self.accuracy, "ci": [low, high],
            "centered": {version: self.centered(version) for version in self.floors}, "shots": self.shots,
            "cut": self.cut, "stopped": self.stopped,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measure:
    """Something measured that is no share of right answers.

    Args:
        name: Of the measure.
        value: What was found.
        ci: 95% interval, or None where there is none.
        n: Of how many texts.
        what: In words, with the direction.
        reference: What the true texts have of it, where that can be counted.
    """

    name: str
    value: float
    ci: tuple[float, float] | None
    n: int
    what: str
    reference: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        ci = None if self.ci is None else list(self.ci)
        plain = {"name": self.name, "value": self.value, "ci": ci, "n": self.n, "what": self.what}
        return plain | ({} if self.reference is None else {"reference": self.reference})


@dataclass(slots=True)
class SuiteResult:
    """A suite, measured.

    Args:
        suite: Its name.
        model: Who was asked.
        tasks: Each task.
        centered: The version of baselines that the score is centred by; None for the plain mean of accuracies.
        missing: Tasks of the suite that have no data here.
        controls: The same suite asked of candidates that know nothing, by name.
        beside: Further tasks that are shown and do not count.
        measures: What else was measured.
        notes: What must be said beside the score.
    """

    suite: str
    model: str
    tasks: list[TaskResult]
    centered: str | None = None
    missing: list[str] = field(default_factory=list)
    controls: dict[str, SuiteResult] = field(default_factory=dict)
    beside: list[TaskResult] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def score(self, version: str | None = None) -> float:
        """Mean over tasks, centred by ``version`` or by the suite's own."""
        how = version or self.centered
        return float(np.mean([t.centered(how) if how else t.accuracy for t in self.tasks]))

    def interval(self, version: str | None = None, level: float = 0.95) -> tuple[float, float]:
        """Of the score, from the tasks' standard errors; tasks are independent samples of items."""
        how = version or self.centered
        half = normal_quantile(level) * math.sqrt(sum(t.error(how) ** 2 for t in self.tasks)) / len(self.tasks)
        middle = self.score(how)
        low, high = middle - half, middle + half
        return (low, high) if how else (max(0.0, low), min(1.0, high))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        versions = {
            version: {"score": self.score(version), "ci": list(self.interval(version))}
            for version in (self.tasks[0].floors if self.centered else ())
        }
        return {
            "suite": self.suite, "model": self.model, "score": self.score(), "ci": list(self.interval()),
            "versions": versions, "missing": self.missing,
            "tasks": [t.to_dict() for t in self.tasks], "beside": [t.to_dict() for t in self.beside],
            "measures": [m.to_dict() for m in self.measures], "notes": self.notes,
            "controls": {name: control.to_dict() for name, control in self.controls.items()},
        }  # fmt: skip


def measure_task(model: LanguageModel, task: Task, limit: int | None = None, stop: bool = True) -> TaskResult:
    """Ask a model one task, in chunks, until it is done or plainly cannot leave the floor.

    Args:
        model: Whom to ask.
        task: What.
        limit: At most this many questions.
        stop: Whether to break off at the floor; not where two models are to answer the same questions.
    """
    total = min(len(task.rows), limit or len(task.rows))
    right: list[bool] = []
    shots: list[int] = []
    cut = 0
    floor = min((task.floors or {"": 0.0}).values())

    def answer(here: range) -> tuple[list[Question], list[bool]]:
        questions = [ask(task, index, model) for index in here]
        scored = model.score([q.group for q in questions])
        return questions, [
            task.choose(s) == int(task.rows[i].get("gold", 0)) for i, s in zip(here, scored, strict=True)
        ]

    size = min(CHUNK, max(16, -(-total // (8 * model.workers))))  # so that no thread waits long for the last one
    chunks = (range(at, min(at + size, total)) for at in range(0, total, size))
    for questions, answers in (answered := in_threads(answer, chunks, model.workers)):
        right += answers
        shots += [q.shots for q in questions]
        cut += sum(q.cut > 0 for q in questions)
        high = wilson(sum(right), len(right), STOP_LEVEL)[1]
        if stop and MIN_BEFORE_STOP <= len(right) < total and high < floor + LEAVE:
            answered.close()
            break
    return TaskResult(
        task.name, len(right), len(task.rows), np.array(right, dtype=bool), dict(task.floors or {}),
        float(np.mean(shots)) if shots else 0.0, cut, len(right) < total,
    )  # fmt: skip


def majority(task: Task, limit: int | None = None) -> TaskResult:
    """The control that always gives the task's most frequent answer, known from its own rows.

    For a free continuation that is the most frequent text.
    """
    total = min(len(task.rows), limit or len(task.rows))
    key = "continuation" if task.type == "language_modeling" else "gold"
    answers = [str(row[key]) for row in task.rows]
    common = Counter(answers).most_common(1)[0][0]
    right = np.array([answer == common for answer in answers[:total]], dtype=bool)
    return TaskResult(task.name, total, len(task.rows), right, dict(task.floors or {}))


def measure_suite(
    suite: str, model: LanguageModel, tasks: Sequence[Task], centered: str | None = None, missing: Sequence[str] = (),
    limit: int | None = None, watch: Callable[[TaskResult], None] | None = None, stop: bool = True,
) -> SuiteResult:  # fmt: skip
    """Ask a model every task of a suite.

    Args:
        suite: Its name.
        model: Whom to ask.
        tasks: What.
        centered: Version of baselines the score is centred by; None for accuracies.
        missing: Tasks without data, for the record.
        limit: At most this many questions a task.
        watch: Told of every finished task.
        stop: Whether hopeless tasks are broken off.
    """
    found = []
    for task in tasks:
        found.append(measure_task(model, task, limit, stop))
        if watch is not None:
            watch(found[-1])
    return SuiteResult(suite, model.name, found, centered, list(missing))


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """Two models on the same questions of one task.

    Args:
        name: Of the task.
        n: Questions both answered.
        paired: The difference, first minus second, and McNemar's exact test.
        adjusted: Its p-value after Holm's correction over the suite's tasks.
        detectable: Smallest difference that this many questions show four times in five, or None.
    """

    name: str
    n: int
    paired: Paired
    adjusted: float
    detectable: float | None


def compare(a: SuiteResult, b: SuiteResult) -> list[TaskComparison]:
    """Compare two results task by task, on the questions that both were asked."""
    other = {t.name: t for t in b.tasks}
    pairs = [(t, other[t.name], min(t.n, other[t.name].n)) for t in a.tasks if t.name in other]
    tests = [mcnemar(mine.right[:n], theirs.right[:n]) for mine, theirs, n in pairs]
    adjusted = holm([test.p_value for test in tests])
    return [
        TaskComparison(
            mine.name, n, test, p, minimum_detectable_difference(n, (test.a_only + test.b_only) / n) if n else None
        )
        for (mine, _, n), test, p in zip(pairs, tests, adjusted, strict=True)
    ]
