"""A model's weights without a framework: from safetensors to numpy, and to libfry's flat file and back.

A flat file (``model.fry``, all numbers little-endian) is a header of 128 bytes and then tensors in a fixed order, each
at a multiple of 64 bytes: the embedding, the head where it is not tied, the last norm, and for each block its input
norm, qkv, qkv bias, q norm, k norm (the three where the model has them), o, post norm, gate and up as one, down.
Vectors are fp32; matrices are row-major (outputs, inputs) in one of four kinds:

    0 fp32     1 bf16
    2 int8     rows of whole groups of 32 inputs, one byte each, then a bf16 scale a group: weight = byte * scale
    3 int4     the same with two inputs a byte, low half first, stored with 8 added
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from smallfry.architecture import MAX_POSITIONS, Variant, architecture_of, positions_of
from smallfry.errors import SmallfryError
from smallfry.files import read_json, write_atomic
from smallfry.sizes import Shape

Floats = NDArray[np.float32]
Kind = Literal["fp32", "bf16", "int8", "int4"]
KINDS: tuple[Kind, ...] = ("fp32", "bf16", "int8", "int4")
FLAT_FILE = "model.fry"
INDEX = "model.safetensors.index.json"
GROUP = 32
_MAGIC, _VERSION, _ALIGN, _HEADER = b"smallfry", 1, 64, 128
_HEADER_FORMAT = "<8sIIQ10i2f3iI"
_QK_NORM, _QKV_BIAS, _UNTIED = 1, 2, 4
_LARGEST = {"int8": 127, "int4": 7}


@dataclass(frozen=True, slots=True)
class Quantised:
    """A matrix in groups of 32 inputs.

    Args:
        values: ``(outputs, inputs rounded up to 32)`` int8.
        scales: ``(outputs, groups)`` float32, each representable in bf16.
        inputs: Columns of the matrix before rounding up.
    """

    values: NDArray[np.int8]
    scales: Floats
    inputs: int

    def dense(self) -> Floats:
        """``(outputs, inputs)`` float32."""
        rows, padded = self.values.shape
        wide = self.values.reshape(rows, padded // GROUP, GROUP) * self.scales[:, :, None]
        return np.ascontiguousarray(wide.reshape(rows, padded)[:, : self.inputs], dtype=np.float32)


@dataclass(slots=True)
class Weights:
    """A model's numbers.

    Args:
        shape: The model's.
        variant: What it does its own way.
        tensors: fp32 arrays under the names of Hugging Face's Qwen3, Qwen2 and Llama.
        kind: How matrices are stored where they came from.
        specials: Ids of begin, end and padding; -1 where there is none.
        max_positions: Longest sequence the model was made for.
        quantised: The matrices of a quantised model under libfry's names (`matrices`), whose dense form is in tensors.
    """

    shape: Shape
    variant: Variant
    tensors: dict[str, Floats]
    kind: Kind = "fp32"
    specials: tuple[int, int, int] = (-1, -1, -1)
    max_positions: int = MAX_POSITIONS
    quantised: dict[str, Quantised] | None = None


# ---- bf16 -----------------------------------------------------------------------------------------------------------


def to_bf16(x: Floats) -> NDArray[np.uint16]:
    """The nearest bf16 of each number, ties to even, as its 16 bits."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, (bits >> 16) | 0x40, rounded).astype(np.uint16)


