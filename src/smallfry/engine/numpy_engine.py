"""The transformer in numpy: the engine for machines where libfry was not built.

The arithmetic of a precision is libfry's. With int8 and int4 matrices all sums and roundings are the same, so both
engines give the same logits to the last bit; with bf16 and fp32 ones only the order of the sums of products differs.
Sums, the residual stream, norms and activations are fp32 always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from smallfry.engine.numpy_attention import Attention, Cache, Int8Attention, Plan, Run, chunks, plan
from smallfry.engine.numpy_functions import constant, rms_norm, rotary_tables, swiglu, turn
from smallfry.engine.numpy_matrix import Ints, Matrix, hold
from smallfry.engine.weights import GROUP, KINDS, Floats, Kind, Weights, layout, matrices
from smallfry.errors import SmallfryError
from smallfry.sizes import Shape

_TEXTS = 32  # texts that are read together


@dataclass(frozen=True, slots=True)
class _Block:
    input_norm: Floats
    qkv: Matrix
    qkv_bias: Floats | None
    qk_gain: Floats | None  # of each head of queries and keys: (H + K, 2, D / 2)
    o: Matrix
    post_norm: Floats
    gate_up: Matrix
    down: Matrix


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
        self._eps = constant(self._variant.norm_eps)
        quantised = precision == "int8" or precision == "int4"
        self._attention = Int8Attention(s) if quantised else Attention(s, precision)
        stored = weights.quantised if weights.quantised and weights.kind == precision else {}
        vectors, held = dict[str, Floats](), dict[str, Matrix]()
        for name, tensor in matrices(weights):
            if tensor.ndim == 1:
                vectors[name] = tensor
            else:
                held[name] = hold(tensor, stored.get(name), precision)
        self._embed, self._head = held["embed"], held.get("head", held["embed"])
        self._norm = vectors["norm"]
        self._blocks = [self._block(f"blocks.{i}.", vectors, held) for i in range(s.num_layers)]
        scale = np.float32(1.0) / np.sqrt(np.float32(s.head_dim))
        self._scales: Floats = np.array([scale] * s.num_heads + [1.0] * s.num_kv_heads, dtype=np.float32)[:, None]
        self._tables = rotary_tables(self._variant.rope_theta, s.head_dim, 256)

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

    def _block(self, at: str, vectors: dict[str, Floats], held: dict[str, Matrix]) -> _Block:
        s = self.shape
        names = [at + "q_norm"] * s.num_heads + [at + "k_norm"] * s.num_kv_heads
        gain = np.stack([vectors[name].reshape(2, s.head_dim // 2) for name in names]) if s.qk_norm else None
        return _Block(
            vectors[at + "input_norm"], held[at + "qkv"], vectors.get(at + "qkv_bias"), gain, held[at + "o"],
            vectors[at + "post_norm"], held[at + "gate_up"], held[at + "down"],
        )  # fmt: skip

    def _rotary(self, positions: slice | Ints, span: int) -> tuple[Floats, Floats]:
        held = self._tables  # read once: other threads may put longer ones in its place
        if len(held[0]) < span:
            self._tables = held = rotary_tables(self._variant.rope_theta, self.shape.head_dim, 2 * span)
        return held[0][positions], held[1][positions]

    def _heads(self, block: _Block, x: Floats, cos: Floats, sin: Floats) -> Floats:
        """Scaled queries, keys and values of normalised tokens: ``(N, C)`` -> ``(N, H + 2 K, D)``."""
        s = self.shape
        turning = s.num_heads + s.num_kv_heads
        qkv = block.qkv(x)
        if block.qkv_bias is not None:
            qkv += block.qkv_bias
        heads = qkv.reshape(len(x), turning + s.num_kv_heads, s.head_dim)
        turned = turn(heads[:, :turning], block.qk_gain, self._scales, cos, sin, self._eps)
        heads[:, :turning] = turned.reshape(len(x), turning, s.head_dim)
        return heads

    def _hidden(self, ids: Ints, caches: list[Cache], plan: Plan) -> Floats:
        """Hidden states after the last norm, ``(N,)`` -> ``(N, C)``; keys and values go into the caches."""
        s, eps = self.shape, self._eps
        cos, sin = self._rotary(plan.positions, plan.span)
        x = self._embed.rows(ids)
        for block, cache in zip(self._blocks, caches, strict=True):
            heads = self._heads(block, rms_norm(x, block.input_norm, eps), cos, sin)
            queries = self._attention.read(heads, cache, plan)
            x += block.o(self._attention.attend_all(queries, cache, plan.parts))
            gate_up = block.gate_up(rms_norm(x, block.post_norm, eps))
            x += block.down(swiglu(gate_up[:, : s.intermediate_size], gate_up[:, s.intermediate_size :]))
        return rms_norm(x, self._norm, eps)


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
        read = [row for row, new in enumerate(tokens) if len(new)]
        if len(read) < len(hidden):
            ends = list(accumulate(len(tokens[row]) for row in read))
            hidden = hidden[[end - 1 for end in ends]]
        found = self._model._logits(hidden)
        if len(read) == self.rows:
            return found
        logits = np.zeros((self.rows, self._model.shape.vocab_size), dtype=np.float32)
        logits[read] = found
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
            empty = self._empty(len(rows))
            self._caches = [cache.kept(rows, span, new) for cache, new in zip(self._caches, empty, strict=True)]
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
        for cache in self._caches:
            cache.forget(row, length, self._read[row])
        self._read[row] = length

    def _empty(self, rows: int) -> list[Cache]:
        """Keys and values of each block."""
        try:
            return [self._model._attention.empty(rows, self.length) for _ in range(self._model.shape.num_layers)]
        except (MemoryError, OverflowError, ValueError):
            raise SmallfryError(
                f"a session of {rows} rows of {self.length} tokens: expected one that fits into memory; give less"
            ) from None

    def _check_row(self, row: int) -> None:
        if not 0 <= row < self.rows:
            raise SmallfryError(f"row {row}: the session has {self.rows}; expected 0 to {self.rows - 1}")

    def _runs(self, tokens: Sequence[Sequence[int]]) -> list[Run]:
        """What there is to read, checked."""
        if len(tokens) != self.rows:
            raise SmallfryError(f"tokens of {len(tokens)} rows: the session has {self.rows}; give one list a row")
        runs, at, vocab = list[Run](), 0, self._model.shape.vocab_size
        for row, (new, read) in enumerate(zip(tokens, self._read, strict=True)):
            if not len(new):
                continue
            if read + len(new) > self.length:
                many = read + len(new)
                raise SmallfryError(f"row {row}, {many} tokens: the session holds {self.length}; open a longer one")
            if min(new) < 0 or max(new) >= vocab:
                wrong = min(new) if min(new) < 0 else max(new)
                raise SmallfryError(f"row {row}, token {wrong}: expected 0 to {vocab - 1}; use this model's tokenizer")
            runs.append(Run(row, at, read, len(new)))
            at += len(new)
        return runs

    def _hidden(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Read the next tokens of each row; hidden states of all, ``(N, C)``."""
        runs = self._runs(tokens)
        ids = np.array([token for row in tokens for token in row], dtype=np.int64)
        hidden = [np.empty((0, self._model.shape.hidden_size), dtype=np.float32)]
        with np.errstate(all="ignore"):  # what is too large becomes infinite, as in every engine
            for where, chunk in chunks(runs):
                cut = plan(chunk, self._model.shape.num_heads)
                hidden.append(self._model._hidden(ids[where], self._caches, cut))
        for run in runs:
            self._read[run.row] = run.start + run.new
        return hidden[1] if len(hidden) == 2 else np.concatenate(hidden)
