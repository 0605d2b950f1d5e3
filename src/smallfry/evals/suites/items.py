"""Items of the evaluation suites in training text: runs of 13 words of long ones, short ones as a whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RUN = 13
"""Words in a row that make a document and a benchmark item the same (Brown et al. 2020, appendix C)."""
WHOLE = 5
"""Words that an item of fewer than `RUN` must have to be looked for as a whole; fewer words stand in any text."""

_MOST_WORDS = 200_000  # whose hashes are remembered, of texts of any length
_WORD = re.compile(r"\w+")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that every word of a run takes part in its hash
_ROOM = 6  # places of a table for each hash in it: one lookup of six goes on to the sorted hashes


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


class Words:
    """The words of a text as 64-bit hashes, lower-cased, punctuation left out."""

    def __init__(self) -> None:
        self._hash = WordHashes()

    def __call__(self, text: str) -> np.ndarray:
        """``(words,)`` uint64."""
        return np.array([self._hash(word) for word in _WORD.findall(text.lower())], dtype=np.uint64)


def runs_of(words: np.ndarray, n: int) -> np.ndarray:
    """Hashes of every ``n`` words in a row, at most `RUN`: ``(words - n + 1,)`` uint64."""
    count = len(words) - n + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    with np.errstate(over="ignore"):
        found = words[n - 1 :].copy()
        for k in range(n - 2, -1, -1):  # Horner's scheme: the k-th word times the k-th power
            found *= _BASE
            found += words[k : k + count]
    return found


def item_hashes(words: np.ndarray) -> np.ndarray:
    """What an item is known by: its runs, of a short one itself, of a still shorter one nothing."""
    if WHOLE <= len(words) < RUN:
        return runs_of(words, len(words))
    return runs_of(words, RUN)


@dataclass(frozen=True)
class Wanted:
    """What is looked for in a document; every array sorted.

    Args:
        runs: Hashes of the long items' runs, ``(n,)`` uint64.
        whole: Hashes of the short items.
        beginnings: Of their first `WHOLE` words.
    """

    runs: np.ndarray
    whole: np.ndarray
    beginnings: np.ndarray

    def __bool__(self) -> bool:
        return bool(len(self.runs) or len(self.whole))


NOTHING = Wanted(*(np.empty(0, dtype=np.uint64) for _ in range(3)))


class _Known:
    """Sorted hashes, with a table of their first bits: nearly all that is asked for is not among them."""

    def __init__(self, hashes: np.ndarray) -> None:
        bits = max(10, (_ROOM * len(hashes)).bit_length())
        self._hashes, self._shift = hashes, np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, dtype=bool)
        self._table[hashes >> self._shift] = True

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """Where in an array hashes stand that are among the known ones."""
        maybe = np.flatnonzero(self._table[hashes >> self._shift])
        return maybe[among(hashes[maybe], self._hashes)] if len(maybe) else maybe


class Finder:
    """Finds items in documents.

    Args:
        wanted: Which.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._words = Words()
        self._runs, self._beginnings = _Known(wanted.runs), _Known(wanted.beginnings)
        self._whole = wanted.whole

    def __call__(self, text: str) -> list[int]:
        """The hashes of items that a text has, sorted."""
        words = self._words(text)
        runs = runs_of(words, RUN)
        met = set(runs[self._runs.places(runs)].tolist())
        # Few places begin as a short item does: only there is it worth looking for the rest of one.
        for at in self._beginnings.places(runs_of(words, WHOLE)).tolist():
            begun = words[at : at + RUN - 1]
            hashes = np.array([runs_of(begun[:n], n)[0] for n in range(WHOLE, len(begun) + 1)], dtype=np.uint64)
            met.update(hashes[among(hashes, self._whole)].tolist())
        return sorted(met)


@dataclass(frozen=True)
class Items:
    """What must not stand in training text.

    Args:
        wanted: Of all items.
        tasks: For each task its items' hashes (`item_hashes`), to tell afterwards which items were met.
        suites: The suite of each task.
        stories: Held-out stories, which are told apart as near duplicates: stories begin alike for 13 words and more.
    """

    wanted: Wanted
    tasks: dict[str, list[np.ndarray]]
    suites: dict[str, str]
    stories: tuple[str, ...] = ()

    @staticmethod
    def of(texts: Mapping[str, Sequence[str]], suites: Mapping[str, str], stories: Sequence[str] = ()) -> Items:
        """From what every item says.

        Args:
            texts: By task.
            suites: As in `Items`.
            stories: As in `Items`.
        """
        hashed = Words()
        tasks: dict[str, list[np.ndarray]] = {}
        runs: list[np.ndarray] = []
        whole: list[np.ndarray] = []
        beginnings: list[np.ndarray] = []
        for task, each in texts.items():
            tasks[task] = []
            for words in map(hashed, each):
                hashes = item_hashes(words)
                tasks[task].append(hashes)
                if len(words) >= RUN:
                    runs.append(hashes)
                elif len(hashes):
                    whole.append(hashes)
                    beginnings.append(runs_of(words[:WHOLE], WHOLE))
        return Items(Wanted(*map(_sorted, (runs, whole, beginnings))), tasks, dict(suites), tuple(stories))

    @property
    def sha256(self) -> tuple[str, str]:
        """Of the long items and the stories, and of the short items."""
        digest = hashlib.sha256(self.wanted.runs.tobytes())
        for story in self.stories:
            digest.update(story.encode("utf-8", "replace") + b"\0")
        return digest.hexdigest(), hashlib.sha256(self.wanted.whole.tobytes()).hexdigest()

    def met(self, found: set[int]) -> list[dict[str, Any]]:
        """How many items of each task the corpus has.

        Args:
            found: Hashes that both have.

        Returns:
            For each task its suite, ``n`` items that were looked for, how many of them as a ``whole``, how many were
            ``found``, and how many were too ``short`` to be looked for.
        """
        some = np.array(sorted(found), dtype=np.uint64)
        rows = []
        for task, each in self.tasks.items():
            sizes = np.array([len(hashes) for hashes in each], dtype=np.int64)
            owners = np.repeat(np.arange(len(each)), sizes)
            hashes = np.concatenate([*each, some[:0]])
            met, whole = (len(np.unique(owners[among(hashes, known)])) for known in (some, self.wanted.whole))
            rows.append({
                "task": task, "suite": self.suites.get(task, task), "n": int((sizes > 0).sum()), "whole": whole,
                "found": met, "short": int((sizes == 0).sum()),
            })  # fmt: skip
        return rows


def among(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which hashes are in a sorted array."""
    at = np.searchsorted(known, hashes)
    inside = at < len(known)
    hit = np.zeros(len(hashes), dtype=bool)
    hit[inside] = known[at[inside]] == hashes[inside]
    return hit


def _sorted(hashes: Sequence[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([*hashes, np.empty(0, dtype=np.uint64)]))