def from_bf16(bits: NDArray[np.uint16]) -> Floats:
    """The numbers of 16-bit patterns."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


# ---- safetensors ----------------------------------------------------------------------------------------------------


def weight_files(path: Path, read: Callable[[Path], Any] = read_json) -> list[str]:
    """Names of the files that hold a directory's weights: one, or what the index of several names.

    Args:
        path: The directory.
        read: Reads the index.

    Raises:
        SmallfryError: When there is neither, or the index names no such files.
    """
    if (path / "model.safetensors").exists():
        return ["model.safetensors"]
    if not (path / INDEX).exists():
        raise SmallfryError(
            f"{path}: no model.safetensors and no {INDEX}; weights are read from safetensors only: save it with "
            "transformers' save_pretrained"
        )
    index = read(path / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    # Names only: an index from outside cannot point out of the directory.
    names = sorted({Path(str(place)).name for place in places.values()}) if isinstance(places, dict) else []
    if not names or not all(name.endswith(".safetensors") and name.isprintable() for name in names):
        raise SmallfryError(f"{path / INDEX}: names no files of weights in safetensors; download it again")
    return names


def read_weights(path: Path) -> Weights:
    """The weights of a model directory, smallfry's or Hugging Face's; a flat file in it goes first.

    Args:
        path: A directory with ``config.json`` and ``model.safetensors`` (or shards and their index) or ``model.fry``.

    Raises:
        SmallfryError: When a file is missing or broken, or the architecture is another.
    """
    if (path / FLAT_FILE).exists():
        return read_flat(path / FLAT_FILE)
    config = read_json(path / "config.json")
    shape, variant = architecture_of(config, path / "config.json")
    names = weight_files(path)
    tensors: dict[str, Floats] = {}
    kinds: set[str] = set()
    for name in names:
        tensors |= read_safetensors(path / name, kinds)
    if shape.num_layers > len(tensors):  # before a name is made for each layer
        raise SmallfryError(
            f"{path}: {shape.num_layers} layers by config.json, {len(tensors)} weights; they do not fit"
        )
    expected = tensor_shapes(shape, variant)
    for name, size in expected.items():
        if name not in tensors:
            raise SmallfryError(f"{path / names[0]}: weight {name} is missing; the file does not fit its config.json")
        if tensors[name].shape != size:
            raise SmallfryError(
                f"{path / names[0]}: weight {name} is {tensors[name].shape}, expected {size} by config.json"
            )
    ids = (_special(config.get(key)) for key in ("bos_token_id", "eos_token_id", "pad_token_id"))
    return Weights(
        shape, variant, {name: tensors[name] for name in expected}, "bf16" if kinds == {"BF16"} else "fp32",
        (next(ids), next(ids), next(ids)), positions_of(config, path / "config.json"),
    )  # fmt: skip


def _special(found: object) -> int:
    first = found[0] if isinstance(found, list) and found else found
    return first if isinstance(first, int) and 0 <= first < 2**31 else -1


def read_safetensors(path: Path, kinds: set[str] | None = None) -> dict[str, Floats]:
    """Every tensor of a safetensors file as fp32; ``kinds`` collects how they were stored.

    Raises:
        SmallfryError: When the file is missing or broken or holds other numbers than floats.
    """
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (OSError, SafetensorError) as error:
        raise SmallfryError(f"{path}: cannot read the weights ({error})") from None
    tensors: dict[str, Floats] = {}
    for name, entry in found:
        kind, raw = entry["dtype"], entry["data"]
        if kinds is not None:
            kinds.add(kind)
        if kind == "F32":
            flat = np.frombuffer(raw, dtype="<f4")
        elif kind == "F16":
            flat = np.frombuffer(raw, dtype="<f2").astype(np.float32)
        elif kind == "BF16":
            flat = from_bf16(np.frombuffer(raw, dtype="<u2"))
        else:
            raise SmallfryError(f"{path}: weight {name} is {kind}; expected F32, F16 or BF16")
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def tensor_shapes(shape: Shape, variant: Variant) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's tensors, Hugging Face's."""
    s, width = shape, shape.hidden_size
    q, kv = s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (s.vocab_size, width)}
    if not s.tie_embeddings:
        found["lm_head.weight"] = (s.vocab_size, width)
    found["model.norm.weight"] = (width,)
    for i in range(s.num_layers):
        at = f"model.layers.{i}."
        found[at + "input_layernorm.weight"] = (width,)
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            found[f"{at}self_attn.{name}_proj.weight"] = (rows, width)
            if variant.qkv_bias:
                found[f"{at}self_attn.{name}_proj.bias"] = (rows,)
        if s.qk_norm:
            found[at + "self_attn.q_norm.weight"] = found[at + "self_attn.k_norm.weight"] = (s.head_dim,)
        found[at + "self_attn.o_proj.weight"] = (width, q)
        found[at + "post_attention_layernorm.weight"] = (width,)
        found[at + "mlp.gate_proj.weight"] = found[at + "mlp.up_proj.weight"] = (s.intermediate_size, width)
        found[at + "mlp.down_proj.weight"] = (width, s.intermediate_size)
    return found


# ---- the flat file --------------------------------------------------------------------------------------------------


