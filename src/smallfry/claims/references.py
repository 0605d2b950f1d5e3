"""How a claim names a measurement: one short text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..errors import SmallfryError

Source = Literal["suite", "job", "lever", "file", "params"]
_TARGET = re.compile(r"(.+?)(>=|<=)([0-9.]+)")


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of a measurement.

    ``MODEL/SUITE`` is a suite's score, ``MODEL/SUITE/TASK`` a task's (``*`` stands for anything, which may be several),
    ``MODEL/SUITE#MEASURE`` something it measured besides, or another version of its score;
    ``job:NAME/RUNG`` the test score of a rung at a job,
    ``job:NAME/RUNG@FIELD`` another number of its row; ``lever:NAME/SIZE`` what a lever is worth, one a job and measure,
    ``lever:NAME/SIZE/TASK`` those of one job;
    ``file:PATH#KEY.KEY`` a number of another stored record; ``params:FAMILY/DEPTH/VOCAB`` a parameter count that is
    computed. ``>=0.9`` or ``<=0.1`` behind it is the target; a job has its own where none is named.

    Args:
        text: As it is written.
        source: Where it is found.
        name: Model, job, lever, path or family.
        part: Suite, rung, size, keys, or depth and vocabulary.
        task: Task, or empty.
        measure: Measure or field, or empty.
        target: What counts as workable, or None.
        lower: Whether less is better.
    """

    text: str
    source: Source
    name: str
    part: str
    task: str = ""
    measure: str = ""
    target: float | None = None
    lower: bool = False

    @property
    def label(self) -> str:
        """As a table shows it."""
        if self.source == "suite":
            return f"{self.name}, {self.part}{': ' if self.task or self.measure else ''}{self.task or self.measure}"
        if self.source == "job":
            return f"{self.name}, {self.part}{': ' if self.measure else ''}{self.measure.replace('_', ' ')}"
        if self.source == "params":
            return f"parameters of {self.name} {self.part}".rstrip()
        return f"{self.source} {self.name}, {self.part}"


def read_reference(text: str) -> Reference:
    """Take a reference apart.

    Raises:
        SmallfryError: It is of none of the known forms.
    """
    name, target, lower = text, None, False
    if match := _TARGET.fullmatch(text):
        name, target, lower = match[1], float(match[3]), match[2] == "<="
    kind, colon, rest = name.partition(":")
    if not colon:
        kind, rest = "suite", name
    pattern = {
        "suite": r"(?P<name>[\w.-]+)/(?P<part>[\w.-]+)(?:/(?P<task>[\w.*-]+)|#(?P<measure>[\w ]+))?",
        "job": r"(?P<name>[\w.-]+)/(?P<part>[\w.]+)(?:@(?P<measure>\w+))?",
        "lever": r"(?P<name>[\w-]+)/(?P<part>[\w.]+)(?:/(?P<task>\w+))?",
        "file": r"(?P<name>[\w./-]+)#(?P<part>[\w.]+)",
        "params": r"(?P<name>[\w-]+)(?:/(?P<part>[\d/]+))?",
    }.get(kind)
    found = re.fullmatch(pattern, rest) if pattern else None
    if found is None:
        raise SmallfryError(
            f"{text}: not the name of a measurement; expected such as MODEL/SUITE, job:NAME/RUNG or lever:NAME/SIZE"
        )
    parts = {key: value for key, value in found.groupdict().items() if value}
    return Reference(text, kind, target=target, lower=lower, **({"part": ""} | parts))  # type: ignore[arg-type]
