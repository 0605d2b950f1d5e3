"""Norms, activations and rotary tables in numpy, with the roundings of libfry.

Every number is rounded where libfry rounds it: products and sums apart, and sums of many in sixteen lanes, which are
then added in one order. So both engines give the same bits wherever their matrix products do.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from smallfry.engine.weights import Floats

Doubles = NDArray[np.float64]
LANES = 16  # partial sums of a long sum


def constant(number: float) -> Floats:
    """A number as an array, which the thousand small operations behind a token do not have to convert anew."""
    return np.array(number, dtype=np.float32)


@functools.cache
def _count(number: int) -> Floats:
    return constant(number)


ONE = constant(1.0)
_LEAST_POWER, _MOST_POWER = constant(-87.5), constant(80.0)
_LOG2_E = constant(1.44269504088896341)
_WHOLE = constant(12582912.0)  # 1.5 * 2^23: a sum with it has no digits behind the point, and ends in the whole number
_LN2_HIGH, _LN2_LOW = constant(-0.693359375), constant(2.12194440e-4)
_FIRST, *_TERMS, _LAST = (
    constant(n)
    for n in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)
_EXPONENT = np.array(23, dtype=np.uint32)


def exponential(x: Floats) -> Floats:
    """``e^x`` for x up to 88; below -87.5 anything under 1.8e-38."""
    x = np.maximum(x, _LEAST_POWER)
    whole = x * _LOG2_E
    whole += _WHOLE
    exponents = whole.view(np.uint32) << _EXPONENT
    whole -= _WHOLE
    rest = whole * _LN2_HIGH
    rest += x
    whole *= _LN2_LOW
    rest += whole
    p = np.multiply(rest, _FIRST, whole)
    for term in _TERMS:
        p += term
        p *= rest
    p += _LAST
    p *= np.multiply(rest, rest, x)
    p += rest
    p += ONE
    powers: Floats = (p.view(np.uint32) + exponents).view(np.float32)  # times a power of two
    return powers


def lanes_sum(x: Floats) -> Floats:
    """The sums of rows ``(N, n)``, n a multiple of 16, as ``(N, 1)``: of each lane, then of lanes 8, 4, 2, 1 apart."""
    count, size = x.shape
    columns = np.ascontiguousarray(x.T).reshape(size // LANES, LANES, count)
    lanes: Floats = np.add.reduce(columns)  # one after the other, because this is not the last axis
    lanes = lanes[:8] + lanes[8:]
    lanes = lanes[:4] + lanes[4:]
    lanes = lanes[:2] + lanes[2:]
    return (lanes[:1] + lanes[1:]).T


@functools.lru_cache(maxsize=32)
def _starts(count: int, size: int) -> NDArray[np.intp]:
    return np.arange(0, count * size, size)


def largest(x: Floats) -> Floats:
    """The largest number along the last axis, in half of the time that `numpy.max` takes where that is short."""
    found: Floats = np.maximum.reduceat(x.reshape(-1), _starts(x.size // x.shape[-1], x.shape[-1]))
    return found.reshape(x.shape[:-1])


def padded(x: Floats, multiple: int) -> Floats:
    """Its last axis with zeros behind, up to a multiple."""
    size = x.shape[-1]
    if size % multiple == 0:
        return x
    wide = np.zeros((*x.shape[:-1], -(-size // multiple) * multiple), dtype=np.float32)
    wide[..., :size] = x
    return wide


def rms_norm(x: Floats, gain: Floats, eps: Floats) -> Floats:
    """``x / sqrt(mean(x^2) + eps) * gain`` of rows ``(N, C)`` (Zhang and Sennrich 2019)."""
    r = lanes_sum(padded(x * x, LANES))
    r /= _count(x.shape[1])
    r += eps
    np.sqrt(r, r)
    normed: Floats = x * (ONE / r)
    normed *= gain
    return normed


def swiglu(gate: Floats, up: Floats) -> Floats:
    """``gate / (1 + e^-gate) * up`` (Shazeer 2020)."""
    turned = exponential(np.minimum(-gate, _MOST_POWER))
    turned += ONE
    gated: Floats = gate / turned
    gated *= up
    return gated


def turn(heads: Floats, gain: Floats | None, scale: Floats, cos: Floats, sin: Floats, eps: Floats) -> Floats:
    """Queries and keys normalised where there is a gain, turned by their positions, and scaled.

    Args:
        heads: ``(N, heads, D)``.
        gain: Of their RMSNorm: ``(heads, 2, D / 2)``.
        scale: Of each: ``(heads, 1)``.
        cos: Of each token: ``(N, 1, 1, D / 2)``.
        sin: Of each token, the first of two negated: ``(N, 1, 2, D / 2)``.
        eps: Of the norm.

    Returns:
        ``(N, heads, 2, D / 2)`` (Su et al. 2021, in halves).
    """
    count, each, size = heads.shape
    halves = heads.reshape(count, each, 2, size // 2)
    if gain is None:
        normed = halves * scale[:, :, None]
    else:
        wide = padded(halves, LANES)
        pairs = wide.reshape(count, each, 2, wide.shape[3] // LANES, LANES)
        pairs = pairs[:, :, ::-1].swapaxes(2, 3)  # the second half goes first
        squares = np.multiply(pairs, pairs, order="C")
        r = lanes_sum(squares.reshape(count * each, 2 * wide.shape[3])).reshape(count, each, 1)
        r /= _count(size)
        r += eps
        np.sqrt(r, r)
        normed = halves * (scale / r)[:, :, None]
        normed *= gain
    turned = normed * cos
    normed = normed[:, :, ::-1] * sin
    turned += normed
    return turned


# ---- rotary tables --------------------------------------------------------------------------------------------------


def rotary_tables(theta: float, size: int, length: int) -> tuple[Floats, Floats]:
    """Cosines ``(length, 1, 1, size / 2)`` and sines ``(length, 1, 2, size / 2)``, the first of each two negated."""
    exponents = -2.0 * np.arange(size // 2, dtype=np.float64) / float(size)
    turns = _exp(exponents * _log(float(np.float32(theta)))).astype(np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * turns
    cos, sin = _cos_sin(angles.astype(np.float64))
    return cos[:, None, None], np.stack([-sin, sin], axis=1)[:, None]


def _exp(x: Doubles) -> Doubles:
    """``e^x`` for x from -700 to 700: 2^n times Taylor's series."""
    n = np.rint(x * 1.4426950408889634)
    r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10
    p = np.ones_like(x)
    for k in range(13, 0, -1):
        p = 1.0 + p * r / k
    return np.ldexp(p, n.astype(np.int32))


