"""A model directory's weights into the best engine there is: libfry, else numpy; never PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from smallfry.engine.decoding import Backend
from smallfry.engine.native import NativeModel
from smallfry.engine.weights import FLAT_FILE, Kind, Weights, read_weights
from smallfry.errors import SmallfryError

EngineName = Literal["auto", "c", "numpy"]
NOTICE = (
    "libfry is not there (no C compiler that could build it when smallfry was installed), so numpy computes, 7 to 40 "
    "times slower; install gcc or clang and run: pip install --force-reinstall --no-deps smallfry"
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to answer.

    Args:
        backend: What computes it.
        engine: ``c`` or ``numpy``.
        precision: What its matrices are computed in.
        notice: What the user should know, or empty.
    """

    backend: Backend
    engine: str
    precision: Kind
    notice: str = ""


def load_backend(path: Path, precision: Kind | None = None, engine: EngineName = "auto") -> Loaded:
    """The weights of a model directory in an engine.

    Args:
        path: The directory.
        precision: fp32, bf16, int8 or int4; as stored by default.
        engine: ``c`` insists on libfry, ``numpy`` on numpy; ``auto`` takes libfry where it is.

    Raises:
        SmallfryError: A file is missing or broken, or the engine asked for is not there.
    """
    if precision is not None and precision not in get_args(Kind):
        raise SmallfryError(f"precision {precision}: expected one of {', '.join(get_args(Kind))}")
    if engine not in get_args(EngineName):
        raise SmallfryError(f"engine {engine}: expected one of {', '.join(get_args(EngineName))}")
    weights = read_weights(path)
    kind = precision or weights.kind
    if engine != "numpy":
        try:
            return Loaded(NativeModel(_bytes(path, weights, kind), kind), "c", kind)
        except LookupError as error:
            if engine == "c":
                raise SmallfryError(
                    f"{path}: {error}; use --engine numpy, or install a C compiler and smallfry again"
                ) from None
    from smallfry.engine.numpy_engine import NumpyModel

    return Loaded(cast(Backend, NumpyModel(weights, kind)), "numpy", kind, NOTICE if engine == "auto" else "")


def _bytes(path: Path, weights: Weights, kind: Kind) -> Weights | bytes:
    """A flat file goes to libfry as it is."""
    flat = path / FLAT_FILE
    return flat.read_bytes() if kind == weights.kind and flat.exists() else weights
