"""Muon for the matrices, AdamW for the rest, fp32 masters behind bf16 weights, and an average of the masters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smallfry import fused
from smallfry.engine import training
from smallfry.engine.training import StepArgs

BETAS, EPS = (0.9, 0.98), 1e-8
MOMENTUM = 0.95
STEP_NAME = "smallfry::step"  # what a profiler calls an optimizer's step
# Jordan 2024: the quintic whose iterates bring every singular value near 1 in five steps.
NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS = (3.4445, -4.7750, 2.0315), 5


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


def orthogonalise(x: Tensor) -> Tensor:
    """Matrices ``(K, M, N)`` with singular values near 1 and the singular vectors of ``x``, all at once.

    Newton-Schulz iteration (Jordan 2024) in the precision of ``x``, on the smaller side of the matrices, whose
    Frobenius norms are at most 1.
    """
    a, b, c = NEWTON_SCHULZ
    tall = x.shape[1] > x.shape[2]
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x.mT @ x if tall else x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, polynomial, beta=a) if tall else torch.baddbmm(x, polynomial, x, beta=a)
    return x


def muon_factor(rows: int, columns: int) -> float:
    """What Muon's rate is multiplied by for a matrix: steps change outputs alike whatever its shape (Jordan 2024)."""
    return math.sqrt(max(1.0, rows / columns))


@dataclass(slots=True)
class _Slot:
    """One parameter and what the optimizer keeps of it; all but the parameter are views into flat buffers."""

    name: str
    param: nn.Parameter
    master: Tensor
    average: Tensor | None
    first: Tensor
    second: Tensor | None  # None where Muon moves it
    decay: float


