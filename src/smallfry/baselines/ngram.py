"""Interpolated modified Kneser-Ney over bytes: what counting alone makes of a text.

Counting is done with sorted arrays instead of a hash table of strings: the n-grams of length k that end at each
position are numbered by ``number of the (k-1)-gram before x 257 + byte``, so one sort of 64-bit keys a level gives
exact counts for any order. 17.7 MB of English took 48 s of one core and 1.9 GB of memory, orders 1 to 8 counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smallfry.baselines.calibration import tuning_rows
from smallfry.candidates import Prediction
from smallfry.errors import SmallfryError
from smallfry.job import Job

SYMBOLS = 257
EDGE = 256  # before the first byte of a text as context, after its last as the symbol to predict
MAX_ORDER = 8
_SAMPLE_BYTES = 512

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Level:
    """All n-grams of one length k.

    Args:
        keys: (n,) sorted ``context * 257 + symbol``, with the context's number at level k-1.
        alpha: (n,) discounted probability of the symbol after the context.
        rest: (contexts,) mass left to the shorter context.
    """

    keys: Ints
    alpha: Floats
    rest: Floats

    def find(self, keys: Ints) -> Ints:
        """Number of each key, -1 for n-grams never seen."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1)


def _stream(texts: Sequence[str] | Sequence[bytes]) -> tuple[Ints, Ints]:
    """Edge, bytes, edge, bytes, ..., edge; and the distance of each position from the edge before it."""
    data = [t if isinstance(t, bytes) else t.encode("utf-8", "surrogatepass") for t in texts]
    lengths = np.array([len(d) for d in data], dtype=np.int64)
    symbols = np.full(int(lengths.sum()) + len(data) + 1, EDGE, dtype=np.int64)
    inside = np.ones(len(symbols), dtype=bool)
    edges = np.concatenate([[0], np.cumsum(lengths + 1)])
    inside[edges] = False
    symbols[inside] = np.frombuffer(b"".join(data), dtype=np.uint8)
    before = np.concatenate([[0], np.repeat(edges[:-1], lengths + 1)])
    return symbols, np.arange(len(symbols)) - before


def _discounts(counts: Ints) -> NDArray[np.float64]:
    """(4,) subtracted from counts of 0, 1, 2, and 3 or more (Chen & Goodman 1998, section 3.3, eq. 26).

    Sets too small for the estimate, which divides by numbers of rare n-grams, take half of each count.
    """
    n = [int((counts == c).sum()) for c in range(5)]
    found = [0.0, 0.5, 1.0, 1.5]
    if n[1] and n[2]:
        y = n[1] / (n[1] + 2 * n[2])
        for c in (1, 2, 3):
            if n[c]:
                found[c] = c - (c + 1) * y * n[c + 1] / n[c]
    return np.array([0.0, *(min(max(found[c], 0.1), c - 0.05) for c in (1, 2, 3))])


def _level(keys: Ints, counts: Ints, n_contexts: int) -> Level:
    """Discount counts and divide by their context's total."""
    context = keys // SYMBOLS
    taken = _discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(context, weights=counts, minlength=n_contexts)
    rest = np.ones(n_contexts)
    np.divide(np.bincount(context, weights=taken, minlength=n_contexts), total, out=rest, where=total > 0)
    return Level(keys, ((counts - taken) / total[context]).astype(np.float32), rest.astype(np.float32))


def _count(texts: Sequence[str], max_order: int) -> tuple[list[Level], list[Level]]:
    """Levels 1 to ``max_order`` twice: from raw counts (for the highest level) and from continuation counts.

    The continuation count of an n-gram is the number of distinct symbols before it (Kneser & Ney 1995). N-grams at
    the very start of a text have nothing before them and keep their raw count.
    """
    symbols, distance = _stream(texts)
    raw: list[tuple[Ints, Ints]] = []
    continued: list[Ints] = []
    positions = np.arange(1, len(symbols))  # of predicted symbols whose n-gram lies inside one text
    number = np.zeros(len(symbols), dtype=np.int64)
    for order in range(1, max_order + 1):
        positions = positions[distance[positions] + 1 >= order]
        if not len(positions):
            break
        keys, first, inverse = np.unique(
            number[positions - 1] * SYMBOLS + symbols[positions], return_index=True, return_inverse=True
        )
        if raw:
            continued.append(np.bincount(number[positions[first]], minlength=len(raw[-1][0])))
        raw.append((keys, np.bincount(inverse)))
        edge = int(np.searchsorted(keys, EDGE)) if order == 1 else -1
        number[positions] = inverse
        if order == 1:
            number[0] = edge  # the first edge is a context though it is never predicted
    sizes = [1, *(len(keys) for keys, _ in raw)]
    highest = [_level(keys, counts, sizes[i]) for i, (keys, counts) in enumerate(raw)]
    lower = [
        _level(keys, np.where(left > 0, left, counts), sizes[i])
        for i, ((keys, counts), left) in enumerate(zip(raw, continued, strict=False))
    ]
    return highest, lower


