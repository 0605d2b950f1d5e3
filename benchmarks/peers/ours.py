"""This project's real model and its real optimizer, called as `smallfry.train` calls them."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import torch
from torch import Tensor

from peers.common import Built, Spec
from smallfry.data import Batch
from smallfry.machine import compute_dtype
from smallfry.model import Transformer
from smallfry.train import loss_of
from smallfry.training.optim import Optimizer


def build(spec: Spec) -> Built:
    """Muon and AdamW on fp32 masters, averaged weights, clipping: everything a training does between two batches."""
    shape = spec.shape
    model = Transformer(shape)
    model.init_weights(torch.Generator().manual_seed(0))
    model.to(torch.float32 if spec.precision == "fp32" else compute_dtype(torch.device("cpu"))).train()
    optimizer = Optimizer(model, lr=1e-3, muon_lr=5e-3, weight_decay=0.1, ema=0.998)

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        batch = Batch(ids.numpy(), targets.numpy(), np.ones(ids.shape, dtype=np.float32), np.arange(len(ids)))
        return loss_of(model, batch)[0]

    return Built(
        loss, lambda: _finite(optimizer.step(1.0)), shape.params, shape.matmul_params,
        after_part=lambda: optimizer.accumulate(), versions={"smallfry": metadata.version("smallfry")},
    )  # fmt: skip


def _finite(norm: float) -> None:
    """An optimizer that skips its step because the gradient is not finite would be timed as fast."""
    if not np.isfinite(norm):
        raise ArithmeticError(f"gradient norm {norm}")
