"""libfry from Python: the C library that is built with the package, where there was a compiler.

Calls leave the interpreter's lock, so that threads read and score side by side.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.engine.weights import Floats, Kind, Weights, to_flat
from smallfry.errors import SmallfryError
from smallfry.sizes import Shape

Ints = NDArray[np.int32]
_UNSUPPORTED = 1
_ERRORS = {
    2: "a wrong argument", 3: "no memory left", 4: "damaged or not a flat weights file", 5: "a sequence is too long"
}  # fmt: skip
_TOKEN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_float)


class _Batch(ctypes.Structure):
    _fields_ = [
        ("num_rows", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("row_start", "prefix", "ids", "positions", "branch")),
        ("num_questions", ctypes.c_int32), ("places", ctypes.c_void_p), ("targets", ctypes.c_void_p),
    ]  # fmt: skip


class _Sampling(ctypes.Structure):
    _fields_ = [
        ("repetition", ctypes.c_float), ("temperature", ctypes.c_float), ("top_k", ctypes.c_int32),
        ("top_p", ctypes.c_float), ("min_p", ctypes.c_float),
    ]  # fmt: skip


class _Config(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in (
            "vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "intermediate_size",
            "qk_norm", "qkv_bias", "untied", "max_positions", "bos", "end", "pad",
        )),
        ("norm_eps", ctypes.c_float), ("rope_theta", ctypes.c_float),
    ]  # fmt: skip


_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int32, ctypes.c_size_t
_CALLS: dict[str, tuple[Any, list[Any]]] = {
    "fry_kernels": (ctypes.c_char_p, [ctypes.c_int]),
    "fry_open": (ctypes.c_int, [_POINTER, _SIZE, ctypes.c_char_p, _POINTER]),
    "fry_close": (None, [_POINTER]),
    "fry_config_of": (ctypes.POINTER(_Config), [_POINTER]),
    "fry_kernels_of": (ctypes.c_char_p, [_POINTER]),
    "fry_weight_bytes": (_SIZE, [_POINTER]),
    "fry_state_new": (ctypes.c_int, [_POINTER, _INT, _INT, _POINTER]),
    "fry_state_free": (None, [_POINTER]),
    "fry_state_bytes": (_SIZE, [_POINTER]),
    "fry_length": (_INT, [_POINTER, _INT]),
    "fry_rewind": (ctypes.c_int, [_POINTER, _INT, _INT]),
    "fry_copy": (ctypes.c_int, [_POINTER, _INT, _INT, _INT]),
    "fry_read": (ctypes.c_int, [_POINTER, _INT, _POINTER, _POINTER, _POINTER, _POINTER]),
    "fry_read_all": (ctypes.c_int, [_POINTER, _INT, _INT, _POINTER, _POINTER]),
    "fry_sample": (_INT, [_POINTER, _INT, _POINTER, _POINTER, _POINTER, _INT, _POINTER, _POINTER, _POINTER]),
    "fry_generate": (
        ctypes.c_int,
        [_POINTER, _INT, _POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT, _POINTER, _POINTER, _POINTER, _TOKEN,
         _POINTER],
    ),
    "fry_score": (ctypes.c_int, [_POINTER, _POINTER, _POINTER, _POINTER]),
}  # fmt: skip
EXPORTS = tuple(sorted((*_CALLS, "fry_argmax", "fry_log_softmax")))


@functools.cache
def libfry() -> ctypes.CDLL | None:
    """libfry, or None where it was not built."""
    for path in sorted(Path(__file__).parent.glob("_fry*.so")) + sorted(Path(__file__).parent.glob("_fry*.pyd")):
        try:
            found = ctypes.CDLL(str(path))
            for name, (result, arguments) in _CALLS.items():
                call = getattr(found, name)
                call.restype, call.argtypes = result, arguments
            return found
        except (OSError, AttributeError):  # built for another machine, or by another version
            continue
    return None


def kernel_sets() -> list[str]:
    """Names of the kernel sets that this machine can use, best first; empty without libfry."""
    lib = libfry()
    names: list[str] = []
    while lib is not None and (name := lib.fry_kernels(len(names))) is not None:
        names.append(name.decode())
    return names


@dataclass(frozen=True, slots=True)
class Draw:
    """How libfry draws the next token; the defaults take the likeliest.

    Args:
        temperature: What logits are divided by; 0 takes the likeliest.
        top_k: Only the k likeliest; 0 for all.
        top_p: Only the likeliest that have this probability together (Holtzman et al. 2020).
        min_p: Only those with at least this share of the likeliest one's probability.
        repetition: Divides positive and multiplies negative logits of tokens already written (Keskar et al. 2019).
        seed: Of the draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    seed: int = 0

    def _struct(self) -> _Sampling:
        return _Sampling(self.repetition, self.temperature, self.top_k, self.top_p, self.min_p)


