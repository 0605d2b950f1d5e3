"""The transformer in numpy: the engine for machines where libfry was not built.

The arithmetic of a precision is the one that every engine follows, so that all write the same tokens. Where matrices
are bf16, int8 or int4, the left operand of each product is narrowed too: rounded to bf16, or to int8 with one scale for
each row and group of 32 inputs. Keys, values, queries and attention shares are then bf16. Sums, the residual stream,
norms and activations are fp32 always. What is narrow is held in fp32 arrays, which BLAS multiplies exactly: a product
of two bf16 numbers fits into fp32, and so does a sum of 32 products of int8 numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smallfry.engine.weights import GROUP, KINDS, Floats, Kind, Quantised, Weights, layout, matrices, quantise
from smallfry.errors import SmallfryError
from smallfry.sizes import Shape

Ints = NDArray[np.int64]
_CHUNK = 256  # tokens that go through the blocks together
_QUERIES = 128  # tokens of one row whose scores are computed together
_SCORES = 1 << 20  # scores that rows of different lengths may take together
_PRODUCTS = 1 << 20  # sums of groups held at once
_TEXTS = 32  # texts that are read together
_LEAST = 3.8e-37  # below, 127 / m is no fp32 number
# Arrays: a Python number is converted anew in each of the thousand small operations behind a token.
_SIXTEEN, _ONE, _HALF, _UPPER = (np.array(n, dtype=np.uint32) for n in (16, 1, 0x7FFF, 0xFFFF0000))


def round_bf16(x: Floats) -> Floats:
    """The nearest bf16 of each number, ties to even, as fp32: ``from_bf16(to_bf16(x))`` in a fifth of the time."""
    bits = x.view(np.uint32)
    rounded = bits >> _SIXTEEN
    rounded &= _ONE
    rounded += _HALF
    rounded += bits
    rounded &= _UPPER
    return rounded.view(np.float32)


# ---- matrices -------------------------------------------------------------------------------------------------------


class _Dense:
    """A matrix ``(outputs, inputs)`` in fp32, or in bf16 with left operands rounded alike."""

    def __init__(self, matrix: Floats, narrow: bool) -> None:
        self._matrix, self._narrow = round_bf16(matrix) if narrow else matrix, narrow
        self._turned = self._matrix.T

    def __call__(self, x: Floats) -> Floats:
        out: Floats = (round_bf16(x) if self._narrow else x) @ self._turned
        return out

    def rows(self, ids: Ints) -> Floats:
        return self._matrix[ids]


class _Grouped:
    """A quantised matrix; left operands are quantised to int8 for each row and group."""

    def __init__(self, held: Quantised) -> None:
        outputs, padded = held.values.shape
        self._held, self._groups = held, padded // GROUP
        values = held.values.reshape(outputs, self._groups, GROUP).transpose(1, 2, 0)
        self._values = np.ascontiguousarray(values, dtype=np.float32)  # (groups, 32, outputs)
        self._scales = np.ascontiguousarray(held.scales.T)[:, None]  # (groups, 1, outputs)

    def __call__(self, x: Floats) -> Floats:
        outputs = self._values.shape[2]
        values, scales = quantise_rows(x)
        values, scales = values.transpose(1, 0, 2), scales.T[:, :, None]  # (groups, N, 32), (groups, N, 1)
        out = np.zeros((len(x), outputs), dtype=np.float32)
        step = max(1, _PRODUCTS // (self._groups * outputs))
        for at in range(0, len(x), step):
            part = slice(at, at + step)
            sums = values[:, part] @ self._values  # (groups, n, outputs), integers
            sums *= self._scales * scales[:, part]
            total = out[part]
            for group in sums:  # in their order, as every engine adds them
                total += group
        return out

    def rows(self, ids: Ints) -> Floats:
        values = self._held.values[ids].reshape(len(ids), self._groups, GROUP) * self._held.scales[ids][:, :, None]
        return np.ascontiguousarray(values.reshape(len(ids), -1)[:, : self._held.inputs], dtype=np.float32)


def quantise_rows(x: Floats) -> tuple[Floats, Floats]:
    """Left operands ``(N, inputs)`` as whole numbers ``(N, groups, 32)`` up to 127 and scales ``(N, groups)``."""
    count, inputs = x.shape
    if inputs % GROUP:
        wide = np.zeros((count, -(-inputs // GROUP) * GROUP), dtype=np.float32)
        wide[:, :inputs] = x
        x = wide
    groups = x.reshape(count, x.shape[1] // GROUP, GROUP)
    largest = np.maximum.reduce(np.abs(groups), axis=2)
    inverse = np.divide(127.0, largest, out=np.zeros_like(largest), where=largest > _LEAST)
    values = groups * inverse[:, :, None]
    return np.rint(values, out=values), largest / 127.0


_Matrix = _Dense | _Grouped


def _matrix(name: str, matrix: Floats, weights: Weights, precision: Kind) -> _Matrix:
    if precision == "fp32" or precision == "bf16":
        return _Dense(matrix, precision == "bf16")
    stored = weights.quantised if weights.quantised and weights.kind == precision else {}
    return _Grouped(stored.get(name) or quantise(matrix, precision))


# ---- the model ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Block:
    input_norm: Floats
    qkv: _Matrix
    qkv_bias: Floats | None
    qk_gain: Floats | None  # of each head of queries and keys: (H + K, D)
    o: _Matrix
    post_norm: Floats
    gate_up: _Matrix
    down: _Matrix


def _flat_bytes(weights: Weights, kind: Kind) -> int:
    """Bytes of the flat file of a model."""
    size = 128
    for _, _, (outputs, *inputs) in layout(weights.shape, weights.variant):
        wide = inputs[0] if inputs else 1
        groups = -(-wide // GROUP)
        row = {"fp32": 4 * wide, "bf16": 2 * wide, "int8": 34 * groups, "int4": 18 * groups}
        size += -size % 64 + outputs * (row[kind] if inputs else 4)
    return size


class NumpyModel:
    """A model computed with numpy; sessions of several threads may share it.

    Args:
        weights: The model.
        precision: How matrices are held and products computed; None for the kind the weights are stored in.

    Raises:
        SmallfryError: There is no such precision.
    """

    def __init__(self, weights: Weights, precision: Kind | None = None) -> None:
        precision = precision or weights.kind
        if precision not in KINDS:
            raise SmallfryError(f"precision {precision!r}: expected {', '.join(KINDS)}; choose one of them")
        self.shape: Shape = weights.shape
        self.stored_bytes = _flat_bytes(weights, precision)
        s = weights.shape
        self._variant = weights.variant
        self._narrow = precision != "fp32"  # keys, values, queries and shares are rounded to bf16
        vectors, held = dict[str, Floats](), dict[str, _Matrix]()
        for name, tensor in matrices(weights):
            if tensor.ndim == 1:
                vectors[name] = tensor
            else:
                held[name] = _matrix(name, tensor, weights, precision)
        self._embed, self._head = held["embed"], held.get("head", held["embed"])
        self._norm = vectors["norm"]
        self._blocks = [self._block(f"blocks.{i}.", vectors, held) for i in range(s.num_layers)]
        scales = [1.0 / math.sqrt(s.head_dim)] * s.num_heads + [1.0] * s.num_kv_heads
        self._qk_scale: Floats = np.array(scales, dtype=np.float32)[:, None, None]
        self._tables = self._rotary_tables(256)

    def session(self, rows: int, length: int) -> NumpySession:
        """Start reading with nothing read.

        Args:
            rows: Sequences.
            length: Most tokens each may have.

        Raises:
            SmallfryError: One of them is below 1, or there is no memory for so many.
        """
        return NumpySession(self, rows, length)

    def answer_logits(self, texts: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Floats]:
        """Logits after the tokens ``text[start:]`` of each text: one ``(len(text) - start, V)`` a text."""
        found: list[Floats] = []
        for first in range(0, len(texts), _TEXTS):
            some = texts[first : first + _TEXTS]
            hidden = self.session(len(some), max(1, *map(len, some)))._hidden(some)
            ends = np.cumsum([len(text) for text in some]).tolist()
            for text, start, end in zip(some, starts[first:], ends, strict=False):
                found.append(self._logits(hidden[end - len(text) + start : end]))
        return found

    def _logits(self, hidden: Floats) -> Floats:
        with np.errstate(all="ignore"):
            return self._head(hidden)

    def _block(self, at: str, vectors: dict[str, Floats], held: dict[str, _Matrix]) -> _Block:
        s = self.shape
        names = [at + "q_norm"] * s.num_heads + [at + "k_norm"] * s.num_kv_heads
        gain = np.stack([vectors[name] for name in names]) if s.qk_norm else None
        return _Block(
            vectors[at + "input_norm"], held[at + "qkv"], vectors.get(at + "qkv_bias"), gain, held[at + "o"],
            vectors[at + "post_norm"], held[at + "gate_up"], held[at + "down"],
        )  # fmt: skip

    def _rotary_tables(self, length: int) -> tuple[Floats, Floats]:
        """Cosines ``(length, 1, 1, D / 2)`` and sines ``(length, 1, 2, D / 2)``, the first of each two negated."""
        size = self.shape.head_dim
        powers = -np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
        # Each step is one fp32 number computed in fp64 and rounded once, the same on every machine.
        theta = float(np.float32(self._variant.rope_theta))
        frequencies = np.power(theta, powers.astype(np.float64)).astype(np.float32)
        angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
        cos, sin = (turn(angles.astype(np.float64)).astype(np.float32) for turn in (np.cos, np.sin))
        return cos[:, None, None], np.stack([-sin, sin], axis=1)[:, None]

    def _rotary(self, positions: Ints, span: int) -> tuple[Floats, Floats]:
        held = self._tables  # read once: other threads may put longer ones in its place
        if len(held[0]) < span:
            self._tables = held = self._rotary_tables(2 * span)
        return held[0][positions], held[1][positions]

    def _heads(self, block: _Block, x: Floats, cos: Floats, sin: Floats) -> Floats:
        """Scaled queries, keys and values of normalised tokens: ``(N, C)`` -> ``(N, H + 2 K, D)``."""
        s = self.shape
        turning = s.num_heads + s.num_kv_heads
        qkv = block.qkv(x)
        if block.qkv_bias is not None:
            qkv += block.qkv_bias
        heads = qkv.reshape(len(x), turning + s.num_kv_heads, s.head_dim)
        qk = heads[:, :turning]
        if block.qk_gain is not None:
            qk = _rms_norm(qk, block.qk_gain, self._variant.norm_eps)
        halves = qk.reshape(len(x), turning, 2, s.head_dim // 2)
        turned = halves * cos
        turned += halves[:, :, ::-1] * sin
        turned *= self._qk_scale
        heads[:, :turning] = turned.reshape(qk.shape)
        return round_bf16(heads) if self._narrow else heads

    def _attend(self, heads: Floats, cache: Floats, part: _Part) -> Floats:
        """What the tokens of a part see, ``(tokens, H D)``, of heads ``(N, ...)``; the cache has their keys already."""
        s = self.shape
        rows, queries, kv, each = part.count, part.queries, s.num_kv_heads, s.num_heads // s.num_kv_heads
        q = heads[part.tokens, : s.num_heads].reshape(rows, queries, kv, each, s.head_dim)
        q = q.transpose(0, 2, 3, 1, 4).reshape(rows, kv, each * queries, s.head_dim)
        held = cache[part.rows, :, : part.span]  # (rows, 2 K, span, D)
        shares: Floats = q @ held[:, :kv].swapaxes(2, 3)  # (rows, K, each * queries, span)
        if part.mask is not None:
            by_query = shares.reshape(rows, kv, each, queries, part.span)
            by_query += part.mask
        shares -= np.maximum.reduce(shares, axis=3, keepdims=True)
        np.exp(shares, out=shares)
        total = np.add.reduce(shares, axis=3, keepdims=True)
        seen: Floats = (round_bf16(shares) if self._narrow else shares) @ held[:, kv:]
        seen /= total
        seen = seen.reshape(rows, kv, each, queries, s.head_dim).transpose(0, 3, 1, 2, 4)
        return seen.reshape(rows * queries, s.num_heads * s.head_dim)

    def _hidden(self, ids: Ints, caches: list[Floats], plan: _Plan) -> Floats:
        """Hidden states after the last norm, ``(N,)`` -> ``(N, C)``; keys and values go into the caches."""
        s, eps = self.shape, self._variant.norm_eps
        cos, sin = self._rotary(plan.positions, plan.span)
        x = self._embed.rows(ids)
        seen = np.empty((len(ids), s.num_heads * s.head_dim), dtype=np.float32)
        for block, cache in zip(self._blocks, caches, strict=True):
            heads = self._heads(block, _rms_norm(x, block.input_norm, eps), cos, sin)
            cache[plan.rows, :, plan.positions] = heads[:, s.num_heads :]
            for part in plan.parts:
                seen[part.tokens] = self._attend(heads, cache, part)
            x += block.o(seen)
            gate_up = block.gate_up(_rms_norm(x, block.post_norm, eps))
            x += block.down(_swiglu(gate_up, s.intermediate_size))
        return _rms_norm(x, self._norm, eps)


def _rms_norm(x: Floats, gain: Floats, eps: float) -> Floats:
    r = np.add.reduce(x * x, axis=-1, keepdims=True) / x.shape[-1]
    r += eps
    normed: Floats = x * (1.0 / np.sqrt(r))
    normed *= gain
    return normed


def _swiglu(gate_up: Floats, size: int) -> Floats:
    gate = gate_up[:, :size]
    turned = np.exp(-gate)
    turned += 1.0
    np.divide(gate, turned, out=turned)
    turned *= gate_up[:, size:]
    return turned


# ---- sessions -------------------------------------------------------------------------------------------------------


class _Run(NamedTuple):
    """New tokens of one row: the first one's place among all that are read, its position, and how many."""

    row: int
    at: int
    start: int
    new: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens whose attention is computed together, as many of each row; a shorter row's last one fills it up."""

    rows: slice | Ints  # of the session
    count: int  # of rows
    tokens: slice | Ints  # places of count * queries tokens, row by row
    queries: int
    span: int  # positions that are looked at
    mask: Floats | None  # what of them a token may see, 0 or -inf: (count, 1, 1, queries, span)


