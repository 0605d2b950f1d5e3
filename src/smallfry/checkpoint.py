"""Model directories that transformers reads, each file written atomically.

A model directory holds ``config.json`` (of ``Qwen3ForCausalLM``), ``model.safetensors``, ``tokenizer.json``,
``tokenizer_config.json`` with a chat template, ``generation_config.json``, and ``smallfry.json`` with the form, the
recipe, the job and the scores.
"""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from smallfry.architecture import MAX_POSITIONS, architecture_of, hf_config
from smallfry.engine.weights import FLAT_FILE, read_flat, weight_files
from smallfry.errors import SmallfryError
from smallfry.files import read_json, whole_file, write_atomic
from smallfry.model import Transformer
from smallfry.tensorfiles import write_tensors
from smallfry.tokenizer import ASSISTANT, BOS, CHAT_TEMPLATE, END, PAD, SPECIALS, Tokenizer

FORMAT = "smallfry-model/1"


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Write a safetensors file atomically and return its SHA-256.

    Raises:
        SmallfryError: When it cannot be written; an older file of that name is still there.
    """
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):  # of a killed process: weights are large
        part.unlink(missing_ok=True)
    with whole_file(path) as part:
        digest, _ = write_tensors(part, tensors, metadata)
    return digest


# ---- model directories ----------------------------------------------------------------------------------------------


def to_hf_state(model: Transformer) -> dict[str, Tensor]:
    """The weights under the names of Qwen3, Qwen2 and Llama, fused matrices split."""
    s = model.shape
    state: dict[str, Tensor] = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.norm}
    if not s.tie_embeddings:
        state["lm_head.weight"] = model.head.weight
    q, kv = s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim
    for i, block in enumerate(model.blocks):
        p = dict(block.named_parameters())
        parts: dict[str, Tensor] = {}
        for end in ("weight", "bias") if "qkv.bias" in p else ("weight",):
            names = tuple(f"self_attn.{n}_proj.{end}" for n in "qkv")
            parts |= dict(zip(names, torch.split(p[f"qkv.{end}"], [q, kv, kv]), strict=True))
        gate_up = ("mlp.gate_proj.weight", "mlp.up_proj.weight")
        parts |= dict(zip(gate_up, p["gate_up.weight"].chunk(2), strict=True))
        parts |= {theirs: p[ours] for ours, theirs in _NAMES.items() if ours in p}
        state |= {f"model.layers.{i}.{name}": tensor for name, tensor in parts.items()}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


_NAMES = {
    "o.weight": "self_attn.o_proj.weight", "down.weight": "mlp.down_proj.weight",
    "q_norm": "self_attn.q_norm.weight", "k_norm": "self_attn.k_norm.weight",
    "input_norm": "input_layernorm.weight", "post_norm": "post_attention_layernorm.weight",
}  # fmt: skip


def from_hf_state(model: Transformer, state: dict[str, Tensor], where: str) -> None:
    """Load weights under Qwen3's names, fusing q/k/v and gate/up.

    Raises:
        SmallfryError: When a tensor is missing or has another shape.
    """
    expected = to_hf_state(model)
    for name, tensor in expected.items():
        if name not in state:
            raise SmallfryError(f"{where}: weight {name} is missing; the file does not fit its config.json")
        if state[name].shape != tensor.shape:
            raise SmallfryError(
                f"{where}: weight {name} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)} by config.json"
            )
    with torch.no_grad():
        model.embed.weight.copy_(state["model.embed_tokens.weight"])
        model.norm.copy_(state["model.norm.weight"])
        if not model.shape.tie_embeddings:
            model.head.weight.copy_(state["lm_head.weight"])
        for i, block in enumerate(model.blocks):
            for name, parameter in block.named_parameters():
                part, _, end = name.partition(".")
                if part == "qkv":
                    theirs = [f"self_attn.{n}_proj.{end}" for n in "qkv"]
                elif part == "gate_up":
                    theirs = ["mlp.gate_proj.weight", "mlp.up_proj.weight"]
                else:
                    theirs = [_NAMES[name]]
                parameter.copy_(torch.cat([state[f"model.layers.{i}.{t}"] for t in theirs]))


def save_model(
    path: Path, model: Transformer, tokenizer: Tokenizer, card: dict[str, Any], max_positions: int = MAX_POSITIONS
) -> None:
    """Write a model directory.

    Args:
        path: The directory; made if need be.
        model: Weights, in the precision they are shipped in.
        tokenizer: Becomes ``tokenizer.json``.
        card: The rest of ``smallfry.json``: form, recipe, job, scores.
        max_positions: Longest sequence it was made for.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SmallfryError(f"{path}: cannot make the directory ({error.strerror}); choose another --out") from None
    dtype = model.embed.weight.dtype
    digest = save_tensors(path / "model.safetensors", to_hf_state(model), {"format": "pt"})
    write_atomic(path / "tokenizer.json", tokenizer.hf.to_str(pretty=True) + "\n")
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[BOS],
        "eos_token": SPECIALS[END],
        "pad_token": SPECIALS[PAD],
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": MAX_POSITIONS,
        "chat_template": CHAT_TEMPLATE,
    }
    generation = {"bos_token_id": BOS, "eos_token_id": END, "pad_token_id": PAD, "do_sample": False}
    smallfry = {"format": FORMAT, "weights_sha256": digest, "prompt_end": ASSISTANT, **card}
    write_atomic(path / "tokenizer_config.json", _dump(tokenizer_config))
    write_atomic(path / "generation_config.json", _dump(generation))
    config = hf_config(model.shape, str(dtype).removeprefix("torch."), model.variant, max_positions)
    write_atomic(path / "config.json", _dump(config))
    write_atomic(path / "smallfry.json", _dump(smallfry))


