"""Keys, values and attention in numpy, in the numbers of each precision.

With int8 and int4 matrices, queries and keys are int8 with a scale for each 32 of their numbers, values with one scale
each, which joins the shares of attention before these become int8 by groups of 32 tokens. With bf16 matrices all four
are rounded to bf16, with fp32 ones they stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.engine.numpy_functions import ONE, constant, exponential, lanes_sum, largest, padded
from smallfry.engine.numpy_matrix import INFINITE, LEAST, MOST, Ints, add_groups, quantise_groups, round_bf16
from smallfry.engine.weights import GROUP, Floats, Kind
from smallfry.sizes import Shape

_CHUNK = 128  # tokens that go through the blocks together
_QUERIES = 64  # tokens of one row whose scores are computed together
_SCORES = 1 << 20  # scores that rows of different lengths may take together
_LEAST_POWER = constant(-87.0)  # e to less is 0
_HIDDEN = constant(-1e30)
_HALF, _UPPER = np.array(0x8000, dtype=np.uint32), np.array(0xFFFF0000, dtype=np.uint32)


# ---- which tokens are computed together -----------------------------------------------------------------------------


class Run(NamedTuple):
    """New tokens of one row: the first one's place among all that are read, its position, and how many."""

    row: int
    at: int
    start: int
    new: int


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens whose attention is computed together, as many of each row; a shorter row's last one fills it up."""

    rows: slice | Ints  # of the session
    count: int  # of rows
    tokens: slice | Ints  # places of count * queries tokens, row by row
    queries: int
    span: int  # positions that are looked at, a multiple of 32
    hidden: NDArray[np.bool_]  # what of them a token does not see: (count, 1, 1, queries, span)


@dataclass(frozen=True, slots=True)
class Plan:
    """Tokens that go through the blocks together: row and position of each, and how attention is cut."""

    rows: int | Ints
    positions: slice | Ints
    span: int
    parts: list[Part]


def _part(runs: Sequence[Run]) -> Part:
    if len(runs) == 1:
        row, first, start, new = runs[0]
        span = _whole(start + new)
        hidden = np.arange(span) > np.arange(start, start + new)[:, None]
        return Part(slice(row, row + 1), 1, slice(first, first + new), new, span, hidden[None, None, None])
    found, at, starts, counts = np.array(runs, dtype=np.int64).T
    queries, span = int(counts.max()), _whole(int((starts + counts).max()))
    steps = np.minimum(np.arange(queries), counts[:, None] - 1)  # (count, queries)
    even = int(counts.min()) == queries
    tokens = slice(int(at[0]), int(at[0]) + len(runs) * queries) if even else (at[:, None] + steps).reshape(-1)
    together = found[-1] - found[0] == len(runs) - 1
    rows = slice(int(found[0]), int(found[-1]) + 1) if together else found
    hidden = np.arange(span) > (starts[:, None] + steps)[:, None, None, :, None]
    return Part(rows, len(runs), tokens, queries, span, hidden)


def plan(runs: Sequence[Run], heads: int) -> Plan:
    """How tokens are computed together: all rows at once where they are alike, else each on its own in blocks."""
    total, longest = sum(run.new for run in runs), max(run.new for run in runs)
    span, even = max(run.start + run.new for run in runs), len(runs) * longest
    if longest == 1 or (even <= 2 * total and even * span * heads <= _SCORES):
        parts = [_part(runs)]
    else:
        blocks = ((run, i) for run in runs for i in range(0, run.new, _QUERIES))
        parts = [_part([Run(r.row, r.at + i, r.start + i, min(_QUERIES, r.new - i))]) for r, i in blocks]
    if len(runs) == 1:
        return Plan(runs[0].row, slice(runs[0].start, span), span, parts)
    found, at, starts, counts = np.array(runs, dtype=np.int64).T
    return Plan(np.repeat(found, counts), np.repeat(starts - at, counts) + np.arange(total), span, parts)


def chunks(runs: Iterable[Run]) -> Iterator[tuple[slice, list[Run]]]:
    """Runs cut into chunks of tokens, and where each chunk lies; places are counted from its start."""
    chunk: list[Run] = []
    first, room = 0, _CHUNK
    for row, at, start, count in runs:
        done = 0
        while done < count:
            n = min(count - done, room)
            chunk.append(Run(row, at + done - first, start + done, n))
            done, room = done + n, room - n
            if not room:
                yield slice(first, first + _CHUNK), chunk
                chunk, first, room = [], first + _CHUNK, _CHUNK
    if chunk:
        yield slice(first, first + _CHUNK - room), chunk