def layout(shape: Shape, variant: Variant) -> Iterator[tuple[str, list[str], tuple[int, ...]]]:
    """What a flat file holds in its order: libfry's name, the tensors it joins, and its shape."""
    s, width = shape, shape.hidden_size
    q, kv = s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim
    yield "embed", ["model.embed_tokens.weight"], (s.vocab_size, width)
    if not s.tie_embeddings:
        yield "head", ["lm_head.weight"], (s.vocab_size, width)
    yield "norm", ["model.norm.weight"], (width,)
    for i in range(s.num_layers):
        at, to = f"model.layers.{i}.", f"blocks.{i}."
        yield to + "input_norm", [at + "input_layernorm.weight"], (width,)
        yield to + "qkv", [f"{at}self_attn.{n}_proj.weight" for n in "qkv"], (q + 2 * kv, width)
        if variant.qkv_bias:
            yield to + "qkv_bias", [f"{at}self_attn.{n}_proj.bias" for n in "qkv"], (q + 2 * kv,)
        if s.qk_norm:
            yield to + "q_norm", [at + "self_attn.q_norm.weight"], (s.head_dim,)
            yield to + "k_norm", [at + "self_attn.k_norm.weight"], (s.head_dim,)
        yield to + "o", [at + "self_attn.o_proj.weight"], (width, q)
        yield to + "post_norm", [at + "post_attention_layernorm.weight"], (width,)
        yield to + "gate_up", [f"{at}mlp.{n}_proj.weight" for n in ("gate", "up")], (2 * s.intermediate_size, width)
        yield to + "down", [at + "mlp.down_proj.weight"], (width, s.intermediate_size)


def matrices(weights: Weights) -> Iterator[tuple[str, Floats]]:
    """The tensors of a flat file under libfry's names: ``(outputs, inputs)`` or ``(n,)``."""
    for name, parts, _ in layout(weights.shape, weights.variant):
        yield name, np.concatenate([weights.tensors[part] for part in parts])


