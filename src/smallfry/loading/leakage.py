"""Held-out rows that also stand in train: the same after normalising, or nearly the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

NEAR_JACCARD = 0.8
SHINGLE = 5
LONG_TEXT_CHARS = 300
"""Texts whose median is longer are compared by runs of five words instead of five characters."""
MAX_WORK = 1_000_000_000
"""Index entries to read, 2 to 6 ns each: beyond it an even sample of the held-out rows is compared."""
MOST_CHARS = 10_000_000
"""Train text that is searched, about 85 bytes of memory a character; of more, rows at even distances, so that what is
found is a lower bound."""
_VERIFY_AT_ONCE = 64


@dataclass(frozen=True)
class Shingles:
    """The distinct shingles of each text, as rows of a sparse matrix.

    Args:
        start: Where each text's shingles begin in ``ids``, (n_texts + 1,).
        ids: Shingle numbers, ascending within a text. Numbers ascend with the shingle's frequency over all texts, so
            the first of a text are its rarest.
        count: How many different shingles there are.
    """

    start: Ints
    ids: Ints
    count: int

    def of(self, text: int) -> Ints:
        """The shingle numbers of one text, rarest first."""
        return self.ids[self.start[text] : self.start[text + 1]]


def shingle(texts: Sequence[str]) -> Shingles:
    """Runs of five characters (of five words if the texts are long) of every text.

    A text is bracketed by spaces, so that its first and last letters count. One that is shorter than a run has none.
    """
    long = len(texts) > 0 and float(np.median([len(text) for text in texts])) > LONG_TEXT_CHARS
    if long:
        numbers: dict[str, int] = {}
        rows = [[numbers.setdefault(word, len(numbers)) for word in text.split()] for text in texts]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        symbols = np.fromiter((number for row in rows for number in row), dtype=np.uint64, count=int(lengths.sum()))
    else:
        bracketed = [f" {text} " for text in texts]
        lengths = np.array([len(text) for text in bracketed], dtype=np.int64)
        symbols = np.frombuffer("".join(bracketed).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    return _number(_windows(symbols, lengths), len(texts))


def _windows(symbols: npt.NDArray[np.uint64], lengths: Ints) -> tuple[Ints, npt.NDArray[np.uint64]]:
    """Every run of ``SHINGLE`` symbols within a text: the text it is in and a 64-bit hash, both (n_runs,)."""
    n = len(symbols) - SHINGLE + 1
    if n <= 0:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    text = np.repeat(np.arange(len(lengths)), lengths)
    inside = text[:n] == text[SHINGLE - 1 :]
    value = np.zeros(n, np.uint64)
    for offset in range(SHINGLE):
        value = (value + symbols[offset : offset + n] + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(29)
    return text[:n][inside], value[inside]


def _number(runs: tuple[Ints, npt.NDArray[np.uint64]], n_texts: int) -> Shingles:
    """Hashes to numbers that ascend with frequency; each shingle once a text."""
    text, value = runs
    order = np.argsort(value)  # sorting is several times faster here than the hashing of np.unique
    first = _is_first(value[order])
    count = int(first.sum())
    pairs = np.sort(text[order] * np.int64(max(count, 1)) + np.cumsum(first) - 1)
    text, number = np.divmod(pairs[_is_first(pairs)], np.int64(max(count, 1)))
    frequency = np.bincount(number, minlength=count)
    rank = np.empty(count, np.int64)
    rank[np.argsort(frequency, kind="stable")] = np.arange(count)
    pairs = np.sort(text * np.int64(max(count, 1)) + rank[number])
    text, ids = np.divmod(pairs, np.int64(max(count, 1)))
    start = np.zeros(n_texts + 1, np.int64)
    np.cumsum(np.bincount(text, minlength=n_texts), out=start[1:])
    return Shingles(start, ids, count)


def _is_first(ascending: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Where a new value begins in sorted values."""
    first = np.ones(len(ascending), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return first


def near_matches(train: Sequence[str], *held_out: Sequence[str]) -> list[tuple[int, int]]:
    """How many texts of each held-out split have a Jaccard similarity of at least 0.8 with a train text.

    The search is exact: a pair at similarity t shares at least ``ceil(t * n)`` of the n shingles of either, so a train
    text that lacks more than the others among the rarest few cannot be one (the prefix filter of Chaudhuri, Ganti and
    Kaushik, "A primitive operator for similarity joins in data cleaning", ICDE 2006, and Bayardo, Ma and Srikant,
    "Scaling up all pairs similarity search", WWW 2007); what passes is counted in full.

    Args:
        train: Normalised train texts.
        held_out: Normalised texts of each held-out split.

    Returns:
        For each split the texts with a near match and the texts compared: all of them, unless there is more than
        ``MAX_WORK`` to compare. Of more than ``MOST_CHARS`` of train text some is left out.
    """
    train = list(dict.fromkeys(train))
    train = train[:: max(1, math.ceil(sum(map(len, train)) / MOST_CHARS))]
    shingles = shingle([*train, *(text for split in held_out for text in split)])
    index = _Index(shingles, len(train))
    counts = []
    first = len(train)
    for split in held_out:
        numbers = range(first, first + len(split))
        first += len(split)
        work = sum(index.work(shingles.of(number)) for number in numbers)
        compared = numbers[:: max(1, -(-work // MAX_WORK))]
        counts.append((sum(index.has_near(shingles.of(number)) for number in compared), len(compared)))
    return counts


def _lengths(n: int) -> tuple[int, int]:
    """How many of n shingles a near text may lack, and how many of the rarest are looked up.

    Twice the necessary prefix costs little more to read and lets through far fewer texts to count in full.
    """
    missing = n - int(np.ceil(NEAR_JACCARD * n - 1e-9))
    return missing, min(n, 2 * missing + 4)


class _Index:
    """Train texts by shingle."""

    def __init__(self, shingles: Shingles, n_train: int) -> None:
        end = shingles.start[n_train]
        text = np.repeat(np.arange(n_train), np.diff(shingles.start[: n_train + 1]))
        ids = shingles.ids[:end]
        self.n_train = n_train
        self.count = max(shingles.count, 1)
        self.sizes = np.diff(shingles.start[: n_train + 1])
        self.keys = text * np.int64(self.count) + ids  # ascending: text, then shingle
        self.texts = text[np.argsort(ids, kind="stable")]
        self.first = np.zeros(self.count + 1, np.int64)
        np.cumsum(np.bincount(ids, minlength=self.count), out=self.first[1:])

    def work(self, ids: Ints) -> int:
        """How many index entries :meth:`has_near` reads for these shingles."""
        chosen = ids[: _lengths(len(ids))[1]]
        return int((self.first[chosen + 1] - self.first[chosen]).sum()) + self.n_train // 4

    def has_near(self, ids: Ints) -> bool:
        """Whether some train text is near one with these shingles."""
        n = len(ids)
        if n == 0:
            return False
        missing, prefix = _lengths(n)
        postings = [self.texts[self.first[i] : self.first[i + 1]] for i in ids[:prefix].tolist()]
        total = sum(map(len, postings))
        if total == 0:
            return False
        joined = np.concatenate(postings)
        if total * 8 < self.n_train:
            texts, shared = np.unique(joined, return_counts=True)
        else:
            shared = np.bincount(joined, minlength=self.n_train)
            texts = np.flatnonzero(shared >= prefix - missing)
            shared = shared[texts]
        sizes = self.sizes[texts]
        # What must be shared for the Jaccard similarity, less what the frequent rest could still add.
        needed = NEAR_JACCARD / (1 + NEAR_JACCARD) * (n + sizes) - (n - prefix) - 1e-9
        keep = (shared >= needed) & (sizes >= NEAR_JACCARD * n - 1e-9) & (sizes * NEAR_JACCARD <= n + 1e-9)
        texts, shared, sizes = texts[keep], shared[keep], sizes[keep]
        order = np.argsort(-shared, kind="stable")
        for at in range(0, len(order), _VERIFY_AT_ONCE):
            some = order[at : at + _VERIFY_AT_ONCE]
            both = shared[some] + self._count(texts[some], ids[prefix:])
            if np.any(both >= NEAR_JACCARD * (n + sizes[some] - both) - 1e-9):
                return True
        return False

    def _count(self, texts: Ints, ids: Ints) -> Ints:
        """How many of the shingles each text has, (n_texts,)."""
        wanted = texts[:, None] * np.int64(self.count) + ids[None, :]
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        counts: Ints = (self.keys[place] == wanted).sum(axis=1)
        return counts
