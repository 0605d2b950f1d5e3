"""The loss of a batch: fused where it can be, and only where a target carries weight."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn import functional as F

from smallfry import fused
from smallfry.data import Batch, Soft
from smallfry.model import Transformer
from smallfry.training.microbatch import MicroBatches

_HEAD_ROWS = 64


def loss_of(model: Transformer, batch: Batch, label_smoothing: float = 0.0) -> tuple[torch.Tensor, float]:
    """Weighted mean cross-entropy of a batch, and what the weighted sum was divided by.

    The head is only applied where a target carries weight: of a classified sentence that is one position in twenty.
    Where the batch holds what a teacher says, that is mixed in (`distillation`).
    """
    device = model.embed.weight.device
    hidden = model(torch.from_numpy(np.ascontiguousarray(batch.ids)).to(device)).flatten(0, 1)  # (B T, C)
    places = np.flatnonzero(batch.weights)
    weights = batch.weights.ravel()[places]
    total = batch.divisor
    targets = batch.targets.ravel()
    if len(places) < len(targets):
        # Rounded up with weightless repeats: a CPU's matrix library compiles a kernel for each new number of rows.
        padding = -len(places) % _HEAD_ROWS
        places = np.concatenate([places, np.zeros(padding, dtype=places.dtype)])
        weights = np.concatenate([weights, np.zeros(padding, dtype=weights.dtype)])
        hidden, targets = hidden[torch.from_numpy(places).to(device)], targets[places]
    scales = torch.from_numpy(weights / np.float32(max(total, 1e-9))).to(device)
    chosen = torch.from_numpy(np.ascontiguousarray(targets)).to(device)
    taught: torch.Tensor | float = 0.0
    if batch.soft is not None:
        taught, scales = distillation(model, hidden, batch.soft, places, scales)
    if fused.usable(hidden, model.shape.head_dim):
        return fused.head_loss(hidden, model.head_weight, chosen, scales, label_smoothing) + taught, total
    losses = F.cross_entropy(
        model.logits(hidden).float(), chosen, reduction="none", label_smoothing=label_smoothing
    )  # (N,)
    return (losses * scales).sum() + taught, total


def distillation(
    model: Transformer, hidden: torch.Tensor, soft: Soft, places: np.ndarray, scales: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a student loses beside a teacher (Hinton et al. 2015), and how much the true targets still count.

    At a place that is taught the loss is ``(1 - share) CE(target) + share T^2 CE(teacher at T, student at T)``: with T
    squared both parts' gradients keep their size. Of the teacher's distribution only the tokens in ``soft`` count; a
    place where it says nothing is not taught.

    Args:
        model: The student.
        hidden: Its last states at N places, ``(N, C)``.
        soft: The teacher's distributions over the whole batch.
        places: Which places of the batch these are, ``(N,)``, counted through its rows.
        scales: What each place's loss is multiplied by, ``(N,)`` fp32.

    Returns:
        The teacher's part, summed, and the scales that are left for the true targets.
    """
    kept, device = soft.ids.shape[-1], hidden.device
    probs = soft.probs.reshape(-1, kept)[places]
    taught = np.flatnonzero(probs.any(axis=1))
    # Rounded up with repeats without weight, as above.
    padded = np.concatenate([taught, np.zeros(-len(taught) % _HEAD_ROWS, dtype=taught.dtype)])
    ids = torch.from_numpy(soft.ids.reshape(-1, kept)[places[padded]].astype(np.int64)).to(device)  # (n, K)
    at = torch.from_numpy(padded).to(device)
    factors = soft.share * scales[at]
    factors[len(taught) :] = 0.0
    log_probs = torch.log_softmax(model.logits(hidden[at]).float() / soft.temperature, dim=-1).gather(1, ids)
    said = torch.from_numpy(probs[padded]).to(device)
    loss = -(soft.temperature**2) * ((said * log_probs).sum(dim=-1) * factors).sum()
    left = scales.clone()
    left[at[: len(taught)]] *= 1.0 - soft.share
    return loss, left


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
