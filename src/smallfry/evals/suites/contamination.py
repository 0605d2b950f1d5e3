"""Whether a suite's items stand in what a model was trained on: overlap of 13 words in a row (Brown et al. 2020, C)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smallfry.errors import SmallfryError
from smallfry.evals.suites.prompts import Row, Task
from smallfry.loading.readers import file_bytes

N = 13
_TEMPLATE = re.compile(r"(?:^|(?<=\n))\s*(?:Question|Answer|Passage|Context|Choices):|\n?(?:Answer|Question):\s*$")
_WORD = re.compile(r"\w+")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that every word of a run takes part in its hash
_MOST_WORDS = 200_000  # whose hashes are remembered, of texts of any length
_SUFFIXES = (".txt", ".md", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many items of a task share a run of words with the training text.

    Args:
        task: Its name.
        n: Items that are long enough to tell.
        found: Those that share one.
        short: Items of fewer words, which cannot be told.
    """

    task: str
    n: int
    found: int
    short: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"task": self.task, "n": self.n, "found": self.found, "short": self.short}


class WordHashes:
    """64-bit hashes of words; those of words that come again are remembered."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, word: str) -> int:
        """The hash of a word."""
        known = self._known.get(word)
        if known is None:
            if len(self._known) >= _MOST_WORDS:
                self._known.clear()
            known = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "big")
            self._known[word] = known
        return known


class Runs:
    """Runs of `N` words, kept as 64-bit hashes: two different ones meet once in about 10^19 / (runs compared).

    Args:
        n: Words in a run.
    """

    def __init__(self, n: int = N) -> None:
        self.n = n
        self._hash = WordHashes()
        powers = [np.uint64(1)]
        with np.errstate(over="ignore"):
            for _ in range(n - 1):
                powers.append(powers[-1] * _BASE)
        self._powers = np.array(powers)

    def of(self, text: str) -> np.ndarray:
        """Hashes of every run in a text, lower-cased, punctuation left out: ``(words - n + 1,)`` uint64."""
        words = np.array([self._hash(word) for word in _WORD.findall(text.lower())], dtype=np.uint64)
        if len(words) < self.n:
            return np.empty(0, dtype=np.uint64)
        rows = np.lib.stride_tricks.sliding_window_view(words, self.n)
        with np.errstate(over="ignore"):
            return np.asarray((rows * self._powers).sum(axis=1, dtype=np.uint64))

    def all_of(self, texts: Iterable[str]) -> np.ndarray:
        """Sorted hashes of every run in many texts."""
        found = [self.of(text) for text in texts]
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.uint64)


def overlaps(items: Mapping[str, Sequence[str]], trained_on: Iterable[str]) -> list[Overlap]:
    """Look for items in training texts.

    Args:
        items: The text of each item, question and right answer, by task (`texts_of`).
        trained_on: Training texts.
    """
    runs = Runs()
    known = runs.all_of(trained_on)
    found = []
    for task, texts in items.items():
        each = [runs.of(text) for text in texts]
        hits = [bool(among(hashes, known).any()) for hashes in each if len(hashes)]
        found.append(Overlap(task, len(hits), sum(hits), len(each) - len(hits)))
    return found


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


def among(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which hashes are in a sorted array."""
    at = np.searchsorted(known, hashes)
    inside = at < len(known)
    hit = np.zeros(len(hashes), dtype=bool)
    hit[inside] = known[at[inside]] == hashes[inside]
    return hit


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
