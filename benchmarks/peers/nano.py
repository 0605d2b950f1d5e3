"""nanochat's GPT class and its MuonAdamW from a checkout, as its `scripts/base_train.py` runs them on a CPU.

`runs/runcpu.sh` asks for heads of 64 and full-context attention, and so does this. fp32 is what it detects on a CPU;
``NANOCHAT_DTYPE=bfloat16`` is its own switch to bf16 products on fp32 weights. base_train.py always compiles.
"""

from __future__ import annotations

import contextlib
import os
import sys

import torch
from torch import Tensor

from peers.common import Built, Spec, commit_of, compiled, count_params


def build(spec: Spec) -> Built:
    """Its model, initialised by itself, with its optimizer at its own learning rates."""
    if spec.folder is None:
        raise ModuleNotFoundError("no checkout given (--nanochat DIR)")
    os.environ["NANOCHAT_DTYPE"] = {"fp32": "float32", "bf16": "bfloat16"}[spec.precision]
    sys.path.insert(0, spec.folder)
    from nanochat.gpt import GPT, GPTConfig

    shape = spec.shape
    config = GPTConfig(
        sequence_len=spec.seq_len, vocab_size=spec.vocab, n_layer=spec.layers, n_head=shape.num_heads,
        n_kv_head=shape.num_kv_heads, n_embd=spec.width, window_pattern="L",
    )  # fmt: skip
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device="cpu")
    model.init_weights()
    with contextlib.redirect_stdout(sys.stderr):
        optimizer = model.setup_optimizer()
    run = compiled(spec, model)

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = run(ids, targets)
        return value

    def update() -> None:
        optimizer.step()
        model.zero_grad(set_to_none=True)

    return Built(loss, update, *count_params(model), versions={"nanochat": commit_of(spec.folder)})