# ---- the cache ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys and then values of one block; zeros where none has been read.

    Args:
        numbers: ``(rows, 2 K, length, D)``, with int8 whole ones and D rounded up to whole groups.
        scales: ``(rows, 2 K, groups, length)``, with int8; of values the groups are alike.
    """

    numbers: Floats
    scales: Floats | None

    def put(self, plan: Plan, numbers: Floats, scales: Floats | None) -> None:
        """Fill the places of a plan's tokens with ``(N, 2 K, D)`` and ``(N, 2 K, groups)``."""
        one = isinstance(plan.rows, int)  # or the tokens come first, as numpy has it with two arrays of places
        self.numbers[plan.rows, :, plan.positions] = numbers.swapaxes(0, 1) if one else numbers
        if self.scales is not None and scales is not None:
            self.scales[plan.rows, :, :, plan.positions] = scales.transpose(1, 2, 0) if one else scales

    def kept(self, rows: Sequence[int], span: int, empty: Cache) -> Cache:
        """An empty cache filled with the first positions of some rows."""
        empty.numbers[:, :, :span] = self.numbers[list(rows), :, :span]
        if self.scales is not None and empty.scales is not None:
            empty.scales[:, :, :, :span] = self.scales[list(rows), :, :, :span]
        return empty

    def forget(self, row: int, start: int, end: int) -> None:
        """Put zeros into positions of a row: what is not seen still is multiplied, by nothing."""
        self.numbers[row, :, start:end] = 0.0
        if self.scales is not None:
            self.scales[row, :, :, start:end] = 0.0


class Queries(NamedTuple):
    """Queries ``(N, H, D)``, with int8 as whole numbers of scales ``(N, H, groups)``."""

    numbers: Floats
    scales: Floats | None


class Attention:
    """Attention of a model's blocks in fp32 or bf16."""

    def __init__(self, shape: Shape, precision: Kind) -> None:
        self._shape, self._narrow = shape, precision == "bf16"

    def empty(self, rows: int, length: int) -> Cache:
        """Room for keys and values; memory is taken when they are written."""
        s = self._shape
        return Cache(np.zeros((rows, 2 * s.num_kv_heads, _whole(length), s.head_dim), dtype=np.float32), None)

    def read(self, heads: Floats, cache: Cache, plan: Plan) -> Queries:
        """Keep keys and values of ``(N, H + 2 K, D)``; the queries as left operands."""
        s = self._shape
        if self._narrow:
            heads = round_bf16(heads)
        cache.put(plan, heads[:, s.num_heads :], None)
        return Queries(heads[:, : s.num_heads], None)

    def attend_all(self, queries: Queries, cache: Cache, parts: Sequence[Part]) -> Floats:
        """What all tokens see, ``(N, H D)``, when the cache has their keys already."""
        if len(parts) == 1 and isinstance(parts[0].tokens, slice):
            return self.attend(queries, cache, parts[0])
        seen = np.empty((len(queries.numbers), self._shape.num_heads * self._shape.head_dim), dtype=np.float32)
        for part in parts:
            seen[part.tokens] = self.attend(queries, cache, part)
        return seen

    def attend(self, queries: Queries, cache: Cache, part: Part) -> Floats:
        """What the tokens of a part see: ``(tokens, H D)``."""
        numbers = cache.numbers[part.rows, :, : part.span]  # (rows, 2 K, span, D)
        kv = self._shape.num_kv_heads
        q = _by_head(queries.numbers[part.tokens], part, kv)
        shares, total = softmax(q @ numbers[:, :kv].swapaxes(2, 3), part)
        seen = (round_bf16(shares) if self._narrow else shares) @ numbers[:, kv:]
        seen *= ONE / total
        return _by_token(seen, part, self._shape.num_heads)