class Optimizer:
    """One step over all of a model's parameters.

    Matrices of the blocks are moved by Muon (Jordan 2024), embeddings and gains by AdamW (Loshchilov and Hutter 2019).
    The optimizer owns fp32 masters; the model's own weights, which may be bf16, are copies made after each step. An
    exponential moving average of the masters is what gets evaluated and shipped. On a CPU each parameter is one pass of
    libfry; the operations written out here do the same elsewhere.

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
        self.steps = 0
        named = list(model.named_parameters())
        muon = {n for n, p in named if muon_lr and p.dim() == 2 and "blocks" in n}
        # Muon's matrices of one shape lie together.
        named.sort(key=lambda item: (item[0] not in muon, tuple(item[1].shape) if item[0] in muon else ()))
        size = sum(p.numel() for _, p in named)
        rest = sum(p.numel() for n, p in named if n not in muon)
        device = named[0][1].device
        flat = {name: torch.zeros(size, device=device) for name in ("master", "first", *(("average",) if ema else ()))}
        flat["second"] = torch.zeros(rest, device=device)
        self._slots: list[_Slot] = []
        self._sums: Tensor | None = None  # gradients added up, in the order of the slots
        self._counted = False
        at, second_at = 0, 0
        for name, p in named:
            views = {k: v[at : at + p.numel()].view(p.shape) for k, v in flat.items() if k != "second"}
            second = None
            if name not in muon:
                second = flat["second"][second_at : second_at + p.numel()].view(p.shape)
                second_at += p.numel()
            at += p.numel()
            decay = weight_decay if p.dim() >= 2 else 0.0
            self._slots.append(_Slot(name, p, views["master"], views.get("average"), views["first"], second, decay))
        self._groups = _by_shape([s for s in self._slots if s.second is None])
        self._rest = [s for s in self._slots if s.second is not None]
        self._fused = fused.usable(named[0][1], 2)
        with torch.no_grad():
            for slot in self._slots:
                slot.master.copy_(slot.param)
                if slot.average is not None:
                    slot.average.copy_(slot.master)

    # ---- gradients ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def accumulate(self) -> None:
        """Add the gradients that stand on the model's parameters to fp32 sums and clear them: for micro-batches."""
        if self._sums is None:
            self._sums = torch.zeros(sum(s.param.numel() for s in self._slots), device=self._slots[0].master.device)
        self._counted = True
        for slot, total in zip(self._slots, self._views(self._sums), strict=True):
            grad = slot.param.grad
            if grad is None:
                continue
            if self._fused:
                grad = grad.contiguous()
                training.add(fused.kind_of(grad), grad.numel(), grad.data_ptr(), total.data_ptr())
            else:
                total.add_(grad)
            slot.param.grad = None

    def discard(self) -> None:
        """Forget sums and gradients."""
        for slot in self._slots:
            slot.param.grad = None
        if self._counted and self._sums is not None:
            self._sums.zero_()
        self._counted = False

    @property
    def sums(self) -> Tensor:
        """The gradients of this step as one flat fp32 tensor, for adding up over processes; changed in place."""
        self.accumulate()
        assert self._sums is not None
        return self._sums

    def _views(self, flat: Tensor) -> list[Tensor]:
        views, at = [], 0
        for slot in self._slots:
            views.append(flat[at : at + slot.param.numel()].view(slot.param.shape))
            at += slot.param.numel()
        return views

    def _gradients(self) -> list[Tensor]:
        if self._counted:
            return self._views(self.sums)
        return [
            s.param.grad.contiguous() if s.param.grad is not None else torch.zeros_like(s.param) for s in self._slots
        ]

    # ---- the step ----------------------------------------------------------------------------------------------------

    def step(self, factor: float) -> float:
        """Apply the gradients, at ``factor`` of the peak learning rates, and clear them.

        Returns:
            The gradient's norm before clipping; where that is no number, nothing is applied.
        """
        with torch.profiler.record_function(STEP_NAME), torch.no_grad():
            return self._step(factor)

    def _step(self, factor: float) -> float:
        grads = self._gradients()
        norm = self._norm(grads)
        if math.isfinite(norm):
            self.steps += 1
            scale = min(1.0, self.clip / norm) if norm > 0 else 1.0
            by_name = {slot.name: grad for slot, grad in zip(self._slots, grads, strict=True)}
            for slot in self._rest:
                self._adamw(slot, by_name[slot.name], scale, self.lr * factor)
            for group in self._groups:
                self._muon(group, [by_name[s.name] for s in group], scale, self.muon_lr * factor)
        self.discard()
        return norm

    def _norm(self, grads: list[Tensor]) -> float:
        """The norm of the whole gradient."""
        if self._fused:
            return math.sqrt(training.sum_squares([(fused.kind_of(g), g.numel(), g.data_ptr()) for g in grads]))
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)).float()))

    @property
    def _towards(self) -> float:
        return 1.0 - min(self.ema, (1.0 + self.steps) / (10.0 + self.steps))

    def _args(self, slot: _Slot, grad: Tensor, weight: Tensor, lr: float) -> StepArgs:
        average = None if slot.average is None else slot.average.data_ptr()
        args = StepArgs(
            fused.kind_of(weight), fused.kind_of(grad), grad.numel(), grad.data_ptr(), weight.data_ptr(),
            slot.master.data_ptr(), slot.first.data_ptr(), None, average,
        )  # fmt: skip
        args.lr, args.weight_decay, args.towards, args.scale = lr, lr * slot.decay, self._towards, 1.0
        return args

    def _adamw(self, slot: _Slot, grad: Tensor, scale: float, lr: float) -> None:
        correct1, correct2 = 1.0 - BETAS[0] ** self.steps, 1.0 - BETAS[1] ** self.steps
        assert slot.second is not None
        if self._fused:
            args = self._args(slot, grad, slot.param, lr)
            args.second = slot.second.data_ptr()
            args.beta1, args.beta2, args.eps, args.scale = *BETAS, EPS, scale
            args.correct1, args.correct2 = correct1, correct2
            training.call("fry_adamw", args)
            return
        g = grad.to(torch.float32) * scale
        slot.first.lerp_(g, 1.0 - BETAS[0])
        slot.second.mul_(BETAS[1]).addcmul_(g, g, value=1.0 - BETAS[1])
        move = slot.first / slot.second.sqrt().div_(math.sqrt(correct2)).add_(EPS)
        self._move(slot, move, lr / correct1, lr)

    def _muon(self, group: list[_Slot], grads: list[Tensor], scale: float, lr: float) -> None:
        rows, columns = group[0].param.shape
        dtype = group[0].param.dtype
        directions = torch.empty(len(group), rows, columns, dtype=dtype, device=group[0].param.device)
        norms: list[float] = []
        for slot, grad, direction in zip(group, grads, directions, strict=True):
            norm = self._direction(slot, grad, direction, scale)
            norms += [] if norm is None else [norm]
        # The norm of what was rounded may be a little above 1, which the iteration bears.
        sizes = torch.tensor(norms) if norms else torch.linalg.vector_norm(directions, dim=(1, 2), dtype=torch.float32)
        directions.div_(sizes.clamp_min(1e-7).to(directions.device, dtype)[:, None, None])
        directions = orthogonalise(directions)
        rate = lr * muon_factor(rows, columns)
        for slot, direction in zip(group, directions, strict=True):
            self._apply(slot, direction, rate, lr)

    def _direction(self, slot: _Slot, grad: Tensor, out: Tensor, scale: float) -> float | None:
        """Momentum, as Nesterov looks at it, into ``out``; its norm where the kernel found it in passing."""
        if self._fused and grad.numel():
            args = self._args(slot, grad, out, 0.0)
            args.beta1, args.scale = MOMENTUM, scale
            return math.sqrt(training.momentum(args))
        g = grad.to(torch.float32) * scale
        slot.first.lerp_(g, 1.0 - MOMENTUM)
        out.copy_(g.lerp(slot.first, MOMENTUM))
        return None

    def _apply(self, slot: _Slot, direction: Tensor, rate: float, lr: float) -> None:
        """Move a matrix by ``rate`` against an orthogonal direction, with ``lr`` for its decay."""
        if self._fused and direction.numel():
            args = self._args(slot, direction, slot.param, rate)
            args.weight_decay = lr * slot.decay
            training.call("fry_apply", args)
        else:
            self._move(slot, direction.to(torch.float32), rate, lr)

    def _move(self, slot: _Slot, move: Tensor, rate: float, lr: float) -> None:
        slot.master.mul_(1.0 - lr * slot.decay).sub_(move, alpha=rate)
        slot.param.copy_(slot.master)
        if slot.average is not None:
            slot.average.lerp_(slot.master, self._towards)

    # ---- weights and state -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the averaged weights into the model (for measuring); `use_masters` takes them out again."""
        for slot in self._slots:
            slot.param.copy_(slot.master if slot.average is None else slot.average)

    @torch.no_grad()
    def use_masters(self) -> None:
        """Put the current weights back into the model."""
        for slot in self._slots:
            slot.param.copy_(slot.master)

    def _kept(self) -> dict[str, Tensor]:
        kept: dict[str, Tensor] = {}
        for slot in self._slots:
            parts = {"master": slot.master, "average": slot.average, "first": slot.first, "second": slot.second}
            kept |= {f"{part}.{slot.name}": tensor for part, tensor in parts.items() if tensor is not None}
        return kept

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything `load_state` needs to go on bit for bit: tensors by name, and plain data."""
        return self._kept(), {"steps": self.steps}

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """The inverse of `state`.

        Raises:
            KeyError: A tensor is missing.
        """
        for name, tensor in self._kept().items():
            tensor.copy_(tensors[name])
        self.steps = int(plain["steps"])
        self.use_masters()


def _by_shape(slots: list[_Slot]) -> list[list[_Slot]]:
    groups: dict[torch.Size, list[_Slot]] = {}
    for slot in slots:
        groups.setdefault(slot.param.shape, []).append(slot)
    return list(groups.values())
