"""litgpt's GPT as a Llama of our shape, with PyTorch's fused AdamW.

Its `pretrain` compiles the model and, on a CPU, trains in fp32 unless asked for ``bf16-mixed``, which is autocast. It
needs Lightning to be imported. `pip install litgpt` wants older packages than this project, so it may live in a folder
of its own (``pip install --no-deps --target DIR litgpt lightning lightning-utilities torchmetrics jsonargparse
pytorch-lightning typeshed-client docstring-parser psutil``).
"""

from __future__ import annotations

import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from peers.common import Built, Spec, autocast, built_with_adamw, commit_of, compiled


def build(spec: Spec) -> Built:
    """RMSNorm, SwiGLU, rotary positions over the whole head, no biases; embeddings tied by its own option's means."""
    if spec.folder is not None:
        sys.path.append(spec.folder)  # behind this environment: torch is the one of every other row
    if find_spec("litgpt") is None:
        raise ModuleNotFoundError("neither installed nor given as a folder (--litgpt DIR)")
    from litgpt.config import Config
    from litgpt.model import GPT

    shape = spec.shape
    model = GPT(Config(
        name="llama", block_size=spec.seq_len, vocab_size=spec.vocab, padded_vocab_size=spec.vocab,
        n_layer=spec.layers, n_head=shape.num_heads, n_embd=spec.width, n_query_groups=shape.num_kv_heads,
        rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP", intermediate_size=shape.intermediate_size,
    ))  # fmt: skip
    model.apply(model._init_weights)
    model.transformer.wte.weight = model.lm_head.weight
    run = compiled(spec, model)

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        with autocast(spec):
            logits: Tensor = run(ids)  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    made = built_with_adamw(spec, model, loss)
    made.versions = {"litgpt": _version(spec.folder)}
    return made


def _version(folder: str | None) -> str:
    if folder is not None and (Path(folder) / ".git").exists():
        return commit_of(folder)
    return metadata.version("litgpt")