@dataclass(frozen=True, slots=True)
class _Plan:
    rows: Ints
    positions: Ints
    span: int
    parts: list[_Part]


def _part(runs: Sequence[_Run]) -> _Part:
    found, at, starts, counts = np.array(runs, dtype=np.int64).T
    queries, span = int(counts.max()), int((starts + counts).max())
    steps = np.minimum(np.arange(queries), counts[:, None] - 1)  # (count, queries)
    even = int(counts.min()) == queries
    tokens = slice(int(at[0]), int(at[0]) + len(runs) * queries) if even else (at[:, None] + steps).reshape(-1)
    together = found[-1] - found[0] == len(runs) - 1
    rows = slice(int(found[0]), int(found[-1]) + 1) if together else found
    mask = None
    if int((starts + steps[:, 0]).min()) < span - 1:  # else all are at the last position and see everything
        hidden = np.arange(span) > (starts[:, None] + steps)[:, :, None]
        mask = np.where(hidden, np.float32(-np.inf), np.float32(0.0))[:, None, None]
    return _Part(rows, len(runs), tokens, queries, span, mask)


def _plan(runs: Sequence[_Run], heads: int) -> _Plan:
    """How tokens are computed together: all rows at once where they are alike, else each on its own in blocks."""
    found, at, starts, counts = np.array(runs, dtype=np.int64).T
    total, longest, span = int(counts.sum()), int(counts.max()), int((starts + counts).max())
    padded = len(runs) * longest
    if longest == 1 or (padded <= 2 * total and padded * span * heads <= _SCORES):
        parts = [_part(runs)]
    else:
        blocks = ((run, i) for run in runs for i in range(0, run.new, _QUERIES))
        parts = [_part([_Run(r.row, r.at + i, r.start + i, min(_QUERIES, r.new - i))]) for r, i in blocks]
    return _Plan(np.repeat(found, counts), np.repeat(starts - at, counts) + np.arange(total), span, parts)


