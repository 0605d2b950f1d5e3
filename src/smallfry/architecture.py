"""Which models are computed here: plain Qwen3, Qwen2 and Llama, read from a ``config.json`` without any framework."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallfry.errors import SmallfryError
from smallfry.sizes import Shape
from smallfry.tokenizer import BOS, END, PAD

NORM_EPS = 1e-6
ROPE_THETA = 10_000.0
MAX_POSITIONS = 2048
MOST_POSITIONS = 1 << 24  # a number of tokens beyond it is no model's
_QK_NORM = {"qwen3": True, "qwen2": False, "llama": False}


@dataclass(frozen=True, slots=True)
class Variant:
    """What a model of a `Shape` may do its own way.

    Args:
        rope_theta: Base of the rotary frequencies.
        norm_eps: What RMSNorm adds to the mean square.
        qkv_bias: Queries, keys and values have biases (Qwen2).
    """

    rope_theta: float = ROPE_THETA
    norm_eps: float = NORM_EPS
    qkv_bias: bool = False


OURS = Variant()


def hf_config(
    shape: Shape, dtype: str, variant: Variant = OURS, max_positions: int = MAX_POSITIONS,
    specials: tuple[int | None, int | None, int | None] = (BOS, END, PAD),
) -> dict[str, Any]:  # fmt: skip
    """``config.json`` of the Qwen3, Qwen2 or Llama model of a shape.

    Args:
        shape: The model's.
        dtype: Of the stored weights: ``float32``, ``bfloat16`` or ``float16``.
        variant: What it does its own way.
        max_positions: Longest sequence it was made for.
        specials: Ids of begin, end and padding, None where there is none.
    """
    kind = "Qwen3" if shape.qk_norm else "Qwen2" if variant.qkv_bias else "Llama"
    config = {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": max_positions,
        "rms_norm_eps": variant.norm_eps,
        "rope_theta": variant.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": variant.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": shape.tie_embeddings,
        "use_sliding_window": False,
        "dtype": dtype,
    }
    return config | dict(zip(("bos_token_id", "eos_token_id", "pad_token_id"), specials, strict=True))


def runs_here(config: dict[str, Any]) -> bool:
    """Whether smallfry's engines compute exactly what a ``config.json`` describes."""
    rope, scaling = (found if isinstance(found, dict) else {"rope_type": "unknown"} for found in (
        config.get("rope_parameters") or {}, config.get("rope_scaling") or {},
    ))  # fmt: skip
    kinds = {str(rope.get("rope_type", "default")), str(scaling.get("rope_type", scaling.get("type", "default")))}
    return (
        config.get("model_type") in _QK_NORM
        and kinds == {"default"}
        and config.get("hidden_act", "silu") == "silu"
        and not config.get("attention_bias")
        and not config.get("mlp_bias")
        and not config.get("use_sliding_window")
        and float(rope.get("partial_rotary_factor", 1.0)) == 1.0
        and not config.get("quantization_config")
    )


def positions_of(config: dict[str, Any], where: Path) -> int:
    """The longest text a model was made for, by its ``config.json``; `MAX_POSITIONS` where that does not say.

    Raises:
        SmallfryError: It says what is no number of tokens.
    """
    found = config.get("max_position_embeddings")
    if found is None:
        return MAX_POSITIONS
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found <= MOST_POSITIONS:
        raise SmallfryError(
            f"{where}: max_position_embeddings {str(found)[:40]}: expected a number of tokens up to {MOST_POSITIONS:,}"
        )
    return found


def architecture_of(config: dict[str, Any], where: Path) -> tuple[Shape, Variant]:
    """The shape that a ``config.json`` describes, and what it does its own way.

    Raises:
        SmallfryError: When it is no plain Qwen3, Qwen2 or Llama model.
    """
    if not isinstance(config, dict):
        raise SmallfryError(f"{where}: is no object; expected the config.json of a model")
    if not runs_here(config):
        raise SmallfryError(
            f"{where}: expected a plain qwen3, qwen2 or llama model (no scaled positions, sliding windows or "
            f"quantised weights), got {config.get('model_type')!r}"
        )
    try:
        heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
        kind = str(config["model_type"])
        theta = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta", 10_000.0))
        shape = Shape(
            vocab_size=int(config["vocab_size"]),
            hidden_size=width,
            num_layers=int(config["num_hidden_layers"]),
            num_heads=heads,
            num_kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or (128 if kind == "qwen3" else width // heads)),
            intermediate_size=int(config["intermediate_size"]),
            tie_embeddings=bool(config.get("tie_word_embeddings", False)),
            qk_norm=_QK_NORM[kind],
        )
        variant = Variant(float(str(theta)), float(config.get("rms_norm_eps", 1e-6)), kind == "qwen2")
        if not 0 < variant.norm_eps < 1 or not 0 < variant.rope_theta < math.inf:
            raise ValueError(f"rms_norm_eps {variant.norm_eps} or rope_theta {variant.rope_theta}")
        return shape, variant
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise SmallfryError(f"{where}: {error!s} is missing or wrong; expected the config.json of a model") from None