def _interpolate(level: Level, number: Ints, context: Ints, shorter: NDArray[np.float64]) -> NDArray[np.float64]:
    """Discounted probabilities plus the mass left times the shorter context's, for n-grams numbered -1 if unseen."""
    own = np.where(number >= 0, level.alpha[np.maximum(number, 0)], np.float32(0))
    return np.asarray(own + level.rest[context] * shorter, dtype=np.float64)


def _log_probabilities(
    highest: Sequence[Level], lower: Sequence[Level], texts: Sequence[str]
) -> list[NDArray[np.float64]]:
    """Natural log-likelihood of each text under the model of every order 1 to ``len(highest)``: (n,) arrays."""
    symbols, distance = _stream(texts)
    text = np.cumsum(symbols[:-1] == EDGE) - 1  # of each predicted symbol
    return [
        np.bincount(text, weights=found, minlength=len(texts)).astype(np.float64)
        for found in _symbol_log_probabilities(highest, lower, symbols, distance)
    ]


def _symbol_log_probabilities(
    highest: Sequence[Level], lower: Sequence[Level], symbols: Ints, distance: Ints
) -> Iterator[NDArray[np.float64]]:
    """Natural log-probability of each symbol behind the first, under the model of every order 1 to ``len(highest)``."""
    p = np.full(len(symbols) - 1, 1 / SYMBOLS)
    context = np.zeros(len(symbols) - 1, dtype=np.int64)  # number of the (k-1)-gram before each predicted symbol
    for order, top in enumerate(highest, 1):
        at = np.flatnonzero((context >= 0) & (distance[1:] + 1 >= order))
        number = top.find(context[at] * SYMBOLS + symbols[1:][at])
        complete = p.copy()
        complete[at] = _interpolate(top, number, context[at], p[at])
        yield np.log(complete)
        if order == len(highest):
            break
        p[at] = _interpolate(lower[order - 1], number, context[at], p[at])
        numbers = np.full(len(symbols), -1, dtype=np.int64)
        numbers[1:][at] = number
        if order == 1:
            numbers[0] = int(top.find(np.array([EDGE]))[0])
        context = numbers[:-1]


MOST_CHARS = 10_000_000
"""Text of a job that is counted: each character takes about 170 bytes of memory; of more, rows at even distances."""


