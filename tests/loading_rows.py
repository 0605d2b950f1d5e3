"""A small job's rows, and what loading makes of rows and sources, for the tests of loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smallfry.errors import SmallfryError
from smallfry.job import Example, Job
from smallfry.loading import load_job

LABELS = ("red", "green", "blue")


def rows_of(n: int, split: str | None = None, prefix: str = "ask") -> list[dict[str, Any]]:
    """n rows of a small classify job."""
    rows: list[dict[str, Any]] = []
    for i in range(n):
        row: dict[str, Any] = {"input": f"{prefix} word{i} please", "output": LABELS[i % 3]}
        if split:
            row["split"] = split
        rows.append(row)
    return rows


def all_rows(job: Job) -> list[Example]:
    return [*job.train, *job.valid, *job.test]


def refused(source: str | Path, **options: Any) -> str:
    """The one line a bad source is refused with."""
    with pytest.raises(SmallfryError) as caught:
        load_job(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message
