"""The loss of a batch: fused where it can be, and only where a target carries weight."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn import functional as F

from smallfry import fused
from smallfry.data import Batch
from smallfry.model import Transformer
from smallfry.training.microbatch import MicroBatches

_HEAD_ROWS = 64


def loss_of(model: Transformer, batch: Batch, label_smoothing: float = 0.0) -> tuple[torch.Tensor, float]:
    """Weighted mean cross-entropy of a batch, and the sum of the weights.

    The head is only applied where a target carries weight: of a classified sentence that is one position in twenty.
    """
    device = model.embed.weight.device
    hidden = model(torch.from_numpy(np.ascontiguousarray(batch.ids)).to(device)).flatten(0, 1)  # (B T, C)
    places = np.flatnonzero(batch.weights)
    weights = batch.weights.ravel()[places]
    total = float(weights.sum())
    targets = batch.targets.ravel()
    if len(places) < len(targets):
        # Rounded up with weightless repeats: a CPU's matrix library compiles a kernel for each new number of rows.
        padding = -len(places) % _HEAD_ROWS
        places = np.concatenate([places, np.zeros(padding, dtype=places.dtype)])
        weights = np.concatenate([weights, np.zeros(padding, dtype=weights.dtype)])
        hidden, targets = hidden[torch.from_numpy(places).to(device)], targets[places]
    scales = torch.from_numpy(weights / np.float32(max(total, 1e-9))).to(device)
    chosen = torch.from_numpy(np.ascontiguousarray(targets)).to(device)
    if fused.usable(hidden, model.shape.head_dim):
        return fused.head_loss(hidden, model.head_weight, chosen, scales, label_smoothing), total
    losses = F.cross_entropy(
        model.logits(hidden).float(), chosen, reduction="none", label_smoothing=label_smoothing
    )  # (N,)
    return (losses * scales).sum(), total


@torch.no_grad()
def mean_loss(model: Transformer, batches: Iterable[Batch], micro: MicroBatches | None = None) -> float:
    """Weighted mean cross-entropy in nats over batches, without dropout; in parts where memory runs out."""
    was_training = model.training
    model.eval()
    micro = micro or MicroBatches()
    total = weight = 0.0

    def compute(parts: list[Batch]) -> tuple[float, float]:
        found = [loss_of(model, part) for part in parts]
        return sum(float(loss) * amount for loss, amount in found), sum(amount for _, amount in found)

    for batch in batches:
        loss, amount = micro.run(compute, batch)
        total += loss
        weight += amount
    model.train(was_training)
    return total / max(weight, 1e-9)
