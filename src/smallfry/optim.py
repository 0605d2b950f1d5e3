"""Muon for the matrices, AdamW for the rest, fp32 masters behind bf16 weights, and an average of the masters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def schedule(progress: float, warmup: float = 0.05, kind: str = "linear") -> float:
    """Learning-rate factor at a share of the run done: linear warm-up, then down to 0.

    ``progress`` counts data seen, not steps planned, and is clamped to [0, 1]: whatever augmentation does to the number
    of steps, the factor stays in [0, 1].
    """
    progress = min(1.0, max(0.0, progress))
    if progress < warmup:
        return progress / warmup
    rest = (progress - warmup) / (1.0 - warmup)
    return 1.0 - rest if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * rest))


class Optimizer:
    """One step over all of a model's parameters.

    Matrices of the blocks are moved by Muon (Jordan 2024; ``torch.optim.Muon``), embeddings and gains by AdamW. The
    optimizers own fp32 masters; the model's own weights, which may be bf16, are copies made after each step. An
    exponential moving average of the masters is what gets evaluated and shipped.

    Args:
        model: The model to train.
        lr: AdamW's peak learning rate.
        muon_lr: Muon's peak learning rate; 0 moves the matrices by AdamW too.
        weight_decay: Decoupled decay, on matrices and embeddings.
        ema: Decay of the average per step; 0 keeps none.
        clip: Largest norm of the whole gradient.
    """

    def __init__(
        self, model: nn.Module, lr: float, muon_lr: float, weight_decay: float, ema: float, clip: float = 1.0
    ) -> None:
        self.lr, self.muon_lr, self.ema, self.clip = lr, muon_lr, ema, clip
        named = list(model.named_parameters())
        self.params = [p for _, p in named]
        self.masters = [p.detach().to(torch.float32, copy=True) for p in self.params]
        self.average = [m.clone() for m in self.masters] if ema else []
        self.steps = 0
        matrices = [m for (n, p), m in zip(named, self.masters, strict=True) if p.dim() == 2 and "blocks" in n]
        tables = [m for (n, p), m in zip(named, self.masters, strict=True) if p.dim() == 2 and "blocks" not in n]
        gains = [m for (_, p), m in zip(named, self.masters, strict=True) if p.dim() < 2]
        self.muon: torch.optim.Optimizer | None = None
        if muon_lr:
            self.muon = torch.optim.Muon(matrices, lr=muon_lr, weight_decay=weight_decay, momentum=0.95)
        else:
            tables = matrices + tables
        fused = tables[0].device.type in ("cpu", "cuda")
        self.adamw = torch.optim.AdamW(
            [{"params": tables, "weight_decay": weight_decay}, {"params": gains, "weight_decay": 0.0}],
            lr=lr, betas=(0.9, 0.98), eps=1e-8, fused=fused,
        )  # fmt: skip

    @torch.no_grad()
    def step(self, factor: float) -> float:
        """Apply the gradients that stand on the model's parameters, at ``factor`` of the peak learning rates.

        Returns:
            The gradient's norm before clipping.
        """
        grads = [torch.zeros_like(m) for m in self.masters]
        for grad, p in zip(grads, self.params, strict=True):
            if p.grad is not None:
                grad.copy_(p.grad)
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))
        if math.isfinite(norm):
            if norm > self.clip:
                torch._foreach_mul_(grads, self.clip / norm)
            for master, grad in zip(self.masters, grads, strict=True):
                master.grad = grad
            self._set_lr(self.adamw, self.lr * factor)
            self.adamw.step()
            if self.muon is not None:
                self._set_lr(self.muon, self.muon_lr * factor)
                self.muon.step()
            self._publish(self.masters)
            self.steps += 1
            if self.average:
                decay = min(self.ema, (1.0 + self.steps) / (10.0 + self.steps))
                torch._foreach_lerp_(self.average, self.masters, 1.0 - decay)
        for p in self.params:
            p.grad = None
        return norm

    @staticmethod
    def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def _publish(self, source: list[Tensor]) -> None:
        torch._foreach_copy_(list[Tensor](self.params), source)

    def use_average(self) -> None:
        """Put the averaged weights into the model (for measuring); `use_masters` takes them out again."""
        self._publish(self.average or self.masters)

    def use_masters(self) -> None:
        """Put the current weights back into the model."""
        self._publish(self.masters)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything `load_state` needs to go on bit for bit: tensors by name, and plain data."""
        tensors: dict[str, Tensor] = {}
        for i, master in enumerate(self.masters):
            tensors[f"master.{i}"] = master
        for i, mean in enumerate(self.average):
            tensors[f"average.{i}"] = mean
        for name, optimizer in (("adamw", self.adamw), ("muon", self.muon)):
            if optimizer is None:
                continue
            for index, entry in optimizer.state_dict()["state"].items():
                for key, value in entry.items():
                    tensors[f"{name}.{index}.{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
        return tensors, {"steps": self.steps}

    def load_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """The inverse of `state`."""
        with torch.no_grad():
            for i, master in enumerate(self.masters):
                master.copy_(tensors[f"master.{i}"])
            for i, mean in enumerate(self.average):
                mean.copy_(tensors[f"average.{i}"])
        for name, optimizer in (("adamw", self.adamw), ("muon", self.muon)):
            if optimizer is None:
                continue
            data = optimizer.state_dict()
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(name + "."):
                    _, index, field = key.split(".", 2)
                    entries.setdefault(int(index), {})[field] = value.clone()
            data["state"] = entries
            optimizer.load_state_dict(data)
        self.steps = int(plain["steps"])
        self.use_masters()