def quantise(matrix: Floats, kind: Literal["int8", "int4"]) -> Quantised:
    """Round a matrix to int8 or int4 values with a scale for each group of 32 inputs, the largest value kept."""
    rows, inputs = matrix.shape
    padded = -(-inputs // GROUP) * GROUP
    wide = np.zeros((rows, padded), dtype=np.float32)
    wide[:, :inputs] = matrix
    groups = wide.reshape(rows, padded // GROUP, GROUP)
    largest = np.abs(groups).max(axis=2)
    return rounded(groups, largest / _LARGEST[kind], inputs, kind)


def rounded(groups: Floats, scales: Floats, inputs: int, kind: Literal["int8", "int4"]) -> Quantised:
    """Groups ``(outputs, groups, 32)`` rounded to the nearest values at given scales, which are rounded to bf16."""
    kept = from_bf16(to_bf16(scales))
    values = np.rint(groups / np.where(kept > 0, kept, 1.0)[:, :, None])
    most = _LARGEST[kind]
    return Quantised(np.clip(values, -most, most).astype(np.int8).reshape(len(groups), -1), kept, inputs)


def to_flat(weights: Weights, kind: Kind) -> bytes:
    """A flat file of a model.

    Args:
        weights: The model; what is quantised in this kind already is kept as it is.
        kind: How matrices are stored.
    """
    s, v = weights.shape, weights.variant
    given = weights.quantised if weights.kind == kind and weights.quantised else {}
    body = bytearray()
    for name, tensor in matrices(weights):
        body += bytes(-len(body) % _ALIGN)
        if tensor.ndim == 1 or kind == "fp32":
            body += tensor.astype("<f4").tobytes()
        elif kind == "bf16":
            body += to_bf16(tensor).astype("<u2").tobytes()
        else:
            found = given.get(name) or quantise(tensor, kind)
            if kind == "int8":
                body += found.values.tobytes()
            else:
                halves = (found.values + 8).astype(np.uint8)
                body += (halves[:, 0::2] | halves[:, 1::2] << 4).tobytes()
            body += to_bf16(found.scales).astype("<u2").tobytes()
    flags = _QK_NORM * s.qk_norm | _QKV_BIAS * v.qkv_bias | _UNTIED * (not s.tie_embeddings)
    header = struct.pack(
        _HEADER_FORMAT, _MAGIC, _VERSION, KINDS.index(kind), _HEADER + len(body), s.vocab_size, s.hidden_size,
        s.num_layers, s.num_heads, s.num_kv_heads, s.head_dim, s.intermediate_size, flags, GROUP, weights.max_positions,
        v.norm_eps, v.rope_theta, *weights.specials, zlib.crc32(bytes(body)),
    )  # fmt: skip
    return header + bytes(_HEADER - len(header)) + bytes(body)


def write_flat(path: Path, weights: Weights, kind: Kind) -> None:
    """Write a flat file, whole or not at all."""
    write_atomic(path, to_flat(weights, kind))


def read_flat(path: Path) -> Weights:
    """A flat file as numpy arrays.

    Raises:
        SmallfryError: When it is missing, broken, or of another version.
    """
    try:
        return from_flat(path.read_bytes(), str(path))
    except OSError as error:
        raise SmallfryError(f"{path}: cannot read ({error.strerror}); expected a flat weights file") from None


def from_flat(raw: bytes, where: str) -> Weights:
    """The model in the bytes of a flat file.

    Raises:
        SmallfryError: When they are broken or of another version.
    """
    broken = SmallfryError(f"{where}: damaged or not a flat weights file of version {_VERSION}; export the model again")
    if len(raw) < _HEADER or raw[:8] != _MAGIC:
        raise broken
    _, version, kind_id, size, *rest = struct.unpack(_HEADER_FORMAT, raw[: struct.calcsize(_HEADER_FORMAT)])
    *numbers, flags, group, positions, eps, theta, bos, end, pad, checksum = rest
    sane = version == _VERSION and kind_id < len(KINDS) and size == len(raw) and group == GROUP
    if not sane or zlib.crc32(raw[_HEADER:]) != checksum or not math.isfinite(eps) or not math.isfinite(theta):
        raise broken
    try:
        vocab, hidden, layers, heads, kv_heads, head_dim, inner = numbers
        tied, qk_norm = not flags & _UNTIED, bool(flags & _QK_NORM)
        shape = Shape(vocab, hidden, layers, heads, kv_heads, head_dim, inner, tied, qk_norm)
    except ValueError:
        raise broken from None
    weights = Weights(
        shape, Variant(theta, eps, bool(flags & _QKV_BIAS)), {}, KINDS[kind_id], (bos, end, pad), positions
    )
    quantised: dict[str, Quantised] = {}
    at = _HEADER
    try:
        for name, parts, size_of in layout(shape, weights.variant):
            at += -at % _ALIGN
            tensor, found, at = _read_tensor(raw, at, size_of, weights.kind)
            if found is not None:
                quantised[name] = found
            _split(weights, parts, tensor)
    except ValueError:
        raise broken from None
    weights.quantised = quantised or None
    return weights


def _read_tensor(raw: bytes, at: int, size: tuple[int, ...], kind: Kind) -> tuple[Floats, Quantised | None, int]:
    count = math.prod(size)
    if len(size) == 1 or kind == "fp32":
        return np.frombuffer(raw, "<f4", count, at).reshape(size), None, at + 4 * count
    if kind == "bf16":
        return from_bf16(np.frombuffer(raw, "<u2", count, at)).reshape(size), None, at + 2 * count
    rows, inputs = size
    padded = -(-inputs // GROUP) * GROUP
    if kind == "int8":
        values = np.frombuffer(raw, np.int8, rows * padded, at).reshape(rows, padded)
        at += rows * padded
    else:
        pairs = np.frombuffer(raw, np.uint8, rows * padded // 2, at).reshape(rows, padded // 2)
        values = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(rows, padded).astype(np.int8) - np.int8(8)
        at += rows * padded // 2
    scales = from_bf16(np.frombuffer(raw, "<u2", rows * padded // GROUP, at)).reshape(rows, padded // GROUP)
    found = Quantised(values, scales, inputs)
    return found.dense(), found, at + 2 * scales.size


def _split(weights: Weights, parts: list[str], tensor: Floats) -> None:
    s = weights.shape
    q, kv = s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim
    rows = [q, kv, kv] if len(parts) == 3 else [len(tensor) // len(parts)] * len(parts)
    start = 0
    for part, n in zip(parts, rows, strict=True):
        weights.tensors[part] = tensor[start : start + n]
        start += n
