"""libfry's training kernels from Python: addresses in, nothing out. `smallfry.fused` makes gradients of them.

See ``fry/train/train.h`` for what each function computes.
"""

from __future__ import annotations

import ctypes
import functools
import glob
from collections.abc import Sequence
from typing import Any

from smallfry.engine.native import libfry

VERSION = 1
FP32, BF16 = 0, 1
_UNSUPPORTED = 1
_P, _I, _L, _F = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float


def _fields(text: str) -> list[tuple[str, Any]]:
    """Fields of a structure: ``"p x y; i kind"``."""
    kinds = {"p": _P, "i": _I, "l": _L, "f": _F}
    found = []
    for part in text.split(";"):
        kind, *names = part.split()
        found += [(name, kinds[kind]) for name in names]
    return found


class NormArgs(ctypes.Structure):
    """``fry_norm``."""

    _fields_ = _fields("i kind; f eps; l rows width; p x update mask gain summed y r dy dsum dx dupdate dgain")


class SwigluArgs(ctypes.Structure):
    """``fry_swiglu``."""

    _fields_ = _fields("i kind; l rows width; p gate_up out dout dgate_up")


class AttentionArgs(ctypes.Structure):
    """``fry_attention``."""

    _fields_ = _fields(
        "i kind; f eps; l batch length heads kv_heads head_dim; p qkv q_gain k_gain cosines sines out tops inverses "
        "dout dqkv dq_gain dk_gain"
    )


class CrossEntropyArgs(ctypes.Structure):
    """``fry_cross_entropy``."""

    _fields_ = _fields("i kind; f smoothing; l rows vocab; p logits targets scales losses; i gradient")


class WeightGradientArgs(ctypes.Structure):
    """``fry_weight_gradient``."""

    _fields_ = _fields("l rows out_features in_features; p dy x dw")


class StepArgs(ctypes.Structure):
    """``fry_step``."""

    _fields_ = _fields(
        "i kind grad_kind; l count; p grad weight master first second average; "
        "f lr beta1 beta2 eps weight_decay scale correct1 correct2 towards"
    )


_STRUCTS = {
    "fry_norm_forward": NormArgs, "fry_norm_backward": NormArgs, "fry_swiglu_forward": SwigluArgs,
    "fry_swiglu_backward": SwigluArgs, "fry_attention_forward": AttentionArgs, "fry_attention_backward": AttentionArgs,
    "fry_cross_entropy_rows": CrossEntropyArgs, "fry_adamw": StepArgs, "fry_apply": StepArgs,
}  # fmt: skip


@functools.cache
def _library() -> ctypes.CDLL | None:
    lib = libfry()
    if lib is None or not hasattr(lib, "fry_train_kernels"):
        return None
    for name in _STRUCTS:
        getattr(lib, name).argtypes = [_P]
    lib.fry_weights_gradient.argtypes = [_P]
    lib.fry_momentum.argtypes = [_P, _P]
    lib.fry_add.argtypes = [_I, _L, _P, _P]
    lib.fry_sum_squares.argtypes = [_I, _L, _P, _P]
    lib.fry_train_kernels.restype, lib.fry_train_kernels.argtypes = ctypes.c_char_p, [ctypes.c_int]
    lib.fry_train_choose.argtypes = [ctypes.c_char_p]
    lib.fry_train_threads.restype, lib.fry_train_threads.argtypes = None, [_P, ctypes.c_int]
    return lib


def training_sets() -> list[str]:
    """Names of the training kernel sets that this machine can use, best first; empty without libfry."""
    lib = _library()
    names: list[str] = []
    while lib is not None and (name := lib.fry_train_kernels(len(names))) is not None:
        names.append(name.decode())
    return names


def choose(name: str | None = None) -> None:
    """Compute with this set from now on; None is the best.

    Raises:
        LookupError: This machine lacks it.
    """
    lib = _library()
    if lib is None or lib.fry_train_choose(name.encode() if name else None):
        raise LookupError(f"libfry has no training kernels {name or ''} for this machine")


@functools.cache
def _openmp() -> int | None:
    """The address of ``GOMP_parallel`` in the OpenMP library that torch computes with, if it is GNU's."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    libraries = glob.glob(str(torch.__path__[0]) + "/lib/libgomp*")  # noqa: PTH207
    for path in [*libraries, "libgomp.so.1"]:
        try:
            # Only one that is loaded already: a second runtime would bring threads of its own.
            loaded = ctypes.CDLL(path, mode=ctypes.DEFAULT_MODE | 4)  # RTLD_NOLOAD
            return ctypes.cast(loaded.GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


def set_threads(count: int) -> int:
    """Share the kernels' work among as many threads, the ones torch computes with.

    Returns:
        How many it is: 1 where torch has no OpenMP library that can be shared.
    """
    lib, runner = _library(), _openmp()
    if lib is None:
        return 1
    many = count if runner is not None else 1
    lib.fry_train_threads(runner, many)
    return max(1, many)


def call(name: str, args: ctypes.Structure) -> None:
    """Call one of the functions that take a structure.

    Raises:
        ValueError: A size or kind makes no sense, or a target lies outside the vocabulary.
        MemoryError: There is none left.
    """
    lib = _library()
    assert lib is not None
    _check(name, getattr(lib, name)(ctypes.byref(args)))


def weight_gradient(args: WeightGradientArgs) -> bool:
    """``fry_weights_gradient``: whether it was computed; False where a library's product is as fast."""
    lib = _library()
    assert lib is not None
    code = lib.fry_weights_gradient(ctypes.byref(args))
    if code != _UNSUPPORTED:
        _check("fry_weights_gradient", code)
    return bool(code != _UNSUPPORTED)


def momentum(args: StepArgs) -> float:
    """``fry_momentum``: the sum of the direction's squares."""
    lib, total = _library(), ctypes.c_double()
    assert lib is not None
    _check("fry_momentum", lib.fry_momentum(ctypes.byref(args), ctypes.byref(total)))
    return total.value


def add(kind: int, count: int, x: int, sums: int) -> None:
    """``fry_add``: add numbers of a kind to floats."""
    lib = _library()
    assert lib is not None
    _check("fry_add", lib.fry_add(kind, count, x, sums))


def sum_squares(parts: Sequence[tuple[int, int, int]]) -> float:
    """The sum of squares over ``(kind, count, address)``."""
    lib, total, found = _library(), 0.0, ctypes.c_double()
    assert lib is not None
    for kind, count, x in parts:
        _check("fry_sum_squares", lib.fry_sum_squares(kind, count, x, ctypes.byref(found)))
        total += found.value
    return total


def _check(name: str, code: int) -> None:
    if code == 3:
        raise MemoryError(f"{name}: no memory left")
    if code:
        raise ValueError(f"{name}: wrong argument")
