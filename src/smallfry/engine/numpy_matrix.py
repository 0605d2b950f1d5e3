"""Matrix products in numpy, in the numbers of each precision.

Where matrices are bf16, int8 or int4, the left operand of each product is narrowed too: rounded to bf16, or to int8
with one scale for each row and group of 32 inputs. What is narrow is held in fp32 arrays, which BLAS multiplies
exactly: a product of two bf16 numbers fits into fp32, and so does a sum of 32 products of int8 numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from smallfry.engine.numpy_functions import constant, largest, padded
from smallfry.engine.weights import GROUP, Floats, Kind, Quantised, quantise

Ints = NDArray[np.int64]
LEAST = constant(1e-30)  # a group whose largest is less is all zeros: 127 / x must be a number
MOST = constant(127.0)
INFINITE = constant(math.inf)
_ZERO = constant(0.0)
_PRODUCTS = 1 << 18  # sums of groups held at once
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


def quantise_rows(x: Floats) -> tuple[Floats, Floats]:
    """Left operands ``(N, inputs)`` as whole numbers ``(N, groups, 32)`` up to 127 and scales ``(N, groups)``."""
    x = padded(x, GROUP)
    groups = x.reshape(len(x), x.shape[1] // GROUP, GROUP)
    return quantise_groups(groups)


def quantise_groups(groups: Floats) -> tuple[Floats, Floats]:
    """Groups ``(..., 32)`` as whole numbers up to 127, and their scales ``(...)``."""
    top = largest(np.abs(groups))
    scales = top / MOST
    np.copyto(top, INFINITE, where=top < LEAST)
    values: Floats = groups * (MOST / top)[..., None]
    np.rint(values, values)
    return values, scales


def add_groups(sums: Floats, axis: int) -> Floats:
    """Sums added to nothing one after the other, as libfry does; the axis is not the last one."""
    if sums.shape[axis] == 1:
        found: Floats = np.take(sums, 0, axis)
        found += _ZERO
    elif sums.shape[-1] == 1:  # numbers that lie side by side would be added pair by pair
        found = np.take(np.add.accumulate(sums, axis=axis), -1, axis)
        found += _ZERO
    else:
        found = np.add.reduce(sums, axis=axis, initial=0.0)
    return found


class Dense:
    """A matrix ``(outputs, inputs)`` in fp32, or in bf16 with left operands rounded alike."""

    def __init__(self, matrix: Floats, narrow: bool) -> None:
        self._matrix, self._narrow = round_bf16(matrix) if narrow else matrix, narrow
        self._turned = self._matrix.T

    def __call__(self, x: Floats) -> Floats:
        """Rows ``(N, inputs)`` times it: ``(N, outputs)``."""
        out: Floats = (round_bf16(x) if self._narrow else x) @ self._turned
        return out

    def rows(self, ids: Ints) -> Floats:
        """Its rows: ``(N, inputs)``."""
        return self._matrix[ids]


class Grouped:
    """A quantised matrix; left operands are quantised to int8 for each row and group."""

    def __init__(self, held: Quantised) -> None:
        outputs, inputs = held.values.shape
        self._held, self._groups = held, inputs // GROUP
        values = held.values.reshape(outputs, self._groups, GROUP).transpose(1, 2, 0)
        self._values = np.ascontiguousarray(values, dtype=np.float32)  # (groups, 32, outputs)
        self._scales = np.ascontiguousarray(held.scales.T)[:, None]  # (groups, 1, outputs)

    def __call__(self, x: Floats) -> Floats:
        """Rows ``(N, inputs)`` times it: ``(N, outputs)``."""
        values, scales = quantise_rows(x)
        values, scales = values.transpose(1, 0, 2), scales.T[:, :, None]  # (groups, N, 32), (groups, N, 1)
        step = max(1, _PRODUCTS // self._scales.size)
        if len(x) <= step:
            return self._sums(values, scales)
        parts = [slice(at, at + step) for at in range(0, len(x), step)]
        return np.concatenate([self._sums(values[:, part], scales[:, part]) for part in parts])

    def _sums(self, values: Floats, scales: Floats) -> Floats:
        sums = values @ self._values  # (groups, N, outputs), integers
        sums *= self._scales * scales
        return add_groups(sums, 0)

    def rows(self, ids: Ints) -> Floats:
        """Its rows: ``(N, inputs)``."""
        values = self._held.values[ids].reshape(len(ids), self._groups, GROUP) * self._held.scales[ids][:, :, None]
        return np.ascontiguousarray(values.reshape(len(ids), -1)[:, : self._held.inputs], dtype=np.float32)


Matrix = Dense | Grouped


def hold(matrix: Floats, stored: Quantised | None, precision: Kind) -> Matrix:
    """A matrix in a precision.

    Args:
        matrix: ``(outputs, inputs)``.
        stored: What it is stored as, where that is in this precision already.
        precision: What it is held in.
    """
    if precision == "fp32" or precision == "bf16":
        return Dense(matrix, precision == "bf16")
    return Grouped(stored or quantise(matrix, precision))
