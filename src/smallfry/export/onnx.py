"""Model directories as ONNX graphs, in standard operations of opset 17, for ONNX Runtime on any machine and in a page.

    inputs    input_ids (batch, sequence) int64                       the tokens that are new
              past_key_values.{i}.key, .value                         of the tokens before them, one pair a layer:
                  (batch, kv_heads, past, head_dim) float32           at first with past = 0
    outputs   logits (batch, sequence, vocabulary) float32            of every new token
              present.{i}.key, .value                                 the past of the next call

Positions and the causal mask follow from the length of the past, so a call may read a whole text, a piece of one, or
one token. Rows of a batch are of one length; a shorter one may be filled up at its end, whose logits nobody reads.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smallfry.architecture import hf_config
from smallfry.engine.weights import Floats, Weights, matrices, read_weights
from smallfry.errors import SmallfryError
from smallfry.export.packages import require
from smallfry.export.vocabulary import chat_template
from smallfry.files import write_atomic
from smallfry.sizes import Shape

OPSET, IR_VERSION = 17, 8
MODEL_FILE = Path("onnx") / "model.onnx"
_COPIED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_LARGEST_FILE = 2**31 - 2**20  # protobuf's limit, and room for the nodes
_HIDDEN = -1e9  # a finite number, so that no runtime makes NaN of it


def export_onnx(model: Path, out: Path) -> None:
    """Write a model directory as ONNX in fp32.

    Args:
        model: The directory.
        out: ``*.onnx`` for the graph alone, which then carries the special tokens' ids, the name and the chat template
            as metadata; any other name for a directory with ``onnx/model.onnx`` beside ``config.json`` and the
            tokenizer's files, as JavaScript's transformers expects it.

    Raises:
        SmallfryError: When the model cannot be read or is too large for one file, the output cannot be written, or the
            package `onnx` is missing.
    """
    onnx = require("onnx")
    weights = read_weights(model)
    if 4 * sum(tensor.size for tensor in weights.tensors.values()) > _LARGEST_FILE:
        raise SmallfryError(f"{model}: more than an ONNX file can hold (2 GB in fp32); export it as GGUF")
    proto = onnx_model(weights, metadata(model, weights))
    onnx.checker.check_model(proto, full_check=True)
    if out.suffix.lower() == ".onnx":
        write_atomic(out, proto.SerializeToString())
        return
    write_atomic(out / MODEL_FILE, proto.SerializeToString())
    for name in _COPIED:
        if (model / name).exists() and (model / name).resolve() != (out / name).resolve():
            write_atomic(out / name, _bytes(model / name))
    if not (model / "config.json").exists():
        config = hf_config(weights.shape, "float32", weights.variant, weights.max_positions, _none(weights.specials))
        write_atomic(out / "config.json", json.dumps(config, indent=1) + "\n")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SmallfryError(f"{path}: cannot read ({error.strerror}); expected a file of the model") from None


def _none(specials: tuple[int, int, int]) -> tuple[int | None, int | None, int | None]:
    bos, eos, pad = (token if token >= 0 else None for token in specials)
    return bos, eos, pad


def metadata(model: Path, weights: Weights) -> dict[str, str]:
    """What a program has to know of a model beside its graph, as ONNX's metadata: texts by name."""
    found = {"name": model.resolve().name, "max_positions": str(weights.max_positions)}
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    found |= {name: str(token) for name, token in zip(names, weights.specials, strict=True) if token >= 0}
    template = chat_template(model)
    return found | ({"chat_template": template} if template else {})


def onnx_model(weights: Weights, texts: dict[str, str]) -> Any:
    """The ``onnx.ModelProto`` of a model.

    Args:
        weights: The model.
        texts: Its metadata.
    """
    onnx = require("onnx")
    graph = _Graph(onnx)
    _transformer(graph, weights)
    s, helper, floats = weights.shape, onnx.helper, onnx.TensorProto.FLOAT
    ids = helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch", "sequence"])
    logits = helper.make_tensor_value_info("logits", floats, ["batch", "sequence", s.vocab_size])

    def cached(prefix: str, length: str) -> list[Any]:
        size = ["batch", s.num_kv_heads, length, s.head_dim]
        names = [f"{prefix}.{i}.{part}" for i in range(s.num_layers) for part in ("key", "value")]
        return [helper.make_tensor_value_info(name, floats, size) for name in names]

    made = helper.make_graph(
        graph.nodes, "smallfry", [ids, *cached("past_key_values", "past")], [logits, *cached("present", "total")],
        graph.constants,
    )  # fmt: skip
    proto = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="smallfry",
    )  # fmt: skip
    helper.set_model_props(proto, texts)
    return proto