def _log(x: float) -> float:
    """``ln x`` for a normal x above 0: of the power of two, and twice the area tangent of the rest."""
    m, n = math.frexp(x)
    m, n = 2.0 * m, n - 1  # from 1 to 2
    if m > 1.4142135623730951:
        m, n = 0.5 * m, n + 1
    t = (m - 1.0) / (m + 1.0)
    square = t * t
    p = 0.0
    for k in range(23, 0, -2):
        p = p * square + 1.0 / k
    return n * 0.69314718055994531 + 2.0 * t * p


def _cos_sin(x: Doubles) -> tuple[Floats, Floats]:
    """Cosines and sines for x below 2^20: quarters of a turn, and Taylor's series."""
    n = np.rint(x * 0.63661977236758138)
    r = ((x - n * 1.57079632673412561417) - n * 6.07710050630396597660e-11) - n * 2.02226624879595063154e-21
    square = r * r
    c, s = np.ones_like(x), np.ones_like(x)
    for k in range(18, 0, -2):
        c = 1.0 - c * square / (k * (k - 1))
    for k in range(19, 1, -2):
        s = 1.0 - s * square / (k * (k - 1))
    s *= r
    quarter = n.astype(np.int64) & 3
    cos = np.choose(quarter, [c, -s, -c, s])
    sin = np.choose(quarter, [s, c, -s, -c])
    return cos.astype(np.float32), sin.astype(np.float32)
