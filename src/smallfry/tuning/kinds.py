"""Whether data is a job or conversations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from smallfry.builtin import BUILTIN
from smallfry.errors import SmallfryError
from smallfry.loading.mixtures import weighted
from smallfry.loading.readers import Table
from smallfry.tuning.conversations import PAIRS, builtin_set, looks_like_chat, table_of

Kind = Literal["chat", "job"]


def kind_of(data: Sequence[str], output_column: str = "output") -> tuple[Kind, str]:
    """What data is, and a sentence that says why.

    A name that is a built-in job and a built-in set of conversations is the job; a file is known by its first row.

    Args:
        data: As the user named it.
        output_column: Of a job.

    Raises:
        SmallfryError: It cannot be read, or several jobs are named.
    """
    kinds = [_one(source, output_column) for source in data]
    if len(kinds) > 1 and any(kind == "job" for kind, _ in kinds):
        job = next(source for source, (kind, _) in zip(data, kinds, strict=True) if kind == "job")
        raise SmallfryError(f"{job}: is a job, and only conversations can be mixed; give one job, or chat data only")
    return kinds[0]


def _one(source: str, output_column: str) -> tuple[Kind, str]:
    if source.startswith("chat:"):
        return "chat", f"{source}: a built-in set of conversations"
    if not Path(source).exists() and source in BUILTIN:
        also = "; for the conversations of that name: chat:" + source if builtin_set("chat:" + source) else ""
        return "job", f"{source}: a built-in job{also}"
    name = weighted(source)[0]
    if builtin_set(name) is not None:
        return "chat", f"{name}: a built-in set of conversations"
    table = table_of(name)
    first = next(iter(table.rows), None)
    if first is None:
        raise SmallfryError(f"{name}: holds no rows; expected conversations, or inputs and outputs")
    if looks_like_chat(first[1]) and not (output_column != "output" and output_column in first[1]):
        return "chat", f"{name}: conversations, by its columns {_columns(table)}"
    return "job", f"{name}: a job, by its columns {_columns(table)}"


def _columns(table: Table) -> str:
    usual = {"messages", "conversations", "conversation", "input", "output", *(c for pair in PAIRS for c in pair)}
    found = [str(c)[:30] for c in table.columns]
    return ", ".join([c for c in found if c in usual] or found[:4])
