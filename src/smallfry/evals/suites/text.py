"""Bits per byte of any text: comparable across vocabularies, because bytes are counted, not tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smallfry.errors import SmallfryError
from smallfry.evals.statistics import bootstrap_statistic
from smallfry.evals.suites.scoring import Branch, Group, LanguageModel, in_threads

_FEWEST = 8  # windows that an interval can be drawn from
_TOGETHER = 16  # documents scored together
_LONGEST = 1024  # tokens of one window, whatever the model could read


@dataclass(frozen=True, slots=True)
class BitsPerByte:
    """A measurement.

    Args:
        score: Bits per byte.
        ci: 95% interval over windows of text; None where there are too few to tell.
        documents: How many there are.
        n_bytes: Bytes of UTF-8.
        tokens: Tokens scored.
    """

    score: float
    ci: tuple[float, float] | None
    documents: int
    n_bytes: int
    tokens: int


def read_documents(path: Path) -> list[str]:
    """A text file as one document, or the ``text`` of each line of a ``.jsonl`` file.

    Raises:
        SmallfryError: It cannot be read, or holds no text.
    """
    try:
        content = path.read_bytes().decode("utf-8")  # as it stands: line ends count as they are
        lines = [line for line in content.split("\n") if line.strip()]
        rows = [json.loads(line)["text"] for line in lines] if path.suffix in (".jsonl", ".ndjson") else [content]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise SmallfryError(f"{path}: expected UTF-8 text, or JSON lines with a column text ({error!r})") from None
    found = [row for row in rows if isinstance(row, str) and row]
    if not found:
        raise SmallfryError(f"{path}: holds no text")
    return found


def windows(ids: Sequence[int], start: Sequence[int], length: int) -> list[Group]:
    """A document in windows: each token is scored once, after at least half a window of what stands before it.

    Args:
        ids: The document.
        start: Tokens before its first.
        length: Tokens a window holds at most, at least 2 more than ``start`` has.
    """
    groups = []
    half = max(1, (length - len(start)) // 2)
    at = 0
    while at < len(ids):
        before = [*start, *ids[max(0, at - half) : at]]
        fresh = tuple(ids[at : at + length - len(before)])
        groups.append(Group(tuple(before), (Branch(fresh),)))
        at += len(fresh)
    return groups


def bits_per_byte(model: LanguageModel, documents: Sequence[str]) -> BitsPerByte:
    """Score documents with a model.

    Args:
        model: Any language model.
        documents: Texts that are not empty.
    """
    length = min(model.context, _LONGEST)

    def measure(some: Sequence[str]) -> list[tuple[float, float, int]]:
        """Nats, bytes and tokens of each window of some documents."""
        groups: list[Group] = []
        shares: list[float] = []  # bytes a token, spread evenly over a document
        for document, ids in zip(some, model.texts.encode_all(some), strict=True):
            mine = windows(ids, model.texts.start(), length)
            groups += mine
            shares += [len(document.encode("utf-8", "replace")) / max(1, len(ids))] * len(mine)
        tokens = [len(group.branches[0].ids) for group in groups]
        return [
            (-scored[0].logprob, share * n, n)
            for scored, share, n in zip(model.score(groups), shares, tokens, strict=True)
        ]

    slices = (documents[at : at + _TOGETHER] for at in range(0, len(documents), _TOGETHER))
    table = np.array([row for part in in_threads(measure, slices, model.workers) for row in part])  # (windows, 3)

    def rate(total: np.ndarray) -> np.ndarray:
        return np.asarray(total[:, 0] / total[:, 1] / math.log(2))

    whole = float(rate(table.sum(axis=0, keepdims=True))[0])
    interval = bootstrap_statistic(table, rate) if len(table) >= _FEWEST else None
    return BitsPerByte(whole, interval, len(documents), round(table[:, 1].sum()), int(table[:, 2].sum()))
