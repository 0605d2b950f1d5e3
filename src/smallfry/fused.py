"""What a training step does between its matrix products, fused: libfry's kernels as functions with gradients.

On a CPU PyTorch spends more of a small model's step between the products than in them: attention alone is half of it.
Here each of attention (with its norms and positions), RMSNorm with the residual sum, SwiGLU and the loss behind the
head is one pass forwards and one backwards. `smallfry.model` holds the plain versions, which are the reference and
what other devices run.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from smallfry.engine import training
from smallfry.engine.training import AttentionArgs, CrossEntropyArgs, NormArgs, SwigluArgs, WeightGradientArgs

_MOST_HEAD = 512
_KINDS = {torch.float32: training.FP32, torch.bfloat16: training.BF16}
# Logits that are held at once: few enough for the caches, many enough that adding up the table's gradient is not felt.
_LOGITS, _LOGIT_ROWS, _MOST_LOGITS = 1 << 22, 1024, 1 << 24


_switched_off = False


@contextmanager
def switched_off() -> Iterator[None]:
    """Inside, everything is computed by PyTorch: for comparing, and for finding out which of the two is wrong."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


@functools.cache
def available() -> bool:
    """Whether libfry has kernels for this machine that are faster than PyTorch; plain C is not."""
    return any(name != "plain" for name in training.training_sets())


def usable(x: Tensor, head_dim: int) -> bool:
    """Whether these kernels compute with this tensor's device, precision and heads."""
    fits = x.device.type == "cpu" and x.dtype in _KINDS and head_dim % 2 == 0 and head_dim <= _MOST_HEAD
    return fits and not _switched_off and available()


def kind_of(x: Tensor) -> int:
    """The number that libfry gives the precision of ``x``."""
    return _KINDS[x.dtype]


