"""Model directories as GGUF files, which llama.cpp and the programs around it run.

A Qwen3-shaped model becomes arch ``qwen3``, one with biases on queries, keys and values ``qwen2``, the rest ``llama``.
The tokenizer goes into the file (`smallfry.export.vocabulary`), padded with unused tokens to the rows of the embedding.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from smallfry.engine.weights import Floats, Weights, read_weights
from smallfry.errors import SmallfryError
from smallfry.export.packages import require
from smallfry.export.vocabulary import Vocabulary, read_vocabulary
from smallfry.files import whole_file
from smallfry.sizes import Shape

GgufKind = Literal["f32", "f16", "q8_0"]
KINDS: tuple[GgufKind, ...] = ("f32", "f16", "q8_0")
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}  # llama.cpp's numbers of what most matrices are
_GROUP = 32
_LARGEST_F16 = 65_504.0

_TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight",
    "model.norm.weight": "output_norm.weight",
}  # fmt: skip
_BLOCK_TENSORS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def export_gguf(model: Path, out: Path, kind: GgufKind = "f16") -> list[str]:
    """Write a model directory as a GGUF file, whole or not at all.

    Args:
        model: The directory.
        out: The file; an older one is replaced.
        kind: How matrices are stored. Vectors are always fp32.

    Returns:
        What differs from what was asked, one line each; usually nothing.

    Raises:
        SmallfryError: When the model or its tokenizer cannot be read or said in GGUF, the file cannot be written, or
            the package `gguf` is missing.
    """
    gguf = require("gguf")
    if kind not in KINDS:
        raise SmallfryError(f"GGUF kind {kind!r}: expected one of {', '.join(KINDS)}")
    weights = read_weights(model)
    arch = _arch(weights, model)
    vocabulary = read_vocabulary(model, weights.shape.vocab_size, weights.specials)
    notes = list(vocabulary.notes)
    with whole_file(out) as part:
        writer = gguf.GGUFWriter(part, arch)
        try:
            writer.add_name(model.resolve().name)
            writer.add_file_type(_FILE_TYPES[kind])
            if kind == "q8_0":
                writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            _add_shape(writer, weights)
            _add_vocabulary(writer, vocabulary)
            notes += _add_tensors(gguf, writer, weights, arch, kind, model)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        except (struct.error, OverflowError):
            raise SmallfryError(f"{model / 'config.json'}: holds a number beyond what GGUF can say") from None
        finally:
            writer.close()
    return notes


def _arch(weights: Weights, model: Path) -> str:
    qk_norm, bias = weights.shape.qk_norm, weights.variant.qkv_bias
    if qk_norm and bias:
        raise SmallfryError(
            f"{model}: has both QK-norm and biases; expected a model of the shape of qwen3, qwen2 or llama, which are "
            f"what llama.cpp runs"
        )
    return "qwen3" if qk_norm else "qwen2" if bias else "llama"


def _add_shape(writer: Any, weights: Weights) -> None:
    s = weights.shape
    writer.add_vocab_size(s.vocab_size)
    writer.add_context_length(weights.max_positions)
    writer.add_embedding_length(s.hidden_size)
    writer.add_block_count(s.num_layers)
    writer.add_feed_forward_length(s.intermediate_size)
    writer.add_head_count(s.num_heads)
    writer.add_head_count_kv(s.num_kv_heads)
    writer.add_key_length(s.head_dim)
    writer.add_value_length(s.head_dim)
    writer.add_rope_dimension_count(s.head_dim)
    writer.add_rope_freq_base(weights.variant.rope_theta)
    writer.add_layer_norm_rms_eps(weights.variant.norm_eps)


def _add_vocabulary(writer: Any, v: Vocabulary) -> None:
    writer.add_tokenizer_model(v.model)
    writer.add_tokenizer_pre(v.pre)
    writer.add_token_list(v.tokens)
    writer.add_token_types(v.types)
    if v.model == "gpt2":
        writer.add_token_merges(v.merges)
    else:
        writer.add_token_scores(v.scores)
        writer.add_add_space_prefix(v.space_prefix)
    for add, token in (
        (writer.add_bos_token_id, v.bos), (writer.add_eos_token_id, v.eos), (writer.add_pad_token_id, v.pad),
        (writer.add_unk_token_id, v.unknown),
    ):  # fmt: skip
        if token is not None:
            add(token)
    writer.add_add_bos_token(v.add_bos)
    writer.add_add_eos_token(v.add_eos)
    if v.chat_template:
        writer.add_chat_template(v.chat_template)


# ---- tensors --------------------------------------------------------------------------------------------------------


def gguf_name(name: str) -> str:
    """The name in a GGUF file of a tensor of Hugging Face's."""
    if name in _TENSORS:
        return _TENSORS[name]
    _, _, layer, rest = name.split(".", 3)
    part, end = rest.rsplit(".", 1)
    return f"blk.{layer}.{_BLOCK_TENSORS[part]}.{end}"


def _add_tensors(gguf: Any, writer: Any, weights: Weights, arch: str, kind: GgufKind, model: Path) -> list[str]:
    otherwise: dict[str, int] = {}
    for name, tensor in weights.tensors.items():
        if not np.isfinite(tensor).all():
            raise SmallfryError(f"{model}: weight {name} holds NaN or infinite numbers; train or import it again")
        if arch == "llama":
            tensor = _interleaved(name, tensor, weights.shape)
        data, stored = _stored(gguf, np.ascontiguousarray(tensor, dtype=np.float32), kind)
        writer.add_tensor(gguf_name(name), data, raw_dtype=gguf.GGMLQuantizationType[stored.upper()])
        if tensor.ndim > 1 and stored != kind:
            otherwise[stored] = otherwise.get(stored, 0) + 1
    matrices = sum(tensor.ndim > 1 for tensor in weights.tensors.values())
    why = {"f16": f"their rows are not of whole groups of {_GROUP}", "f32": f"they hold numbers beyond {kind}"}
    return [f"{n} of {matrices} matrices are stored as {stored}: {why[stored]}" for stored, n in otherwise.items()]


def _stored(gguf: Any, tensor: Floats, kind: GgufKind) -> tuple[NDArray[Any], GgufKind]:
    """A tensor in the kind asked for, or in the smallest one that can hold it."""
    largest = float(np.abs(tensor).max(initial=0.0))
    if tensor.ndim == 1 or kind == "f32":
        return tensor, "f32"
    if kind == "q8_0" and tensor.shape[1] % _GROUP == 0 and largest / 127 <= _LARGEST_F16:
        return gguf.quants.quantize(tensor, gguf.GGMLQuantizationType.Q8_0), "q8_0"
    return (tensor.astype(np.float16), "f16") if largest <= _LARGEST_F16 else (tensor, "f32")


def _interleaved(name: str, tensor: Floats, shape: Shape) -> Floats:
    """Rows of queries and keys as llama.cpp's arch ``llama`` wants them: it turns neighbours, not halves of a head."""
    heads = {"q_proj": shape.num_heads, "k_proj": shape.num_kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    halves = tensor.reshape(heads, 2, shape.head_dim // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)
