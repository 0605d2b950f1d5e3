"""Grades by a larger model behind an OpenAI-compatible endpoint, as TinyStories gives them (Eldan and Li 2023).

The judge sees the beginning of a story and how a model went on, and grades grammar, creativity and consistency with the
beginning from 1 to 10. What it answers is only searched for three numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smallfry.endpoint import Endpoint
from smallfry.errors import SmallfryError
from smallfry.evals.statistics import interval_of
from smallfry.evals.suites.measure import Measure

KEY = "SMALLFRY_JUDGE_KEY"
ASPECTS = ("grammar", "creativity", "consistency")
_GRADE = {
    aspect: re.compile(rf"{aspect}\W{{0,3}}?(?:\([^)]{{0,20}}\))?[\s:=*_]{{0,6}}(\d+(?:\.\d+)?)", re.IGNORECASE)
    for aspect in ASPECTS
}
_ASK = (
    "A student was given the beginning of a story and wrote how it goes on. The part before *** was given, the part "
    "after it is the student's.\n\n{prompt} *** {text}\n\nGrade the student's part for grammar, creativity and "
    "consistency with the beginning, each from 1 to 10. Answer with one line:\n"
    "Grammar: N, Creativity: N, Consistency: N"
)


@dataclass(frozen=True, slots=True)
class Judge:
    """An endpoint that grades.

    Args:
        url: Its address up to and with ``/v1``.
        model: The name of the model there.
        timeout: Seconds to wait for one answer.
        patience: Factor on the seconds between tries where the endpoint is busy.
    """

    url: str
    model: str
    timeout: float = 120.0
    patience: float = 1.0

    def grade(self, prompt: str, text: str) -> dict[str, float] | None:
        """Grades of one continuation; None where the answer holds no three numbers from 1 to 10.

        Raises:
            SmallfryError: The endpoint cannot be reached or refuses.
        """
        endpoint = Endpoint(self.url, self.model, KEY, "--judge", self.timeout, self.patience)
        answer = endpoint.complete([{"role": "user", "content": _ASK.format(prompt=prompt, text=text)}])
        found = {aspect: _GRADE[aspect].findall(answer) for aspect in ASPECTS}
        grades = {aspect: float(each[-1]) for aspect, each in found.items() if each}  # what was thought first is not it
        return grades if len(grades) == len(ASPECTS) and all(1 <= g <= 10 for g in grades.values()) else None


def graded(judge: Judge, prompts: Sequence[str], texts: Sequence[str]) -> tuple[list[Measure], str]:
    """Mean grades of continuations with intervals over them, and a note where some could not be had."""
    grades, problem = [], ""
    for prompt, text in zip(prompts, texts, strict=True):
        try:
            grade = judge.grade(prompt, text)
        except SmallfryError as error:  # what was graded before it stays
            problem = f"; then {error}"
            break
        if grade is not None:
            grades.append(grade)
    found = []
    for aspect in ASPECTS if grades else ():
        values = np.array([g[aspect] for g in grades])
        found.append(Measure(aspect, float(values.mean()), interval_of(values), len(values), f"1 to 10, {judge.model}"))
    whole = len(grades) == len(texts)
    return (
        found,
        "" if whole else f"judge: grades of {len(grades)} of {len(texts)} continuations could be read{problem}",
    )
