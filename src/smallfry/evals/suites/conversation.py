"""Can it hold a conversation? Held-out questions with one right answer each, in conversations the package makes.

A name told one, two or three turns before, other things told, questions about a story just told, facts of a closed
world in wordings that training does not have, arithmetic. What stands before the question is given as it should be, so
that a task measures its own question and not the model's earlier answers. Answers are written greedily, with the
calculator in reach, and are right when they have the right word and no other of its kind (`Probe.check`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from smallfry.builtin.conversations import BESIDE_TASKS, PROBE_TASKS, Probe, probes
from smallfry.calculator import calculator
from smallfry.conversation import Turn, fit, own_ids
from smallfry.evals.suites.measure import SuiteResult, TaskResult
from smallfry.evals.suites.scoring import GuessingModel, LanguageModel, Writing
from smallfry.evals.suites.sources import BASELINES
from smallfry.evals.suites.texts import HfTexts, OwnTexts

N = 200  # questions a task
MAX_NEW = 96  # tokens: the longest right answers are sums of two steps
_SEED = 0
_TASKS = (*PROBE_TASKS, *BESIDE_TASKS)
Watch = Callable[[TaskResult], None]


def asked(limit: int | None = None) -> list[Probe]:
    """The suite's questions, task by task; fewer are the first of more."""
    return probes(_SEED, min(N, limit or N))


def measure_conversation(model: LanguageModel, questions: Sequence[Probe], watch: Watch | None = None) -> SuiteResult:
    """Ask every question; the guessing model gives some right answer of the same task.

    Args:
        model: Whom to ask.
        questions: `asked`.
        watch: Told of every finished task.
    """
    tasks = []
    for name in _TASKS:
        mine = [probe for probe in questions if probe.task == name]
        cut = 0
        if isinstance(model, GuessingModel):
            rng = random.Random(f"smallfry:conversation:{name}")
            said = [mine[int(rng.random() * len(mine))].answer for _ in mine]
        else:
            said, cut = _answers(model, mine)
        tasks.append(_result(name, mine, said, cut))
        if watch is not None:
            watch(tasks[-1])
    return _whole(model.name, tasks)


def most_frequent(questions: Sequence[Probe]) -> SuiteResult:
    """The control that always gives a task's most frequent right answer."""
    tasks = []
    for name in _TASKS:
        mine = [probe for probe in questions if probe.task == name]
        common = Counter(probe.right for probe in mine).most_common(1)[0][0]
        answer = next(probe.answer for probe in mine if probe.right == common)
        tasks.append(_result(name, mine, [answer] * len(mine)))
    return _whole("majority", tasks)


def _whole(name: str, tasks: Sequence[TaskResult]) -> SuiteResult:
    """The tasks that are scored, and beside them those that are shown."""
    return SuiteResult("conversation", name, list(tasks[: len(PROBE_TASKS)]), beside=list(tasks[len(PROBE_TASKS) :]))


def texts_of(questions: Sequence[Probe]) -> dict[str, list[str]]:
    """What each item says, right answer included, for the contamination check."""
    return {
        name: [" ".join([*(t["content"] for t in p.turns), p.answer]) for p in questions if p.task == name]
        for name in _TASKS
    }


def _result(name: str, mine: Sequence[Probe], said: Sequence[str], cut: int = 0) -> TaskResult:
    right = np.array([probe.check(text) for probe, text in zip(mine, said, strict=True)], dtype=bool)
    return TaskResult(name, len(mine), len(mine), right, dict.fromkeys(BASELINES, 0.0), cut=cut)


def _answers(model: LanguageModel, mine: Sequence[Probe]) -> tuple[list[str], int]:
    """What a model says, and of how many conversations it could not read everything."""
    room = min(MAX_NEW, model.context // 2)
    prompts, cut = [], 0
    for probe in mine:
        fitted = fit(
            [(t["role"], t["content"]) for t in probe.turns], lambda turns: spell(model, turns), model.context, room
        )
        prompts.append(fitted.ids)
        cut += fitted.dropped + fitted.cut > 0
    return model.generate(prompts, Writing(MAX_NEW, calculator)), cut


def spell(model: LanguageModel, turns: Sequence[Turn]) -> list[int]:
    """Token ids of a conversation in which it is the model's turn, in the model's own spelling.

    A tokenizer without a chat template gets the texts line by line.
    """
    texts = model.texts
    if isinstance(texts, OwnTexts):
        return own_ids(turns, texts.encode)
    if isinstance(texts, HfTexts) and getattr(texts.tokenizer, "chat_template", None):
        messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in turns]
        return list(texts.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    return [*texts.start(), *texts.encode("\n".join(text for _, text in turns) + "\n")]
