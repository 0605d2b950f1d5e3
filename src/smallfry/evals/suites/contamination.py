"""Whether a suite's items stand in what a model was trained on (Brown et al. 2020, appendix C)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smallfry.errors import SmallfryError
from smallfry.evals.suites.items import Finder, Items
from smallfry.evals.suites.prompts import Row, Task
from smallfry.loading.readers import file_bytes

_TEMPLATE = re.compile(r"(?:^|(?<=\n))\s*(?:Question|Answer|Passage|Context|Choices):|\n?(?:Answer|Question):\s*$")
_SUFFIXES = (".txt", ".md", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many items of a task stand in the training text.

    Args:
        task: Its name.
        n: Items that were looked for.
        whole: Those of them that are too short for a run of `RUN` words and were looked for as a whole.
        found: Those that were found.
        short: Items of fewer words than `WHOLE`, which stand in any text and were not looked for.
    """

    task: str
    n: int
    whole: int
    found: int
    short: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def overlaps(items: Mapping[str, Sequence[str]], trained_on: Iterable[str]) -> list[Overlap]:
    """Look for items in training texts.

    Args:
        items: The text of each item, question and right answer, by task (`texts_of`).
        trained_on: Training texts.
    """
    known = Items.of(items, {})
    find = Finder(known.wanted)
    met = {hashed for text in trained_on for hashed in find(text)}
    return [Overlap(row["task"], row["n"], row["whole"], row["found"], row["short"]) for row in known.met(met)]


def texts_of(tasks: Sequence[Task], limit: int | None = None) -> dict[str, list[str]]:
    """What each item says, with its right answer and without the words that only a prompt has."""
    return {task.name: [_item(task, row) for row in task.rows[: limit or len(task.rows)]] for task in tasks}


def _item(task: Task, row: Row) -> str:
    gold = int(row.get("gold", 0))
    if task.type == "language_modeling":
        parts = (row["context"], row["continuation"])
    elif task.type == "schema":
        parts = (row["context_options"][gold], row["continuation"])
    else:
        parts = (row.get("query", ""), row["choices"][gold])
    return _TEMPLATE.sub(" ", " ".join(map(str, parts)))


def training_texts(path: Path) -> Iterator[str]:
    """Texts of a file or of every file in a folder: ``.txt``, ``.md``, and all strings of the rows of ``.jsonl``.

    Files may be gzipped.

    Raises:
        SmallfryError: There is no such file, or one cannot be read.
    """
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    chosen = [file for file in files if file.is_file() and _kind(file) in _SUFFIXES]
    if not chosen:
        raise SmallfryError(f"{path}: no training text; expected {', '.join(_SUFFIXES)}, gzipped or not, or a folder")
    for file in chosen:
        try:
            text = b"".join(file_bytes(file)).decode("utf-8")
            if _kind(file) in (".txt", ".md"):
                yield text
                continue
            for line in filter(str.strip, text.split("\n")):
                yield " ".join(_strings(json.loads(line)))
        except ValueError as error:
            raise SmallfryError(f"{file}: cannot be read as training text ({error})") from None


def _kind(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for child in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _strings(child)