class NGram:
    """A byte n-gram model of a job's outputs; inputs are not looked at."""

    name = "ngram"

    def __init__(self, levels: Sequence[Level], seed: int = 0) -> None:
        """Take counted levels over.

        Args:
            levels: Levels 1 to the order.
            seed: Of the samples `predict` draws.
        """
        self._levels = list(levels)
        self._seed = seed
        self.note = ""

    @property
    def order(self) -> int:
        """Longest n-gram."""
        return len(self._levels)

    @property
    def params(self) -> int:
        """Probabilities and back-off masses."""
        return sum(len(level.alpha) for level in self._levels) + sum(len(level.rest) for level in self._levels)

    def log_likelihood(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(n,) natural log-likelihoods, the end of the text included."""
        if not texts:
            return np.zeros(0)
        return _log_probabilities(self._levels, self._levels[:-1], texts)[-1]

    def byte_log_probabilities(self, texts: Sequence[bytes]) -> list[NDArray[np.float64]]:
        """Natural log-probability of each byte of each text, given the bytes before it."""
        if not texts:
            return []
        symbols, distance = _stream(texts)
        *_, found = _symbol_log_probabilities(self._levels, self._levels[:-1], symbols, distance)
        ends = np.flatnonzero(symbols[1:] == EDGE)  # the last prediction of a text is its end
        starts = np.concatenate([[0], ends[:-1] + 1])
        return [found[start:end] for start, end in zip(starts, ends, strict=True)]

    def _distribution(self, contexts: Sequence[int]) -> NDArray[np.float64]:
        """(257,) next-symbol probabilities; ``contexts[k]`` numbers the last k symbols, or ends the list if unseen."""
        p = np.full(SYMBOLS, 1 / SYMBOLS)
        for level, context in zip(self._levels, contexts, strict=False):
            start, end = np.searchsorted(level.keys, [context * SYMBOLS, (context + 1) * SYMBOLS])
            p *= float(level.rest[context])
            p[level.keys[start:end] - context * SYMBOLS] += level.alpha[start:end]
        return p

    def _advance(self, contexts: Sequence[int], symbol: int) -> list[int]:
        """Numbers of the last 0, 1, 2, ... symbols after one more."""
        moved = [0]
        for level, context in zip(self._levels[: self.order - 1], contexts, strict=False):
            number = int(level.find(np.array([context * SYMBOLS + symbol]))[0])
            if number < 0:
                break
            moved.append(number)
        return moved

    def distribution(self, history: bytes) -> NDArray[np.float64]:
        """(257,) probabilities of the next byte, or (last) of the end, after the start of a text."""
        contexts = self._advance([0], EDGE)
        for byte in history:
            contexts = self._advance(contexts, byte)
        return self._distribution(contexts)

    def sample(
        self, seed: int | Sequence[int] = 0, max_bytes: int = _SAMPLE_BYTES, temperature: float = 1.0,
        start: bytes = b"",
    ) -> str:  # fmt: skip
        """Draw one text, or the rest of one.

        Args:
            seed: Of the generator.
            max_bytes: Cut the text there if it has not ended.
            temperature: Below 1 favours likely bytes; 0 always takes the likeliest.
            start: How the text begins; it is not repeated.
        """
        rng = np.random.default_rng(seed)
        contexts, text = self._advance([0], EDGE), bytearray()
        for byte in start:
            contexts = self._advance(contexts, byte)
        while len(text) < max_bytes:
            p = self._distribution(contexts)
            if temperature > 0:
                p = (p / p.max()) ** (1 / temperature)
                symbol = int(rng.choice(SYMBOLS, p=p / p.sum()))
            else:
                symbol = int(p.argmax())
            if symbol == EDGE:
                break
            text.append(symbol)
            contexts = self._advance(contexts, symbol)
        return text.decode("utf-8", "replace")

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """One sample an input, drawn with a seed of its own by position; confidence is the sample's probability."""
        texts = [self.sample([self._seed, i]) for i in range(len(inputs))]
        return [Prediction(t, math.exp(p)) for t, p in zip(texts, self.log_likelihood(texts), strict=True)]

    def score(self, inputs: Sequence[str], outputs: Sequence[Sequence[str]]) -> list[list[float]]:
        """Natural log-likelihood of each output, the end of the text included."""
        flat = iter(self.log_likelihood([o for proposed in outputs for o in proposed]).tolist())
        return [[next(flat) for _ in proposed] for proposed in outputs]

    def size_bytes(self) -> int:
        """As a trie: a byte and a 2-byte probability an n-gram; a 2-byte mass and a 4-byte pointer a context."""
        return sum(3 * len(level.alpha) + 6 * len(level.rest) for level in self._levels)


def fit_ngram(job: Job, max_order: int = MAX_ORDER) -> NGram:
    """Count train outputs; the order with the fewest bits on the valid outputs wins (the lower of equals).

    Args:
        job: The job.
        max_order: Highest order tried.

    Raises:
        SmallfryError: Train holds no text.
    """
    rows, held_out = tuning_rows(job)
    texts, checks = [row.output for row in rows], [row.output for row in held_out]
    step = math.ceil(sum(map(len, texts)) / MOST_CHARS)
    texts = texts[:: max(1, step)]
    if not any(texts):
        raise SmallfryError(f"job {job.name}: every train output is empty, an n-gram model needs text")
    if len(job.train) == 1 and not job.valid:  # one long text: its last tenth chooses
        cut = math.ceil(0.9 * len(texts[0]))
        texts, checks = [texts[0][:cut]], [texts[0][cut:]]
    everything = None if job.valid else [row.output for row in job.train][:: max(1, step)]
    found = fit_texts(texts, checks, everything, max_order)
    found.note = f"counted on every {step}th training row: there is too much text for all" if step > 1 else ""
    return found


def fit_texts(
    texts: Sequence[str], checks: Sequence[str], everything: Sequence[str] | None = None, max_order: int = MAX_ORDER
) -> NGram:
    """Count texts; the order with the fewest bits on others wins (the lower of equals).

    Args:
        texts: What is counted.
        checks: What chooses the order.
        everything: Counted again once the order is chosen: nothing needs to stay held out then.
        max_order: Highest order tried.
    """
    highest, lower = _count(texts, max_order)
    order = 1 + int(np.argmax([found.sum() for found in _log_probabilities(highest, lower, checks)]))
    if everything is not None:
        highest, lower = _count(everything, order)
    return NGram([*lower[: order - 1], highest[order - 1]])
