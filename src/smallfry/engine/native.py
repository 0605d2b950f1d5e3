"""libfry from Python: the C library that is built with the package, where there was a compiler.

Calls leave the interpreter's lock, so that threads score side by side.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.errors import SmallfryError
from smallfry.sizes import Shape

Ints = NDArray[np.int32]
_UNSUPPORTED = 1
_ERRORS = {2: "a wrong argument", 3: "no memory left"}


class _Config(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in (
            "vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "intermediate_size",
            "qk_norm", "qkv_bias",
        )),
        ("norm_eps", ctypes.c_float), ("rope_theta", ctypes.c_float),
    ]  # fmt: skip


_BLOCK = ("input_norm", "qkv", "qkv_bias", "q_norm", "k_norm", "o", "post_norm", "gate_up", "down")


class _Block(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in _BLOCK]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("num_rows", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("row_start", "prefix", "ids", "positions", "branch")),
        ("num_questions", ctypes.c_int32), ("places", ctypes.c_void_p), ("targets", ctypes.c_void_p),
    ]  # fmt: skip


@functools.cache
def libfry() -> ctypes.CDLL | None:
    """libfry, or None where it was not built or this machine has no kernels for it."""
    for path in sorted(Path(__file__).parent.glob("_fry*.so")):
        try:
            found = ctypes.CDLL(str(path))
            found.fry_supported.restype = ctypes.c_int
            found.fry_close.argtypes = [ctypes.c_void_p]
            found.fry_close.restype = None
            return found if found.fry_supported() else None
        except (OSError, AttributeError):  # built for another machine, or half written
            continue
    return None


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


class NativeScorer:
    """A model in libfry; weights and activations in bf16, sums and the residual stream in fp32.

    Args:
        shape: The model's.
        norm_eps: What RMSNorm adds.
        rope_theta: Base of the rotary frequencies.
        state: fp32 weights: ``embed``, ``norm``, ``head`` where it is not tied, and one mapping a block with the names
            of `smallfry.model.Block`'s parameters.

    Raises:
        LookupError: There is no library, or it has no kernel for this shape.
    """

    def __init__(
        self, shape: Shape, norm_eps: float, rope_theta: float, state: dict[str, NDArray[np.float32]],
        blocks: Sequence[dict[str, NDArray[np.float32]]],
    ) -> None:  # fmt: skip
        lib = libfry()
        if lib is None:
            raise LookupError("libfry is not there")
        biased = "qkv_bias" in blocks[0]
        config = _Config(
            shape.vocab_size, shape.hidden_size, shape.num_layers, shape.num_heads, shape.num_kv_heads, shape.head_dim,
            shape.intermediate_size, int(shape.qk_norm), int(biased), norm_eps, rope_theta,
        )  # fmt: skip
        table = (_Block * len(blocks))(*(_Block(*(_pointer(block.get(name)) for name in _BLOCK)) for block in blocks))
        handle = ctypes.c_void_p()
        weights = [_pointer(state.get(name)) for name in ("embed", "norm", "head")]
        code = lib.fry_open(ctypes.byref(config), *map(ctypes.c_void_p, weights), table, ctypes.byref(handle))
        if code == _UNSUPPORTED:
            raise LookupError("libfry has no kernel for this shape")
        _check(code)
        self._lib, self._handle = lib, handle

    def score(self, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Log-probability of each target in nats, and whether it is the likeliest token, both ``(questions,)``."""
        order = np.argsort(rows.places, kind="stable")
        places, targets = rows.places[order], rows.targets[order]
        logprobs = np.empty(len(targets), dtype=np.float32)
        greedy = np.empty(len(targets), dtype=np.uint8)
        batch = _Batch(
            len(rows.prefix), *map(_pointer, (rows.row_start, rows.prefix, rows.ids, rows.positions, rows.branch)),
            len(targets), _pointer(places), _pointer(targets),
        )  # fmt: skip
        code = self._lib.fry_score(
            self._handle, ctypes.byref(batch), ctypes.c_void_p(_pointer(logprobs)), ctypes.c_void_p(_pointer(greedy))
        )
        _check(code)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return logprobs[back], greedy[back].astype(bool)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._lib.fry_close(self._handle)


def _pointer(array: NDArray[Any] | None) -> int | None:
    if array is None:
        return None
    assert array.flags.c_contiguous
    return int(array.ctypes.data)


def _check(code: int) -> None:
    if code:
        raise SmallfryError(f"libfry: {_ERRORS.get(code, f'error {code}')}; use --precision fp32 and report this")
