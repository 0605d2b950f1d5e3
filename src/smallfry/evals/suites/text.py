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
from smallfry.evals.suites.scoring import Branch, Group, LanguageModel, score_all
from smallfry.loading.readers import file_bytes

FEWEST = 8  # windows, or documents, that an interval can be drawn from
_LONGEST = 1024  # tokens of one window, whatever the model could read


@dataclass(frozen=True, slots=True)
class BitsPerByte:
    """A measurement.

    Args:
        score: Bits per byte.
        ci: 95% interval over documents, or over windows of text where documents are few; None where those are too.
        documents: How many there are.
        n_bytes: Bytes of UTF-8.
        tokens: Tokens scored.
        sums: Nats and bytes of each document, ``(documents, 2)``, for comparing two models on the same ones.
    """

    score: float
    ci: tuple[float, float] | None
    documents: int
    n_bytes: int
    tokens: int
    sums: np.ndarray


def bits_rate(sums: np.ndarray) -> np.ndarray:
    """Bits per byte of summed nats and bytes, ``(k, 2)`` to ``(k,)``."""
    return np.asarray(sums[:, 0] / sums[:, 1] / math.log(2))


def read_documents(path: Path) -> list[str]:
    """A text file as one document, or the ``text`` of each line of a ``.jsonl`` file.

    Raises:
        SmallfryError: It cannot be read, or holds no text.
    """
    if not path.is_file():
        raise SmallfryError(f"{path}: no such file; name a UTF-8 text, or JSON lines with a column text")
    try:
        data = b"".join(file_bytes(path))
        content = data.decode("utf-8")  # as it stands: line ends count as they are
        lines = [line for line in content.split("\n") if line.strip()]
        table = path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson"))
        rows = [json.loads(line)["text"] for line in lines] if table else [content]
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

    cut = [windows(ids, model.texts.start(), length) for ids in model.texts.encode_all(documents)]
    scored = iter(score_all(model, [group for groups in cut for group in groups]))
    each = []  # nats, bytes and tokens of each window of each document
    for document, groups in zip(documents, cut, strict=True):
        tokens = np.array([len(group.branches[0].ids) for group in groups])
        nats = np.array([-next(scored)[0].logprob for _ in groups])
        share = len(document.encode("utf-8", "replace")) / max(1, tokens.sum())  # bytes, spread evenly
        each.append(np.stack([nats, share * tokens, tokens], axis=1))
    table = np.concatenate(each)  # (windows, 3)
    whole = float(bits_rate(table.sum(axis=0, keepdims=True))[0])
    sums = np.array([one.sum(axis=0)[:2] for one in each])
    drawn = sums if len(sums) >= FEWEST else table  # windows of one document are alike: documents are what is drawn
    interval = bootstrap_statistic(drawn, bits_rate) if len(drawn) >= FEWEST else None
    return BitsPerByte(whole, interval, len(documents), round(table[:, 1].sum()), int(table[:, 2].sum()), sums)