class Int8Attention(Attention):
    """Attention of a model's blocks in int8."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, "int8")
        self._inner = min(GROUP, shape.head_dim)  # numbers of a group: fewer than 32 need no zeros behind
        self._groups = -(-shape.head_dim // GROUP)
        most = [127.0] * shape.num_heads + [1.0] * shape.num_kv_heads + [127.0] * shape.num_kv_heads
        self._most = np.array(most, dtype=np.float32)[:, None]

    def empty(self, rows: int, length: int) -> Cache:
        """Room for keys and values; memory is taken when they are written."""
        heads, length = 2 * self._shape.num_kv_heads, _whole(length)
        numbers = np.zeros((rows, heads, length, self._groups * self._inner), dtype=np.float32)
        return Cache(numbers, np.zeros((rows, heads, self._groups, length), dtype=np.float32))

    def read(self, heads: Floats, cache: Cache, plan: Plan) -> Queries:
        """Keep keys and values of ``(N, H + 2 K, D)``; the queries as left operands."""
        h = self._shape.num_heads
        numbers, scales = self._quantise(heads)
        cache.put(plan, numbers[:, h:], scales[:, h:])
        return Queries(numbers[:, :h], scales[:, :h])

    def attend(self, queries: Queries, cache: Cache, part: Part) -> Floats:
        """What the tokens of a part see: ``(tokens, H D)``."""
        s, kv, groups, span = self._shape, self._shape.num_kv_heads, self._groups, part.span
        assert cache.scales is not None and queries.scales is not None
        numbers, scales = cache.numbers[part.rows, :, :span], cache.scales[part.rows, :, :, :span]
        q = _by_head(queries.numbers[part.tokens], part, kv)
        q = q.reshape(*q.shape[:3], groups, self._inner).swapaxes(2, 3)  # (rows, K, groups, M, 32)
        q_scales = _by_head(queries.scales[part.tokens], part, kv).swapaxes(2, 3)[..., None]
        keys = numbers[:, :kv].reshape(part.count, kv, span, groups, self._inner).transpose(0, 1, 3, 4, 2)
        scores = q @ keys  # (rows, K, groups, M, span), integers
        scores *= scales[:, :kv, :, None] * q_scales
        shares, total = softmax(add_groups(scores, 2), part)
        shares *= scales[:, kv:, 0, None]
        values = numbers[:, kv:].reshape(part.count, kv, span // GROUP, GROUP, numbers.shape[3])
        left, left_scales = quantise_groups(shares.reshape(*shares.shape[:3], span // GROUP, GROUP))
        parts = left.swapaxes(2, 3) @ values  # (rows, K, span / 32, M, D), integers
        parts *= left_scales.swapaxes(2, 3)[..., None]
        seen = add_groups(parts, 2)[..., : s.head_dim]
        seen *= ONE / total
        return _by_token(seen, part, s.num_heads)

    def _quantise(self, heads: Floats) -> tuple[Floats, Floats]:
        """Queries, keys and values as whole numbers ``(N, H + 2 K, D)`` and scales ``(N, H + 2 K, groups)``."""
        h, turning = self._shape.num_heads, self._shape.num_heads + self._shape.num_kv_heads
        groups = padded(heads, self._inner).reshape(*heads.shape[:2], self._groups, self._inner)
        top = largest(np.abs(groups))
        if self._groups > 1:
            top[:, turning:] = np.maximum.reduce(top[:, turning:], axis=2, keepdims=True)
        scales = top / MOST
        keys = scales[:, h:turning].view(np.uint32)  # the nearest bf16 of each, ties away from zero
        keys += _HALF
        keys &= _UPPER
        zeros = top < LEAST
        top[:, h:turning] = scales[:, h:turning]
        np.copyto(top, INFINITE, where=zeros)
        numbers: Floats = groups * (self._most / top)[..., None]
        np.rint(numbers, numbers)
        return numbers.reshape(*heads.shape[:2], self._groups * self._inner), scales


def softmax(scores: Floats, part: Part) -> tuple[Floats, Floats]:
    """Shares ``(rows, K, M, span)`` of scores, which change, not yet divided by their sums ``(rows, K, M, 1)``."""
    rows, kv, many, span = scores.shape
    by_query = scores.reshape(rows, kv, many // part.queries, part.queries, span)
    np.copyto(by_query, _HIDDEN, where=part.hidden)
    scores -= largest(scores)[..., None]
    shares = exponential(scores)
    shares *= scores > _LEAST_POWER
    return shares, lanes_sum(shares.reshape(rows * kv * many, span)).reshape(rows, kv, many, 1)


def _by_head(queries: Floats, part: Part, kv: int) -> Floats:
    """``(tokens, H, n)`` -> ``(rows, K, H / K * queries, n)``."""
    each = queries.shape[1] // kv
    q = queries.reshape(part.count, part.queries, kv, each, queries.shape[2]).transpose(0, 2, 3, 1, 4)
    return q.reshape(part.count, kv, each * part.queries, queries.shape[2])


def _by_token(seen: Floats, part: Part, heads: int) -> Floats:
    """``(rows, K, H / K * queries, D)`` -> ``(tokens, H D)``."""
    rows, kv, _, size = seen.shape
    by_token = seen.reshape(rows, kv, heads // kv, part.queries, size).transpose(0, 3, 1, 2, 4)
    return by_token.reshape(rows * part.queries, heads * size)


def _whole(length: int) -> int:
    return -(-length // GROUP) * GROUP