def _chunks(runs: Iterable[_Run]) -> Iterator[tuple[slice, list[_Run]]]:
    """Runs cut into chunks of tokens, and where each chunk lies; places are counted from its start."""
    chunk: list[_Run] = []
    first, room = 0, _CHUNK
    for row, at, start, count in runs:
        done = 0
        while done < count:
            n = min(count - done, room)
            chunk.append(_Run(row, at + done - first, start + done, n))
            done, room = done + n, room - n
            if not room:
                yield slice(first, first + _CHUNK), chunk
                chunk, first, room = [], first + _CHUNK, _CHUNK
    if chunk:
        yield slice(first, first + _CHUNK - room), chunk


class NumpySession:
    """Sequences that are read bit by bit; made by `NumpyModel.session`.

    Args:
        model: What reads them.
        rows: How many there are.
        length: Most tokens each may have.
    """

    def __init__(self, model: NumpyModel, rows: int, length: int) -> None:
        if rows < 1 or length < 1:
            raise SmallfryError(f"a session of {rows} rows of {length} tokens: expected at least 1 of each; give more")
        self.rows, self.length = rows, length
        self._model = model
        self._caches = self._empty(rows)
        self._read = [0] * rows  # tokens of each row

    def feed(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Read the next tokens of each row.

        Args:
            tokens: One list a row; an empty one leaves the row alone.

        Returns:
            Logits after the last token of each row, ``(rows, V)``; zeros for rows without tokens.

        Raises:
            SmallfryError: Not one list a row, a token out of range, or a row longer than the session; nothing is read.
        """
        hidden = self._hidden(tokens)
        logits = np.zeros((self.rows, self._model.shape.vocab_size), dtype=np.float32)
        read = [row for row, new in enumerate(tokens) if len(new)]
        last = np.cumsum([len(new) for new in tokens], dtype=np.int64)[read] - 1
        logits[read] = self._model._logits(hidden[last])
        return logits

    def feed_all(self, tokens: Sequence[int]) -> Floats:
        """Read the next tokens of row 0.

        Args:
            tokens: Any number of them.

        Returns:
            Logits after each, ``(T, V)``.

        Raises:
            SmallfryError: A token out of range, or more than the session holds; nothing is read.
        """
        return self._model._logits(self._hidden([tokens, *[()] * (self.rows - 1)]))

    def keep(self, rows: Sequence[int]) -> None:
        """Make row i what row ``rows[i]`` was, for all of them; there are then ``len(rows)`` rows.

        Raises:
            SmallfryError: There is no such row, or no memory for so many; nothing is changed.
        """
        for row in rows:
            self._check_row(row)
        span = max((self._read[row] for row in rows), default=0)
        if list(rows) != list(range(self.rows)):
            kept = self._empty(len(rows))
            for new, cache in zip(kept, self._caches, strict=True):
                new[:, :, :span] = cache[list(rows), :, :span]
            self._caches = kept
        self._read = [self._read[row] for row in rows]
        self.rows = len(rows)

    def rewind(self, row: int, length: int) -> None:
        """Forget everything after the first ``length`` tokens of a row.

        Raises:
            SmallfryError: There is no such row, or it has fewer tokens.
        """
        self._check_row(row)
        if not 0 <= length <= self._read[row]:
            raise SmallfryError(f"rewind to {length} tokens: row {row} has {self._read[row]}; give at most as many")
        self._read[row] = length

    def _empty(self, rows: int) -> list[Floats]:
        """Keys and values of each block, ``(rows, 2 K, length, D)``; memory is taken when they are written."""
        s = self._model.shape
        size = (rows, 2 * s.num_kv_heads, self.length, s.head_dim)
        try:
            return [np.zeros(size, dtype=np.float32) for _ in range(s.num_layers)]
        except (MemoryError, OverflowError, ValueError):
            raise SmallfryError(
                f"a session of {rows} rows of {self.length} tokens: expected one that fits into memory; give less"
            ) from None

    def _check_row(self, row: int) -> None:
        if not 0 <= row < self.rows:
            raise SmallfryError(f"row {row}: the session has {self.rows}; expected 0 to {self.rows - 1}")

    def _runs(self, tokens: Sequence[Sequence[int]]) -> list[_Run]:
        """What there is to read, checked."""
        if len(tokens) != self.rows:
            raise SmallfryError(f"tokens of {len(tokens)} rows: the session has {self.rows}; give one list a row")
        runs, at, vocab = list[_Run](), 0, self._model.shape.vocab_size
        for row, (new, read) in enumerate(zip(tokens, self._read, strict=True)):
            if not len(new):
                continue
            if read + len(new) > self.length:
                many = read + len(new)
                raise SmallfryError(f"row {row}, {many} tokens: the session holds {self.length}; open a longer one")
            if min(new) < 0 or max(new) >= vocab:
                wrong = min(new) if min(new) < 0 else max(new)
                raise SmallfryError(f"row {row}, token {wrong}: expected 0 to {vocab - 1}; use this model's tokenizer")
            runs.append(_Run(row, at, read, len(new)))
            at += len(new)
        return runs

    def _hidden(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Read the next tokens of each row; hidden states of all, ``(N, C)``."""
        runs = self._runs(tokens)
        ids = np.array([token for row in tokens for token in row], dtype=np.int64)
        hidden = np.empty((len(ids), self._model.shape.hidden_size), dtype=np.float32)
        with np.errstate(all="ignore"):  # what is too large becomes infinite, as in every engine
            for where, chunk in _chunks(runs):
                plan = _plan(chunk, self._model.shape.num_heads)
                hidden[where] = self._model._hidden(ids[where], self._caches, plan)
        for run in runs:
            self._read[run.row] = run.start + run.new
        return hidden