# ---- writing a graph down -------------------------------------------------------------------------------------------


class _Graph:
    """Nodes and constants in the order in which they are asked for; every value is known by its name."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._numbers: dict[str, str] = {}

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A tensor that the file holds."""
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, *values: int, scalar: bool = False) -> str:
        """Small integers, such as a shape or an axis, held once."""
        name = ("integer_" if scalar else "integers_") + "_".join(map(str, values))
        if name not in self._numbers:
            array = np.array(values[0] if scalar else values, dtype=np.int64)
            self._numbers[name] = self.constant(name, array)
        return self._numbers[name]

    def add(self, op: str, *inputs: str, named: str = "", outputs: int = 1, **attributes: Any) -> list[str]:
        """A node of several outputs, or one whose output is called ``named``."""
        label = f"{op}_{len(self.nodes)}"
        names = [named] if named else [label] if outputs == 1 else [f"{label}_{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), names, label, **attributes))
        return names

    def __call__(self, op: str, *inputs: str, named: str = "", **attributes: Any) -> str:
        """A node of one output."""
        return self.add(op, *inputs, named=named, **attributes)[0]

    def rms_norm(self, x: str, gain: str, eps: str) -> str:
        """In these very steps runtimes recognise it and compute it as one."""
        mean = self("ReduceMean", self("Pow", x, self._two()), axes=[-1], keepdims=1)
        return self("Mul", self("Div", x, self("Sqrt", self("Add", mean, eps))), gain)

    def _two(self) -> str:
        if "two" not in self._numbers:
            self._numbers["two"] = self.constant("two", np.array(2.0, dtype=np.float32))
        return self._numbers["two"]


# ---- the transformer ------------------------------------------------------------------------------------------------


def _transformer(g: _Graph, weights: Weights) -> None:
    s = weights.shape
    held = dict(matrices(weights))
    embed = g.constant("embed", held["embed"])
    eps = g.constant("eps", np.array(weights.variant.norm_eps, dtype=np.float32))
    cos, sin, mask = _positions(g, s, weights.variant.rope_theta)
    x = g("Gather", embed, "input_ids")  # (B, T, C)
    for i in range(s.num_layers):
        block = {name.removeprefix(f"blocks.{i}."): t for name, t in held.items() if name.startswith(f"blocks.{i}.")}
        at = f"blocks.{i}."
        normed = g.rms_norm(x, g.constant(at + "input_norm", block["input_norm"]), eps)
        x = g("Add", x, _attention(g, s, i, block, normed, (cos, sin, mask, eps)))
        normed = g.rms_norm(x, g.constant(at + "post_norm", block["post_norm"]), eps)
        gate, up = g.add(
            "Split", g("MatMul", normed, g.constant(at + "gate_up", block["gate_up"].T)), axis=-1, outputs=2
        )
        inner = g("Mul", g("Mul", gate, g("Sigmoid", gate)), up)  # (B, T, F)
        x = g("Add", x, g("MatMul", inner, g.constant(at + "down", block["down"].T)))
    x = g.rms_norm(x, g.constant("norm", held["norm"]), eps)
    # A tied table is held once, and turned where the model is loaded.
    head = g("Transpose", embed, perm=[1, 0]) if s.tie_embeddings else g.constant("head", held["head"].T)
    g("MatMul", x, head, named="logits")


def _positions(g: _Graph, s: Shape, theta: float) -> tuple[str, str, str]:
    """Cosines and signed sines ``(T, D)`` of the new tokens' positions, and the mask ``(T, S)`` of what they see.

    Negative frequencies in the first half give its sines the sign that turning halves needs; cosines do not see them.
    """
    one = g.integers(1, scalar=True)
    past = g("Gather", g("Shape", "past_key_values.0.key"), g.integers(2, scalar=True), axis=0)
    total = g("Add", past, g("Gather", g("Shape", "input_ids"), one, axis=0))
    rows = g("Unsqueeze", g("Range", past, total, one), g.integers(1))  # (T, 1)
    half = (theta ** (-np.arange(0, s.head_dim, 2) / s.head_dim)).astype(np.float32)
    frequencies = g.constant("frequencies", np.concatenate([-half, half]))
    angles = g("Mul", g("Cast", rows, to=g.onnx.TensorProto.FLOAT), frequencies)
    columns = g("Range", g.integers(0, scalar=True), total, one)  # (S,)
    nothing, hidden = (g.constant(n, np.array(v, dtype=np.float32)) for n, v in (("seen", 0), ("hidden", _HIDDEN)))
    mask = g("Where", g("Greater", columns, rows), hidden, nothing)
    repeat = s.num_heads // s.num_kv_heads
    if repeat > 1:
        mask = g("Tile", mask, g.integers(repeat, 1))
    return g("Cos", angles), g("Sin", angles), mask


def _attention(
    g: _Graph, s: Shape, layer: int, block: dict[str, Floats], x: str, shared: tuple[str, str, str, str]
) -> str:
    cos, sin, mask, eps = shared
    at, grouped = f"blocks.{layer}.", s.num_heads != s.num_kv_heads
    scale = np.float32(1.0 / math.sqrt(s.head_dim))
    q, k, v = _heads(g, s, at, block, x, scale)
    if s.qk_norm:
        q = g.rms_norm(q, g.constant(at + "q_norm", block["q_norm"] * scale), eps)
        k = g.rms_norm(k, g.constant(at + "k_norm", block["k_norm"]), eps)
    q, k = _rotated(g, q, cos, sin), _rotated(g, k, cos, sin)
    past, present = f"past_key_values.{layer}.", f"present.{layer}."
    k = g("Concat", past + "key", k, axis=2, named=present + "key")
    v = g("Concat", past + "value", v, axis=2, named=present + "value")
    if grouped:  # the queries of one group stand one below the other: keys and values need not be repeated
        q = g("Reshape", q, g.integers(0, s.num_kv_heads, -1, s.head_dim))
    scores = g("Add", g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2])), mask)
    out = g("MatMul", g("Softmax", scores, axis=-1), v)
    if grouped:
        out = g("Reshape", out, g.integers(0, s.num_heads, -1, s.head_dim))
    out = g("Reshape", g("Transpose", out, perm=[0, 2, 1, 3]), g.integers(0, 0, s.num_heads * s.head_dim))
    return g("MatMul", out, g.constant(at + "o", block["o"].T))


