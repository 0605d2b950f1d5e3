"""Small flat files of every kind and odd shapes, and files that are almost such."""

from __future__ import annotations

import math
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from smallfry.architecture import Variant
from smallfry.engine.weights import KINDS, Weights, tensor_shapes, to_flat
from smallfry.sizes import Shape

CHOICES = 32
"""Bytes of choices before a file (fuzz.c)."""

SHAPES: tuple[tuple[Shape, Variant], ...] = (
    (Shape(17, 16, 1, 1, 1, 16, 16), Variant()),
    (Shape(40, 32, 2, 2, 1, 16, 48), Variant(rope_theta=500.0)),
    (Shape(33, 20, 1, 2, 2, 10, 37, tie_embeddings=False), Variant()),
    (Shape(64, 32, 1, 4, 2, 8, 24, qk_norm=False), Variant(qkv_bias=True)),
    (Shape(130, 64, 1, 1, 1, 64, 33, tie_embeddings=False, qk_norm=False), Variant(norm_eps=1e-3)),
    (Shape(1, 1, 1, 1, 1, 2, 1), Variant(norm_eps=0.0, rope_theta=1.0)),
    (Shape(300, 7, 3, 6, 3, 2, 5, tie_embeddings=False), Variant(qkv_bias=True)),
    (Shape(65, 33, 1, 1, 1, 130, 31), Variant()),
    (Shape(5, 3, 12, 1, 1, 4, 2), Variant()),
)

_EXTREMES = (0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 512, 513, 4096, 65_535, 65_536, 1 << 20, 1 << 24,
             (1 << 24) + 1, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)  # fmt: skip
_FLOATS = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 1e-30, 1e-38, -1.0, 1.0, 1e12, 3.4e38)
_HEADER = 128
_FIELDS = tuple(range(8, 88, 4))


def model(shape: Shape, variant: Variant, seed: int, scale: float = 1.0) -> Weights:
    """A model of random weights."""
    rng = np.random.default_rng(seed)
    tensors = {
        name: (rng.normal(0.0, scale, size) + (len(size) == 1)).astype(np.float32)
        for name, size in tensor_shapes(shape, variant).items()
    }
    return Weights(shape, variant, tensors, specials=(0, min(3, shape.vocab_size - 1), -1), max_positions=128)


def seeds() -> list[bytes]:
    """Valid files: every kind of every shape."""
    made = [model(shape, variant, seed) for seed, (shape, variant) in enumerate(SHAPES)]
    return [to_flat(weights, kind) for weights in made for kind in KINDS]


def malformed(count: int, seed: int) -> Iterator[bytes]:
    """Inputs of fuzz.c: choices at random, then a valid file that something happened to.

    Args:
        count: How many.
        seed: The same seed gives the same files.
    """
    rng = random.Random(seed)
    good = seeds()
    for _ in range(count):
        file = bytearray(rng.choice(good))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
            rng.choice(_WAYS)(file, rng)
        mend = rng.choice((0, 0, 1, 1, 2, 3))
        if mend == 0 and rng.random() < 0.5:  # what a file with a right checksum and size does without further mending
            _sign(file)
        yield bytes([mend]) + rng.randbytes(CHOICES - 1) + bytes(file)


def _sign(file: bytearray) -> None:
    if len(file) >= _HEADER:
        file[16:24] = struct.pack("<Q", len(file))
        file[84:88] = struct.pack("<I", zlib.crc32(file[_HEADER:]))


def _cut(file: bytearray, rng: random.Random) -> None:
    del file[rng.randrange(len(file) + 1) :]


def _grow(file: bytearray, rng: random.Random) -> None:
    file += rng.randbytes(rng.choice((1, 2, 63, 64, 65, 1000)))


def _flip(file: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 8, 64))):
        if file:
            file[rng.randrange(len(file))] ^= 1 << rng.randrange(8)


def _header_word(file: bytearray, rng: random.Random) -> None:
    at = rng.choice(_FIELDS)
    file[at : at + 4] = struct.pack("<I", rng.choice(_EXTREMES) if rng.random() < 0.8 else rng.getrandbits(32))


def _header_near(file: bytearray, rng: random.Random) -> None:
    """A size that is almost right."""
    at = rng.choice(_FIELDS)
    if len(file) >= at + 4:
        (old,) = struct.unpack_from("<I", file, at)
        struct.pack_into("<I", file, at, (old + rng.choice((-2, -1, 1, 2, 16, 32))) & 0xFFFFFFFF)


def _header_small(file: bytearray, rng: random.Random) -> None:
    """Another small shape, which opens once the file is stretched to it."""
    if len(file) >= _HEADER:
        heads = rng.choice((1, 2, 3, 4, 8))
        kv_heads = rng.choice([n for n in (1, 2, 4, heads) if heads % n == 0])
        sizes = (rng.randint(1, 200), rng.randint(1, 70), rng.randint(1, 4), heads, kv_heads, 2 * rng.randint(1, 40),
                 rng.randint(1, 70), rng.randrange(8))  # fmt: skip
        struct.pack_into("<8i", file, 24, *sizes)
        struct.pack_into("<I", file, 12, rng.randrange(4))


def _header_huge(file: bytearray, rng: random.Random) -> None:
    """Sizes that are each allowed and whose products are terabytes, or overflow."""
    if len(file) >= _HEADER:
        for at in rng.sample(range(24, 52, 4), rng.randint(1, 7)):
            struct.pack_into("<I", file, at, 1 << rng.randint(8, 31))


def _numbers(file: bytearray, rng: random.Random) -> None:
    """Weights and scales that are infinite, no numbers, or next to nothing."""
    for _ in range(rng.choice((1, 4, 64))):
        value = struct.pack("<f", rng.choice(_FLOATS))[rng.choice((0, 2)) :]  # fp32, or its bf16
        at = _HEADER + rng.randrange(max(1, len(file) - _HEADER)) // 2 * 2
        file[at : at + len(value)] = value


def _all_numbers(file: bytearray, rng: random.Random) -> None:
    value = struct.pack("<f", rng.choice(_FLOATS))[rng.choice((0, 2)) :]
    body = len(file) - _HEADER
    if body > 0:
        file[_HEADER:] = (value * (body // len(value) + 1))[:body]


def _shift(file: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(file) + 1)
    if rng.random() < 0.5:
        file[at:at] = rng.randbytes(rng.randint(1, 64))
    else:
        del file[at : at + rng.randint(1, 64)]


def _noise(file: bytearray, rng: random.Random) -> None:
    keep = rng.choice((0, 8, 24, 88, _HEADER))
    file[keep:] = rng.randbytes(rng.randrange(2000))


_WAYS = (_cut, _grow, _flip, _header_word, _header_word, _header_near, _header_small, _header_small, _header_huge,
         _numbers, _numbers, _all_numbers, _shift, _noise)  # fmt: skip
