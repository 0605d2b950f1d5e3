"""Model directories that transformers reads, and run states that lose nothing: both written atomically.

A model directory holds ``config.json`` (of ``Qwen3ForCausalLM``), ``model.safetensors``, ``tokenizer.json``,
``tokenizer_config.json`` with a chat template, ``generation_config.json``, and ``smallfry.json`` with the form, the
recipe, the job and the scores. A run state is ``state.safetensors`` beside ``state.json``, which carries the tensor
file's SHA-256; the pair is replaced as one by renaming the JSON file last.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from smallfry.errors import SmallfryError
from smallfry.files import read_json, write_atomic
from smallfry.model import NORM_EPS, ROPE_THETA, Transformer
from smallfry.sizes import Shape
from smallfry.tokenizer import ASSISTANT, BOS, CHAT_TEMPLATE, END, PAD, SPECIALS, Tokenizer

MAX_POSITIONS = 2048
FORMAT = "smallfry-model/1"


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Write a safetensors file atomically and return its SHA-256.

    Raises:
        SmallfryError: When it cannot be written; an older file of that name is still there.
    """
    part = path.with_name(path.name + ".part")
    try:
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata)
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise SmallfryError(f"{path}: cannot write ({error}); free some space or choose another --out") from None
    return digest


# ---- model directories ----------------------------------------------------------------------------------------------


def hf_config(shape: Shape, dtype: torch.dtype) -> dict[str, Any]:
    """``config.json`` of the equivalent ``Qwen3ForCausalLM``."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "bos_token_id": BOS,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "dtype": str(dtype).removeprefix("torch."),
    }


def to_hf_state(model: Transformer) -> dict[str, Tensor]:
    """The weights under Qwen3's names, fused matrices split."""
    s = model.shape
    state: dict[str, Tensor] = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.norm}
    q, kv = s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim
    for i, block in enumerate(model.blocks):
        p = dict(block.named_parameters())
        names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        parts = dict(zip(names, torch.split(p["qkv.weight"], [q, kv, kv]), strict=True))
        parts |= dict(zip(("mlp.gate_proj", "mlp.up_proj"), p["gate_up.weight"].chunk(2), strict=True))
        parts |= {"self_attn.o_proj": p["o.weight"], "mlp.down_proj": p["down.weight"]}
        parts |= {"self_attn.q_norm": p["q_norm"], "self_attn.k_norm": p["k_norm"]}
        parts |= {"input_layernorm": p["input_norm"], "post_attention_layernorm": p["post_norm"]}
        state |= {f"model.layers.{i}.{name}.weight": tensor for name, tensor in parts.items()}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def from_hf_state(model: Transformer, state: dict[str, Tensor], where: str) -> None:
    """Load Qwen3-named weights, fusing q/k/v and gate/up.

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
        for i, block in enumerate(model.blocks):
            w = {k.removeprefix(f"model.layers.{i}.").removesuffix(".weight"): v for k, v in state.items()}
            p = dict(block.named_parameters())
            p["qkv.weight"].copy_(torch.cat([w[f"self_attn.{n}_proj"] for n in "qkv"]))
            p["gate_up.weight"].copy_(torch.cat([w["mlp.gate_proj"], w["mlp.up_proj"]]))
            p["o.weight"].copy_(w["self_attn.o_proj"])
            p["down.weight"].copy_(w["mlp.down_proj"])
            p["q_norm"].copy_(w["self_attn.q_norm"])
            p["k_norm"].copy_(w["self_attn.k_norm"])
            p["input_norm"].copy_(w["input_layernorm"])
            p["post_norm"].copy_(w["post_attention_layernorm"])


def save_model(path: Path, model: Transformer, tokenizer: Tokenizer, card: dict[str, Any]) -> None:
    """Write a model directory.

    Args:
        path: The directory; made if need be.
        model: Weights, in the precision they are shipped in.
        tokenizer: Becomes ``tokenizer.json``.
        card: The rest of ``smallfry.json``: form, recipe, job, scores.
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
    write_atomic(path / "config.json", _dump(hf_config(model.shape, dtype)))
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
    config = read_json(path / "config.json")
    card = read_json(path / "smallfry.json")
    shape = shape_of(config, path / "config.json")
    try:
        state = load_file(path / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise SmallfryError(f"{path / 'model.safetensors'}: cannot read the weights ({error})") from None
    stored = next((tensor.dtype for tensor in state.values()), torch.float32)
    model = Transformer(shape).to(dtype or stored)
    from_hf_state(model, state, str(path / "model.safetensors"))
    return model.eval(), card


def shape_of(config: dict[str, Any], where: Path) -> Shape:
    """The shape that a ``config.json`` describes.

    Raises:
        SmallfryError: When it is not a Qwen3 model of the kind written here.
    """
    try:
        if config["model_type"] != "qwen3" or not config["tie_word_embeddings"]:
            raise SmallfryError(f"{where}: expected a tied qwen3 model, got {config['model_type']!r}")
        return Shape(
            vocab_size=int(config["vocab_size"]),
            hidden_size=int(config["hidden_size"]),
            num_layers=int(config["num_hidden_layers"]),
            num_heads=int(config["num_attention_heads"]),
            num_kv_heads=int(config["num_key_value_heads"]),
            head_dim=int(config["head_dim"]),
            intermediate_size=int(config["intermediate_size"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SmallfryError(f"{where}: {error!s} is missing or wrong; expected a Qwen3 config.json") from None


def _dump(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


# ---- run states -----------------------------------------------------------------------------------------------------


def save_state(path: Path, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Save a run so that a crash at any moment leaves the last complete save readable.

    Args:
        path: The run's directory; made if need be.
        tensors: Optimizer and weights.
        plain: Position, curve and settings; must be JSON.
    """
    path.mkdir(parents=True, exist_ok=True)
    name = f"state-{plain['step']}.safetensors"
    digest = save_tensors(path / name, tensors)
    write_atomic(path / "state.json", json.dumps({**plain, "file": name, "sha256": digest}))
    for old in path.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The last complete save in a run directory, or None when there is none.

    Raises:
        SmallfryError: When the save is damaged.
    """
    if not (path / "state.json").exists():
        return None
    plain = read_json(path / "state.json")
    file = path / Path(str(plain["file"])).name
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != plain["sha256"]:
        raise SmallfryError(
            f"{file}: damaged or missing save (checksum differs); remove {path} to start this run again"
        )
    return load_file(file), plain
