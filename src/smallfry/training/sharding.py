"""Models too large for one process's memory: weights, gradients and optimizer in parts over several (FSDP2).

Each process keeps some rows of every parameter, in the precision of the computation, and the fp32 masters and moments
of those rows. PyTorch's `fully_shard` (Zhao et al. 2023) puts a block's matrices together when they are needed, forgets
them afterwards, and hands each process its rows of the summed gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from smallfry.model import Block, Transformer
from smallfry.training.optim import Optimizer, _Slot, muon_factor, orthogonalise
from smallfry.training.parallel import World


def shard(model: Transformer, world: World) -> Transformer:
    """Split a model's parameters over the processes, in place.

    A block's parameters make one group, put together while the block computes. Embeddings, head and last gain make
    another one, which stays together from forward to backward, so that what comes behind the last block finds whole
    weights. A block's first gain, which fused kernels reach across blocks, is copied instead.

    Gradients are summed in fp32, not averaged: see `smallfry.training.parallel`.

    Args:
        model: The whole model, the same in every process, on ``world.device``, in its compute precision.
        world: At least two processes.

    Returns:
        ``model``; its parameters are DTensors now, split by rows, all but the first gains of blocks.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for block in cast("list[Block]", list(model.blocks)):
        fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params={block.input_norm})
        register_fsdp_forward_method(block, "forward_fused")
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no sum with a factor inside
    return model


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` split a model."""
    return isinstance(model, FSDPModule)


@torch.no_grad()
def whole(model: Transformer, world: World) -> Transformer:
    """A plain copy of a sharded model in every process, for answering and for `smallfry.checkpoint.save_model`."""
    with torch.device("meta"):
        plain = Transformer(model.shape, model.drop.p, model.variant)
    plain = plain.to(next(model.parameters()).dtype).to_empty(device=world.device)
    for p, part in zip(plain.parameters(), model.parameters(), strict=True):
        p.copy_(part.full_tensor() if isinstance(part, DTensor) else part)
    return plain.train(model.training)


class ShardedOptimizer(Optimizer):
    """`Optimizer` for a sharded model: each process moves its own rows.

    AdamW works element by element, so that rows suffice. Muon needs whole matrices: as many as there are processes are
    exchanged at a time, each process orthogonalises one of them, and the rows go back.

    Args:
        model: From `shard`.
        world: The same processes.
        lr: This and what follows: see `Optimizer`.
        muon_lr: Muon's rate.
        weight_decay: Decoupled decay.
        ema: Decay of the average.
        clip: Largest norm.
    """

    def __init__(
        self, model: Transformer, world: World, lr: float, muon_lr: float, weight_decay: float, ema: float,
        clip: float = 1.0,
    ) -> None:  # fmt: skip
        self.model, self.world = model, world
        self._sharded = dict(model.named_parameters())
        own = _OwnRows(self._sharded)
        super().__init__(own, lr, muon_lr, weight_decay, ema, clip)
        # By the shapes of whole matrices: rows of two shapes may be equal in one process and differ in another.
        groups: dict[tuple[int, ...], list[_Slot]] = {}
        for slot in sorted((s for group in self._groups for s in group), key=lambda s: s.name):
            groups.setdefault(tuple(self._sharded[slot.name].shape), []).append(slot)
        self._groups = [groups[shape] for shape in sorted(groups)]

    # ---- gradients --------------------------------------------------------------------------------------------------

    def accumulate(self) -> None:
        """See `Optimizer.accumulate`; sums of this process's rows."""
        self._take_gradients()
        super().accumulate()

    def discard(self) -> None:
        """See `Optimizer.discard`."""
        for p in self._sharded.values():
            p.grad = None
        super().discard()

    def _take_gradients(self) -> None:
        """Put the rows of gradients that FSDP left on the model onto the parameters that the optimizer knows."""
        copied = [slot for slot in self._slots if not isinstance(self._sharded[slot.name], DTensor)]
        for slot in self._slots:
            p = self._sharded[slot.name]
            slot.param.grad = None if p.grad is None else _rows(p.grad)
            p.grad = None
        if copied:  # FSDP does not know of these
            zeros = [torch.zeros_like(slot.param) for slot in copied]
            grads = [z if s.param.grad is None else s.param.grad for s, z in zip(copied, zeros, strict=True)]
            total = self.world.add(torch.cat([grad.float().flatten() for grad in grads]))
            for slot, part in zip(copied, torch.split(total, [len(grad) for grad in grads]), strict=True):
                slot.param.grad = part.to(slot.param.dtype)

    def _gradients(self) -> list[Tensor]:
        if not self._counted:
            self._take_gradients()
        return super()._gradients()

    # ---- the step ---------------------------------------------------------------------------------------------------

    def step(self, factor: float) -> float:
        """See `Optimizer.step`; the norm is the whole gradient's."""
        norm = super().step(factor)
        self._changed()
        return norm

    def _norm(self, grads: list[Tensor]) -> float:
        squares = [
            torch.linalg.vector_norm(grad, dtype=torch.float32).double().square()
            for slot, grad in zip(self._slots, grads, strict=True)
            if self.world.main or isinstance(self._sharded[slot.name], DTensor)  # copies count once
        ]
        return math.sqrt(self.world.sum(float(torch.stack(squares).sum())))

    def _muon(self, group: list[_Slot], grads: list[Tensor], scale: float, lr: float) -> None:
        size = self.world.size
        rows, columns = self._sharded[group[0].name].shape
        each = -(-rows // size)
        rate = lr * muon_factor(rows, columns)
        parts = group[0].param.new_zeros(size, each, columns)  # the own rows of `size` matrices
        for first in range(0, len(group), size):
            some = group[first : first + size]
            for slot, grad, part in zip(some, grads[first : first + size], parts, strict=False):
                self._direction(slot, grad, part[: len(grad)], scale)
            for slot, part in zip(some, self._orthogonal_parts(parts, rows, len(some)), strict=False):
                self._apply(slot, part[: len(slot.param)], rate, lr)

    def _orthogonal_parts(self, parts: Tensor, rows: int, count: int) -> Tensor:
        """The own rows of matrices in, the own rows of orthogonal ones out.

        Args:
            parts: ``(size, each, N)``: one matrix a process, rows filled up to a common number.
            rows: Rows of a whole matrix.
            count: Matrices that are there; the last group of a shape may have fewer than there are processes.
        """
        size, each, columns = parts.shape
        held = torch.empty_like(parts)
        dist.all_to_all_single(held, parts)
        matrix = held.view(size * each, columns)[:rows]  # (M, N), of number `rank`
        if self.world.rank < count:
            norm = torch.linalg.vector_norm(matrix, dtype=torch.float32).clamp_min(1e-7)
            matrix.copy_(orthogonalise((matrix / norm.to(matrix.dtype))[None])[0])
        back = torch.empty_like(parts)
        dist.all_to_all_single(back, held)
        return back

    # ---- weights and state ------------------------------------------------------------------------------------------

    def use_average(self) -> None:
        """See `Optimizer.use_average`."""
        super().use_average()
        self._changed()

    def use_masters(self) -> None:
        """See `Optimizer.use_masters`."""
        super().use_masters()
        self._changed()

    def _changed(self) -> None:
        """Forget weights that FSDP holds together from before: after a forward without a backward it still does."""
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `Optimizer.state`; split tensors are DTensors, whose rows `smallfry.training.sharedsaves` gathers."""
        tensors, plain = super().state()
        return {name: self._as_dtensor(name, tensor) for name, tensor in tensors.items()}, plain

    def _as_dtensor(self, name: str, tensor: Tensor) -> Tensor:
        like = self._sharded[name.partition(".")[2]]
        if not isinstance(like, DTensor):
            return tensor
        return DTensor.from_local(
            tensor, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], plain: dict[str, Any]) -> None:
        """See `Optimizer.load_state`; takes the own rows of whole tensors, whoever saved them.

        Raises:
            KeyError: A tensor is missing.
            ValueError: A tensor has another shape.
        """
        for name, own in self._kept().items():
            like, found = self._sharded[name.partition(".")[2]], tensors[name]
            if found.shape != like.shape:
                raise ValueError(f"{name} is {tuple(found.shape)}, expected {tuple(like.shape)}")
            each = -(-like.shape[0] // self.world.size)
            first = min(like.shape[0], self.world.rank * each) if isinstance(like, DTensor) else 0
            own.copy_(found[first : first + len(own)])
        self.steps = int(plain["steps"])
        self.use_masters()


class _OwnRows(nn.Module):
    """The rows that this process holds, as parameters that share their memory with the sharded model's."""

    def __init__(self, sharded: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self._rows = {name: nn.Parameter(_rows(p.detach())) for name, p in sharded.items()}

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        """Under the names of the sharded model."""
        return iter(self._rows.items())


def _rows(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its rows of a split one, all of a copied one."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
