"""Batches of a tokenised corpus for the training loop: any batch is a pure function of the seed and its number.

Documents stand end to end in a ring of ids, which is cut into rows of ``seq_len``. Every pass begins the cutting at
another place and takes the rows in another order, shuffled in blocks so that neither the whole order nor the corpus is
held in memory: blocks of 64 neighbouring rows in random order, then the rows of 256 such blocks among each other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from smallfry.corpus.shards import Corpus, TokenStream
from smallfry.data import Batch
from smallfry.tokenizer import BOS, PAD
from smallfry.training.epochs import MadeBatches

BLOCK_ROWS = 64
GROUP_BLOCKS = 256
_CYCLE = 4096  # rows after which a mixture's pattern of sources begins again
_CACHED = 4


class _Ring:
    """The rows of one source, pass after pass.

    Args:
        stream: Its ids.
        seq_len: Tokens a row.
        seed: What its random numbers are made from.
    """

    def __init__(self, stream: TokenStream, seq_len: int, seed: Sequence[int]) -> None:
        self.stream, self.seq_len, self.seed = stream, seq_len, list(seed)
        self.rows = -(-stream.tokens // seq_len)  # the last may be partial
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def place(self, number: int) -> tuple[int, int]:
        """Where the row ``number`` of all passes begins in the ring, and how many tokens it has."""
        turn, at = divmod(number, self.rows)
        row = self._row(turn, at)
        length = min(self.seq_len, self.stream.tokens - row * self.seq_len)
        phase = int(np.random.default_rng([*self.seed, turn]).integers(self.stream.tokens)) if turn else 0
        return (phase + row * self.seq_len) % self.stream.tokens, length

    def _row(self, turn: int, at: int) -> int:
        """Which row stands at place ``at`` of a pass."""
        starts = self._remembered(turn, -1)
        group = int(np.searchsorted(starts, at, side="right")) - 1
        return int(self._remembered(turn, group)[at - int(starts[group])])

    def _remembered(self, turn: int, group: int) -> np.ndarray:
        found = self._cache.get((turn, group))
        if found is None:
            found = self._starts(turn) if group < 0 else self._order(turn, group)
            self._cache[turn, group] = found
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end((turn, group))
        return found

    def _blocks(self, turn: int) -> np.ndarray:
        """The blocks of a pass in their order."""
        return _shuffled(np.arange(-(-self.rows // BLOCK_ROWS)), [*self.seed, turn, 1])

    def _sizes(self, blocks: np.ndarray) -> np.ndarray:
        return np.asarray(np.minimum(BLOCK_ROWS, self.rows - blocks * BLOCK_ROWS))

    def _starts(self, turn: int) -> np.ndarray:
        """The place at which each group of a pass begins; the last block of the corpus may be shorter."""
        sizes = self._sizes(self._blocks(turn))
        groups = np.add.reduceat(sizes, np.arange(0, len(sizes), GROUP_BLOCKS))
        return np.concatenate([[0], np.cumsum(groups)[:-1]])

    def _order(self, turn: int, group: int) -> np.ndarray:
        """The rows of a group in their order."""
        blocks = self._blocks(turn)[group * GROUP_BLOCKS : (group + 1) * GROUP_BLOCKS]
        each = zip(blocks.tolist(), self._sizes(blocks).tolist(), strict=True)
        rows = np.concatenate([np.arange(b * BLOCK_ROWS, b * BLOCK_ROWS + n) for b, n in each])
        return _shuffled(rows, [*self.seed, turn, 2, group])


def _shuffled(values: np.ndarray, seed: list[int]) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).permutation(values))


class CorpusData:
    """A corpus as the training loop reads it.

    A pass over a large corpus may take days, so that the loop's epochs are *stretches* of a fixed number of batches,
    at whose ends it measures; passes go on through them. A mixture takes the sources in turn by their weights, each
    with passes of its own; without weights all sources are one ring, and a pass is a pass over everything.

    Args:
        corpus: What is read.
        seq_len: Tokens a row, at least 2.
        batch_tokens: Tokens a batch holds at most (one row at least).
        stretch: Batches of an epoch of the loop.
        seed: Of everything drawn.
    """

    def __init__(self, corpus: Corpus, seq_len: int, batch_tokens: int, stretch: int, seed: int) -> None:
        self.seq_len, self.stretch = seq_len, stretch
        self.batch_rows = max(1, batch_tokens // seq_len)
        weights = corpus.weights
        streams = corpus.streams if weights else [TokenStream.joined(corpus.streams)]
        self._rings = [_Ring(stream, seq_len, [seed, number]) for number, stream in enumerate(streams)]
        self._pattern = mixture(weights or [1.0])
        # How many rows of each source stand before each place of the pattern, and in all of it.
        hits = self._pattern[:, None] == np.arange(len(streams))
        self._before = np.concatenate([np.zeros((1, len(streams)), dtype=np.int64), np.cumsum(hits, axis=0)])

    @property
    def batch_tokens(self) -> int:
        """Tokens of one batch, padding included."""
        return self.batch_rows * self.seq_len

    def epoch(self, epoch: int) -> Sequence[Batch]:
        """The batches of one stretch, made when they are asked for."""
        return MadeBatches(self.stretch, lambda at: self.batch(epoch * self.stretch + at))

    def passes(self, batches: int) -> list[float]:
        """How often each ring is read in so many batches."""
        rows = batches * self.batch_rows
        turns, rest = divmod(rows, len(self._pattern))
        counts = turns * self._before[-1] + self._before[rest]
        return [float(n) / ring.rows for n, ring in zip(counts, self._rings, strict=True)]

    def batch(self, number: int) -> Batch:
        """Batch ``number`` of the whole run: ids, targets and weights ``(B, T)``.

        A document's ``<|bos|>`` is no target: nothing is to be learned of where the next one was laid.
        """
        shape = (self.batch_rows, self.seq_len)
        ids = np.full(shape, PAD, dtype=np.int64)
        targets = np.full(shape, PAD, dtype=np.int64)
        weights = np.zeros(shape, dtype=np.float32)
        rows = np.arange(number * self.batch_rows, (number + 1) * self.batch_rows)
        for r, row in enumerate(rows.tolist()):
            turn, at = divmod(row, len(self._pattern))
            source = int(self._pattern[at])
            ring = self._rings[source]
            start, length = ring.place(turn * int(self._before[-1, source]) + int(self._before[at, source]))
            read = ring.stream.read(start, length + 1)
            ids[r, :length], targets[r, :length] = read[:-1], read[1:]
            weights[r, :length] = read[1:] != BOS
        return Batch(ids, targets, weights, rows)


def mixture(weights: Sequence[float]) -> np.ndarray:
    """Which source each row of a cycle is taken from, as evenly as the weights allow; ``(n,)``.

    Every source has one row at least; the counts are the weights' shares to a 4,096th.
    """
    if len(weights) == 1:
        return np.zeros(1, dtype=np.int64)
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    counts = np.maximum(1, np.rint(shares * _CYCLE).astype(np.int64))
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in counts.tolist()])
    owners = np.repeat(np.arange(len(weights)), counts)
    return np.asarray(owners[np.argsort(places, kind="stable")])
