"""Batches of one training, planned to the token: one source, or several side by side by their shares."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from smallfry.data import Batch, JobData
from smallfry.tokenizer import BOS, END, Tokenizer

from .arms import SEQ_LEN


class Planned:
    """A whole training as one epoch.

    The source that lags furthest behind its share gives the next batch, so that shares hold at every time.

    Args:
        sources: Share of the tokens and endless batches of each source.
        tokens: Padded tokens of the training; the last batch may exceed them.
    """

    def __init__(self, sources: Sequence[tuple[float, Iterator[Batch]]], tokens: int) -> None:
        self.batches: list[Batch] = []
        self.taken = [0] * len(sources)  # tokens of each source
        while sum(self.taken) < tokens:
            at = min(range(len(sources)), key=lambda i: self.taken[i] / sources[i][0])
            batch = next(sources[at][1])
            self.batches.append(batch)
            self.taken[at] += batch.num_tokens

    def epoch(self, epoch: int) -> list[Batch]:
        """All batches in training order."""
        return self.batches


def job_batches(data: JobData) -> Iterator[Batch]:
    """Epoch after epoch of a job's rows."""
    for epoch in itertools.count():
        yield from data.epoch(epoch)


def text_ids(texts: Sequence[str], tokenizer: Tokenizer, most: int) -> np.ndarray:
    """Documents end to end, each as ``<|bos|>``, its tokens, ``<|end|>``; ``(n,)`` with n about ``most`` at most."""
    ids: list[int] = []
    for text in texts:
        if len(ids) >= most:
            break
        ids += [BOS, *tokenizer.encode(text), END]
    return np.array(ids, dtype=np.int64)


def text_batches(ids: np.ndarray, batch_tokens: int, seed: int, seq_len: int = SEQ_LEN) -> Iterator[Batch]:
    """Pass after pass over running text, each cut at another place and in another order.

    Args:
        ids: All of it, ``(n,)``; it is read as a ring.
        batch_tokens: Tokens a batch.
        seed: Of cuts and order.
        seq_len: Tokens a row.
    """
    rows = max(1, batch_tokens // seq_len)
    count = -(-len(ids) // seq_len)  # rows of a pass
    for turn in itertools.count():
        rng = np.random.default_rng([seed, turn])
        phase = int(rng.integers(len(ids)))
        order = rng.permutation(-(-count // rows) * rows) % count  # the last batch is filled up from the first rows
        for first in range(0, len(order), rows):
            numbers = order[first : first + rows]
            starts = phase + numbers[:, None] * seq_len
            whole = ids[(starts + np.arange(seq_len + 1)) % len(ids)]  # (B, T + 1)
            targets = whole[:, 1:]
            # A document's beginning is no target: nothing is to be learned of where the next one was laid.
            yield Batch(whole[:, :-1], targets, (targets != BOS).astype(np.float32), numbers)