def _heads(g: _Graph, s: Shape, at: str, block: dict[str, Floats], x: str, scale: np.float32) -> tuple[str, str, str]:
    """Queries, keys and values ``(B, heads, T, D)``; without QK-norm the scores' scale goes into the queries' rows."""
    matrix, bias = block["qkv"].copy(), block.get("qkv_bias")
    bias = None if bias is None else bias.copy()
    if not s.qk_norm:
        matrix[: s.num_heads * s.head_dim] *= scale
        if bias is not None:
            bias[: s.num_heads * s.head_dim] *= scale
    made = g("MatMul", x, g.constant(at + "qkv", matrix.T))
    if bias is not None:
        made = g("Add", made, g.constant(at + "qkv_bias", bias))
    heads = g("Reshape", made, g.integers(0, 0, s.num_heads + 2 * s.num_kv_heads, s.head_dim))
    parts = g.integers(s.num_heads, s.num_kv_heads, s.num_kv_heads)
    q, k, v = g.add("Split", g("Transpose", heads, perm=[0, 2, 1, 3]), parts, axis=1, outputs=3)
    return q, k, v


def _rotated(g: _Graph, x: str, cos: str, sin: str) -> str:
    first, second = g.add("Split", x, axis=-1, outputs=2)
    return g("Add", g("Mul", x, cos), g("Mul", g("Concat", second, first, axis=-1), sin))