def load_model(path: Path, dtype: torch.dtype | None = None) -> tuple[Transformer, dict[str, Any]]:
    """Read a model directory's weights and its ``smallfry.json``.

    Args:
        path: The directory.
        dtype: Precision to compute in; the stored one by default.

    Raises:
        SmallfryError: When a file is missing, broken, or does not fit the others.
    """
    if not path.is_dir():
        raise SmallfryError(f"{path}: no such directory; expected a model directory (config.json, model.safetensors)")
    card = read_json(path / "smallfry.json")
    return load_weights(path, dtype).eval(), card


def load_weights(path: Path, dtype: torch.dtype | None = None) -> Transformer:
    """The network in a Hugging Face directory of a Qwen3, Qwen2 or Llama model, whoever trained it.

    Args:
        path: The directory; one weights file, or several with their index.
        dtype: Precision to compute in; the stored one by default.

    Raises:
        SmallfryError: When a file is missing or broken, or the architecture is another (`runs_here` tells).
    """
    if (path / FLAT_FILE).exists():
        flat = read_flat(path / FLAT_FILE)
        model = Transformer(flat.shape, variant=flat.variant)
        from_hf_state(model, {n: torch.from_numpy(t.copy()) for n, t in flat.tensors.items()}, str(path / FLAT_FILE))
        return model.to(dtype or (torch.bfloat16 if flat.kind == "bf16" else torch.float32))
    config = read_json(path / "config.json")
    shape, variant = architecture_of(config, path / "config.json")
    names = weight_files(path)
    state: dict[str, Tensor] = {}
    for name in names:
        try:
            state |= load_file(path / name)
        except (OSError, SafetensorError) as error:
            raise SmallfryError(f"{path / name}: cannot read the weights ({error})") from None
    stored = next((tensor.dtype for tensor in state.values()), torch.float32)
    model = Transformer(shape, variant=variant).to(dtype or stored)
    from_hf_state(model, state, str(path / names[0]))
    return model


def _dump(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
