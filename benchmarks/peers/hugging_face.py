"""transformers' Llama and Qwen3 with PyTorch's fused AdamW: what its Trainer runs with ``bf16=True``."""

from __future__ import annotations

import torch
from torch import Tensor

from peers.common import Built, Spec, autocast, built_with_adamw, compiled


def build(spec: Spec) -> Built:
    """The causal language model of our shape, randomly initialised, head tied."""
    import transformers

    shape = spec.shape
    kind = "Qwen3" if "Qwen3" in spec.name else "Llama"
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=spec.vocab, hidden_size=spec.width, intermediate_size=shape.intermediate_size,
        num_hidden_layers=spec.layers, num_attention_heads=shape.num_heads, num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim, max_position_embeddings=spec.seq_len, tie_word_embeddings=True, use_cache=False,
        bos_token_id=0, eos_token_id=0, pad_token_id=None, attn_implementation=spec.attention,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForCausalLM")(config).to(torch.float32).train()
    run = compiled(spec, model)

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        with autocast(spec):  # it shifts the labels itself
            value: Tensor = run(input_ids=ids, labels=ids).loss
        return value

    return built_with_adamw(spec, model, loss, "transformers")