class NativeModel:
    """A model in libfry.

    Args:
        weights: A model, or the bytes of a flat file.
        precision: What matrices are computed in: fp32, bf16, int8, int4; as stored by default. Bytes stay as they are.
        kernels: One of `kernel_sets`; the best by default.

    Raises:
        LookupError: There is no library, or it has no kernel for this machine or shape.
        SmallfryError: The bytes are damaged.
    """

    def __init__(self, weights: Weights | bytes, precision: Kind | None = None, kernels: str | None = None) -> None:
        lib = libfry()
        if lib is None:
            raise LookupError("libfry is not there")
        flat = weights if isinstance(weights, bytes) else to_flat(weights, precision or weights.kind)
        handle = ctypes.c_void_p()
        code = lib.fry_open(flat, len(flat), kernels.encode() if kernels else None, ctypes.byref(handle))
        if code == _UNSUPPORTED:
            raise LookupError(f"libfry has no kernel {kernels or 'for this shape'}")
        _check(code)
        self._lib, self._handle, self.stored_bytes = lib, handle, len(flat)
        c = lib.fry_config_of(handle).contents
        self.shape = Shape(
            c.vocab_size, c.hidden_size, c.num_layers, c.num_heads, c.num_kv_heads, c.head_dim, c.intermediate_size,
            not c.untied, bool(c.qk_norm),
        )  # fmt: skip

    @property
    def kernels(self) -> str:
        """The kernel set in use."""
        return str(self._lib.fry_kernels_of(self._handle).decode())

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one token of one sequence reads."""
        return int(self._lib.fry_weight_bytes(self._handle))

    def session(self, rows: int, length: int) -> NativeSession:
        """Keys and values for ``rows`` sequences of up to ``length`` tokens."""
        return NativeSession(self, rows, length)

    def answer_logits(self, texts: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Floats]:
        """Logits after the tokens ``text[start:]`` of each text: one ``(len(text) - start, V)`` a text."""
        session = self.session(1, max(map(len, texts), default=1))
        found = []
        for text, start in zip(texts, starts, strict=True):
            session.rewind(0, 0)
            if start:
                session.feed([text[:start]])
            found.append(session.feed_all(text[start:]))
        return found

    def score(self, rows: Rows) -> tuple[Floats, NDArray[np.bool_]]:
        """Log-probability of each target in nats, and whether it is the likeliest token, both ``(questions,)``."""
        order = np.argsort(rows.places, kind="stable")
        places, targets = rows.places[order], rows.targets[order]
        logprobs = np.empty(len(targets), dtype=np.float32)
        greedy = np.empty(len(targets), dtype=np.uint8)
        batch = _Batch(
            len(rows.prefix), *map(_pointer, (rows.row_start, rows.prefix, rows.ids, rows.positions, rows.branch)),
            len(targets), _pointer(places), _pointer(targets),
        )  # fmt: skip
        _check(self._lib.fry_score(self._handle, ctypes.byref(batch), _pointer(logprobs), _pointer(greedy)))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return logprobs[back], greedy[back].astype(bool)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._lib.fry_close(self._handle)


class NativeSession:
    """Sequences that a model reads and writes.

    Args:
        model: The model.
        rows: How many sequences.
        length: Most tokens of each.
    """

    def __init__(self, model: NativeModel, rows: int, length: int) -> None:
        self._model, self._lib = model, model._lib  # the model lives as long as its sessions
        self._vocab = model.shape.vocab_size
        self._handle = ctypes.c_void_p()
        self._rows = list(range(rows))  # where each row lies in the state
        self.length = length
        if not 0 < length < 2**31:  # what would not fit is cut off in silence on its way to C
            raise SmallfryError(f"libfry: a sequence of {length:,} tokens is too long")
        _check(self._lib.fry_state_new(model._handle, rows, length, ctypes.byref(self._handle)))

    @property
    def rows(self) -> int:
        """Sequences that are kept."""
        return len(self._rows)

    @property
    def state_bytes(self) -> int:
        """Bytes of keys, values and workspaces."""
        return int(self._lib.fry_state_bytes(self._handle))

    def feed(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Read each row's next tokens; an empty list leaves a row alone.

        Returns:
            Logits after the last token of each row, ``(rows, V)`` float32; zeros where nothing was read.
        """
        logits = np.empty((len(tokens), self._vocab), dtype=np.float32)
        some = [i for i, ids in enumerate(tokens) if len(ids)]
        if not some:
            logits[:] = 0.0
            return logits
        rows = np.array([self._rows[i] for i in some], dtype=np.int32)
        counts = np.array([len(tokens[i]) for i in some], dtype=np.int32)
        ids = np.fromiter((t for i in some for t in tokens[i]), dtype=np.int32, count=int(counts.sum()))
        whole = len(some) == len(tokens)
        found = logits if whole else np.empty((len(some), self._vocab), dtype=np.float32)
        _check(
            self._lib.fry_read(
                self._handle, len(some), _pointer(rows), _pointer(counts), _pointer(ids), _pointer(found)
            )
        )
        if not whole:
            logits[:] = 0.0
            logits[some] = found
        return logits

    def feed_all(self, tokens: Sequence[int]) -> Floats:
        """Read the first row's next tokens; logits after each, ``(T, V)`` float32."""
        ids = np.array(tokens, dtype=np.int32)
        logits = np.empty((len(ids), self._vocab), dtype=np.float32)
        _check(self._lib.fry_read_all(self._handle, self._rows[0], len(ids), _pointer(ids), _pointer(logits)))
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Row i becomes what row ``rows[i]`` was; the others are forgotten."""
        self._rows = [self._rows[i] for i in rows]

    def rewind(self, row: int, length: int) -> None:
        """Forget everything behind a row's first ``length`` tokens."""
        _check(self._lib.fry_rewind(self._handle, self._rows[row], length))

    def copy(self, source: int, target: int, length: int) -> None:
        """Make row ``target`` begin with the first ``length`` tokens of row ``source`` (prefix reuse)."""
        _check(self._lib.fry_copy(self._handle, self._rows[source], self._rows[target], length))

    def generate(
        self, logits: Floats, max_new: int, end: int = -1, draw: Draw | None = None,
        tell: Callable[[int, int, float], bool] | None = None,
    ) -> list[list[int]]:  # fmt: skip
        """Write on in every row, in C.

        Args:
            logits: Of each row's next token, ``(rows, V)`` float32, from `feed`; they are changed.
            max_new: Most tokens of a row.
            end: The token that ends a row, which is written too; -1 for none.
            draw: How tokens are drawn; None takes the likeliest.
            tell: Called with row, token and log-probability of every token; True ends that row.

        Returns:
            The tokens of each row; the last one of each is not yet read.
        """
        n = len(self._rows)
        rows = np.array(self._rows, dtype=np.int32)
        ids = np.empty((n, max_new), dtype=np.int32)
        counts = np.empty(n, dtype=np.int32)
        sampling = draw._struct() if draw else None
        random = np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(draw.seed if draw else 0)
        raised: list[BaseException] = []
        call = _TOKEN() if tell is None else _TOKEN(_ending(tell, raised))
        _check(self._lib.fry_generate(
            self._handle, n, _pointer(rows), _pointer(logits), ctypes.byref(sampling) if sampling else None,
            _pointer(random) if sampling else None, end, max_new, _pointer(ids), _pointer(counts), None, call, None,
        ))  # fmt: skip
        if raised:
            raise raised[0]
        return [ids[i, : counts[i]].tolist() for i in range(n)]

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._lib.fry_state_free(self._handle)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of tokens laid end to end, each a prefix and branches that see the prefix and themselves only.

    Args:
        row_start: First token of each row, and the end: ``(rows + 1,)``.
        prefix: Tokens of each row's prefix: ``(rows,)``.
        ids: Token ids: ``(tokens,)``.
        positions: Position of each: ``(tokens,)``.
        branch: Where in its row each token's branch begins, 0 in the prefix: ``(tokens,)``.
        places: Tokens after which something is asked, counted over all rows: ``(questions,)``.
        targets: What is asked there: ``(questions,)``.
    """

    row_start: Ints
    prefix: Ints
    ids: Ints
    positions: Ints
    branch: Ints
    places: Ints
    targets: Ints


def sample(
    logits: Floats, draw: Draw, mask: NDArray[np.uint8] | None = None, recent: Sequence[int] = (), state: int = 0
) -> tuple[int, float, int]:
    """Draw one token with libfry.

    Args:
        logits: ``(V,)``; left as they are.
        draw: How.
        mask: A bit a token, lowest first, 1 where it may be written: ``(ceil(V / 8),)``; None for any.
        recent: Tokens that the repetition penalty looks at.
        state: Of the draws.

    Returns:
        The token (-1 where none is allowed), its log-probability among those allowed, and the next state.

    Raises:
        LookupError: libfry is not there.
    """
    lib = libfry()
    if lib is None:
        raise LookupError("libfry is not there")
    kept = np.array(logits, dtype=np.float32)
    order, past = np.empty(len(kept), dtype=np.int32), np.array(recent, dtype=np.int32)
    random, logprob, sampling = ctypes.c_uint64(state), ctypes.c_float(), draw._struct()
    token = lib.fry_sample(
        _pointer(kept), len(kept), ctypes.byref(sampling), _pointer(mask), _pointer(past), len(past), _pointer(order),
        ctypes.byref(random), ctypes.byref(logprob),
    )  # fmt: skip
    return int(token), float(logprob.value), int(random.value)


def _ending(
    tell: Callable[[int, int, float], bool], raised: list[BaseException]
) -> Callable[[int | None, int, int, float], int]:
    """For C: an exception ends the row and is kept, because it cannot pass through C."""

    def call(_: int | None, row: int, token: int, logprob: float) -> int:
        try:
            return int(bool(raised) or tell(row, token, logprob))
        except BaseException as error:  # also Ctrl-C
            raised.append(error)
            return 1

    return call


def _pointer(array: NDArray[Any] | None) -> int | None:
    if array is None:
        return None
    assert array.flags.c_contiguous
    return int(array.ctypes.data)


def _check(code: int) -> None:
    if code:
        raise SmallfryError(f"libfry: {_ERRORS.get(code, f'error {code}')}")