def _at(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


class Norm(torch.autograd.Function):
    """RMSNorm (Zhang and Sennrich 2019): y = x gain (mean(x^2) + eps)^-1/2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        """Normalise the last dimension of ``x``."""
        _, y, r = _norm_forward(x.contiguous(), None, None, gain, eps)
        ctx.save_for_backward(x, gain, r)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of ``x`` and the gain."""
        x, gain, r = ctx.saved_tensors
        dx, _, dgain = _norm_backward(x.contiguous(), None, gain, r, grad.contiguous(), None)
        return dx, dgain, None


class AddNorm(torch.autograd.Function):
    """The residual sum ``x + update mask``, and its RMSNorm."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, update: Tensor, mask: Tensor | None, gain: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """``(sum, norm of the sum)``."""
        total, y, r = _norm_forward(x.contiguous(), update.contiguous(), mask, gain, eps)
        ctx.save_for_backward(total, gain, r, mask)
        ctx.set_materialize_grads(False)
        return total, y

    @staticmethod
    def backward(ctx: Any, dtotal: Tensor | None, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of ``x``, ``update`` and the gain."""
        total, gain, r, mask = ctx.saved_tensors
        if dy is None:
            dy = torch.zeros_like(total)
        dtotal = None if dtotal is None else dtotal.contiguous()
        dx, dupdate, dgain = _norm_backward(total, mask, gain, r, dy.contiguous(), dtotal)
        return dx, dupdate, None, dgain, None


def _norm_forward(
    x: Tensor, update: Tensor | None, mask: Tensor | None, gain: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    width = x.shape[-1]
    rows = x.numel() // width
    total = x if update is None else torch.empty_like(x)
    y = torch.empty_like(x)
    r = torch.empty(rows, dtype=torch.float32)
    args = NormArgs(
        _KINDS[x.dtype], eps, rows, width, _at(x), _at(update), _at(mask), _at(gain), _at(total), _at(y), _at(r)
    )
    if rows:
        training.call("fry_norm_forward", args)
    return total, y, r


def _norm_backward(
    x: Tensor, mask: Tensor | None, gain: Tensor, r: Tensor, dy: Tensor, dtotal: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    width = x.shape[-1]
    rows = x.numel() // width
    dx = torch.empty_like(x)
    dupdate = dx if mask is None else torch.empty_like(x)
    dgain = torch.zeros(width, dtype=torch.float32)
    args = NormArgs(
        _KINDS[x.dtype], 0.0, rows, width, _at(x), None, _at(mask), _at(gain), None, None, _at(r), _at(dy), _at(dtotal),
        _at(dx), _at(dupdate), _at(dgain),
    )  # fmt: skip
    if rows:
        training.call("fry_norm_backward", args)
    return dx, dupdate, dgain.to(gain.dtype)


class SwiGLU(torch.autograd.Function):
    """silu(gate) up (Shazeer 2020), where the last dimension is gate, then up."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        """``(..., 2 F)`` to ``(..., F)``."""
        gate_up = gate_up.contiguous()
        width = gate_up.shape[-1] // 2
        out = gate_up.new_empty(*gate_up.shape[:-1], width)
        ctx.save_for_backward(gate_up)
        if out.numel():
            rows = out.numel() // width
            training.call("fry_swiglu_forward", SwigluArgs(_KINDS[out.dtype], rows, width, _at(gate_up), _at(out)))
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Tensor:
        """The gradient of gate and up."""
        (gate_up,) = ctx.saved_tensors
        dout = dout.contiguous()
        grad = torch.empty_like(gate_up)
        width = dout.shape[-1]
        if dout.numel():
            args = SwigluArgs(
                _KINDS[dout.dtype], dout.numel() // width, width, _at(gate_up), None, _at(dout), _at(grad)
            )
            training.call("fry_swiglu_backward", args)
        return grad


class Linear(torch.autograd.Function):
    """``x W^T``, whose weights' gradient is libfry's product where that is faster than the library's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """``(..., in)`` to ``(..., out)``."""
        ctx.save_for_backward(x, weight)
        return torch.nn.functional.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of ``x`` and the weights."""
        x, weight = ctx.saved_tensors
        dx = dy @ weight if ctx.needs_input_grad[0] else None
        dw = weight_gradient(dy.flatten(0, -2), x.flatten(0, -2)) if ctx.needs_input_grad[1] else None
        return dx, dw


def weight_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """``dy^T x`` for ``dy`` ``(N, out)`` and ``x`` ``(N, in)``."""
    if dy.dtype == torch.bfloat16 and dy.shape[0]:
        dy, x = dy.contiguous(), x.contiguous()
        dw = dy.new_empty(dy.shape[1], x.shape[1])
        if training.weight_gradient(WeightGradientArgs(*dy.shape, x.shape[1], _at(dy), _at(x), _at(dw))):
            return dw
    return dy.t() @ x


@dataclass(frozen=True, slots=True)
class Heads:
    """How attention's rows are cut: query heads, key heads, numbers a head, and the norms' epsilon."""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float


class Attention(torch.autograd.Function):
    """Causal attention with normalised queries and keys and rotary positions.

    softmax(q k^T / sqrt(D)) v, computed a head at a time with the softmax's row sums kept for the way back
    (FlashAttention, Dao et al. 2022).
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, q_gain: Tensor | None, k_gain: Tensor | None, cos: Tensor, sin: Tensor, heads: Heads
    ) -> Tensor:
        """``(B, T, (H + 2 KV) D)`` to ``(B, T, H D)``; tables as `rotary` gives them."""
        qkv = qkv.contiguous()
        batch, length, _ = qkv.shape
        out = qkv.new_empty(batch, length, heads.heads * heads.head_dim)
        softmax = torch.empty(2, batch, heads.heads, length, dtype=torch.float32)
        args = _attention_args(qkv, q_gain, k_gain, cos, sin, heads, out, softmax)
        if out.numel():
            training.call("fry_attention_forward", args)
        ctx.save_for_backward(qkv, q_gain, k_gain, cos, sin, out, softmax)
        ctx.heads = heads
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys and values, and of the two gains."""
        qkv, q_gain, k_gain, cos, sin, out, softmax = ctx.saved_tensors
        dout = dout.contiguous()
        dqkv = torch.empty_like(qkv)
        args = _attention_args(qkv, q_gain, k_gain, cos, sin, ctx.heads, out, softmax)
        args.dout, args.dqkv = _at(dout), _at(dqkv)
        gains = torch.zeros(2, ctx.heads.head_dim, dtype=torch.float32)
        if q_gain is not None:
            args.dq_gain, args.dk_gain = _at(gains[0]), _at(gains[1])
        if out.numel():
            training.call("fry_attention_backward", args)
        if q_gain is None:
            return dqkv, None, None, None, None, None
        return dqkv, gains[0].to(q_gain.dtype), gains[1].to(k_gain.dtype), None, None, None


def _attention_args(
    qkv: Tensor, q_gain: Tensor | None, k_gain: Tensor | None, cos: Tensor, sin: Tensor, h: Heads, out: Tensor,
    softmax: Tensor,
) -> AttentionArgs:  # fmt: skip
    batch, length, _ = qkv.shape
    return AttentionArgs(
        _KINDS[qkv.dtype], h.eps, batch, length, h.heads, h.kv_heads, h.head_dim, _at(qkv), _at(q_gain), _at(k_gain),
        _at(cos), _at(sin), _at(out), _at(softmax[0]), _at(softmax[1]),
    )  # fmt: skip


def rotary_angles(length: int, head_dim: int, theta: float, device: torch.device | None = None) -> Tensor:
    """Angles of the rotary positions (Su et al. 2021), ``(length, D / 2)``, fp32."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    return torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequencies)


@functools.lru_cache(maxsize=16)
def rotary(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions, ``(length, D / 2 filled up to a multiple of 16)``, fp32."""
    with torch.inference_mode(False), torch.no_grad():  # a table made while answering could not be trained with
        angles = torch.nn.functional.pad(rotary_angles(length, head_dim, theta), (0, -(head_dim // 2) % 16))
        return angles.cos().contiguous(), angles.sin().contiguous()


class HeadLoss(torch.autograd.Function):
    """The head and the weighted cross-entropy behind it, a few rows of logits at a time.

    Logits of all rows would be the largest tensor of a step. Here they exist in the weights' precision for a block of
    rows, become their own gradient in place, and are multiplied back at once: gradients are ready when the loss is.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor, scales: Tensor, smoothing: float) -> Tensor:
        """The sum over rows of ``scales`` times the cross-entropy.

        Args:
            ctx: Autograd's.
            hidden: ``(N, C)``.
            table: The head's weights ``(V, C)``.
            targets: ``(N,)`` int64.
            scales: Weight of each row, ``(N,)`` fp32.
            smoothing: Probability mass spread over the vocabulary.

        Returns:
            A scalar, fp32.
        """
        rows, vocab = hidden.shape[0], table.shape[0]
        losses = torch.zeros(max(1, rows), dtype=torch.float32)
        wanted = any(ctx.needs_input_grad[:2])
        dhidden = torch.empty_like(hidden) if wanted else None
        block = max(64, min(max(_LOGITS // vocab, _LOGIT_ROWS), _MOST_LOGITS // vocab) // 64 * 64)
        dtable = torch.zeros(table.shape, dtype=torch.float32) if wanted and rows > block else None
        targets, scales = targets.contiguous(), scales.contiguous()
        for at in range(0, rows, block):
            end = min(rows, at + block)
            logits = hidden[at:end] @ table.t()  # (n, V)
            args = CrossEntropyArgs(
                _KINDS[hidden.dtype], smoothing, end - at, vocab, _at(logits), _at(targets[at:]), _at(scales[at:]),
                _at(losses[at:]), int(wanted),
            )  # fmt: skip
            training.call("fry_cross_entropy_rows", args)
            if dhidden is None:
                continue
            torch.mm(logits, table, out=dhidden[at:end])
            part = weight_gradient(logits, hidden[at:end])  # (V, C)
            if dtable is None:  # one block is all
                dtable = part
            else:
                training.add(_KINDS[part.dtype], part.numel(), part.data_ptr(), dtable.data_ptr())
        if wanted:
            dtable = torch.zeros_like(table) if dtable is None else dtable.to(table.dtype)
        ctx.gradients = (dhidden, dtable)
        return losses.sum(dtype=torch.float64).to(torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients that stand ready, times what comes from behind, which is 1 for a loss."""
        dhidden, dtable = ctx.gradients
        ctx.gradients = None
        if float(grad) != 1.0:
            dhidden, dtable = dhidden * grad.to(dhidden.dtype), dtable * grad.to(dtable.dtype)
        return dhidden, dtable, None, None, None


def norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension of ``x``, scaled by ``gain``."""
    return cast(Tensor, Norm.apply(x, gain, eps))  # type: ignore[no-untyped-call]


def add_norm(x: Tensor, update: Tensor, mask: Tensor | None, gain: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``x + update mask`` and its RMSNorm; ``mask`` is a dropout mask of ``update``'s shape, or None."""
    return cast(tuple[Tensor, Tensor], AddNorm.apply(x, update, mask, gain, eps))  # type: ignore[no-untyped-call]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W^T`` and a bias, if there is one."""
    y = cast(Tensor, Linear.apply(x, weight))  # type: ignore[no-untyped-call]
    return y if bias is None else y + bias


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) up of ``(..., 2 F)``."""
    return cast(Tensor, SwiGLU.apply(gate_up))  # type: ignore[no-untyped-call]


def attention(qkv: Tensor, q_gain: Tensor | None, k_gain: Tensor | None, theta: float, heads: Heads) -> Tensor:
    """Causal attention of ``(B, T, (H + 2 KV) D)``, with norms where there are gains, at positions 0, 1, ..."""
    length = qkv.shape[1]
    cos, sin = rotary(2 ** math.ceil(math.log2(max(64, length))), heads.head_dim, theta)
    return cast(Tensor, Attention.apply(qkv, q_gain, k_gain, cos, sin, heads))  # type: ignore[no-untyped-call]


def head_loss(hidden: Tensor, table: Tensor, targets: Tensor, scales: Tensor, smoothing: float = 0.0) -> Tensor:
    """See `HeadLoss`."""
    return cast(Tensor, HeadLoss.apply(hidden, table, targets, scales, smoothing))  # type: ignore[no-untyped-call]
