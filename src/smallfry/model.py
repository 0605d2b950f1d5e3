"""The transformer: Qwen3-shaped, in one sitting.

RMSNorm before each half of a block, rotary positions, normalised queries and keys, SwiGLU, no biases, tied embeddings.
The weights are the ones of ``Qwen3ForCausalLM`` (`checkpoint.to_hf_state` splits the two fused matrices), so that
transformers, llama.cpp and vLLM run a saved model without this code. What Llama, Qwen2 and Qwen3 models that others
trained do differently is a `Variant`, so that they are measured by the same code.

Whole sequences on a CPU go through libfry's fused kernels (`smallfry.fused`), everything else through the operations
written out here, which are the kernels' reference.
"""

from __future__ import annotations

import math
import random
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smallfry import fused
from smallfry.architecture import NORM_EPS, OURS, Variant
from smallfry.sizes import Shape

_QUERY_BLOCK = 128  # queries whose scores are computed together where nothing is to be differentiated


class RmsNorm(torch.autograd.Function):
    """RMSNorm with a gain and a written-out backward: a third of the passes autograd would record on a CPU.

    y = x * r * g with r = (mean(x^2) + eps)^-1/2 (Zhang and Sennrich 2019); statistics in fp32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        """Normalise the last dimension of ``x`` and scale by ``gain``."""
        wide = torch.promote_types(x.dtype, torch.float32)
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        r = r.square_().mul_(1.0 / x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
        ctx.save_for_backward(x, gain, r)
        normed: Tensor = x * r
        return normed.mul_(gain)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """D x = r (g dy - n mean(n g dy)) with n = x r; d g = sum(dy n)."""
        x, gain, r = ctx.saved_tensors
        n = x * r
        grad_n = grad * gain
        grad_gain = (grad * n).flatten(0, -2).sum(0)
        mean = (grad_n * n).mean(-1, keepdim=True)
        return grad_n.sub_(n.mul_(mean)).mul_(r), grad_gain, None


def rms_norm(x: Tensor, gain: Tensor, eps: float = NORM_EPS) -> Tensor:
    """RMSNorm over the last dimension of ``x``, scaled by ``gain``."""
    return cast(Tensor, RmsNorm.apply(x, gain, eps))  # type: ignore[no-untyped-call]


def rotary_tables(length: int, head_dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions (Su et al. 2021), each ``(length, head_dim)``, fp32, half-split."""
    angles = fused.rotary_angles(length, head_dim, theta, device).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys ``(B, H, T, D)`` by their positions; ``sin`` carries the sign of the half-split form."""
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


class MaskPool:
    """Dropout masks cut from one pool drawn beforehand: drawing them anew costs a seventh of a CPU step.

    Where a mask is cut is drawn from ``rng``, which the training loop seeds anew at every step, so that a resumed run
    drops the same features as one that was never stopped.
    """

    SIZE = 1 << 22

    def __init__(self, p: float) -> None:
        self.p = p
        self.rng = random.Random(0)
        self._pool: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` with each element zeroed with probability ``p`` and the rest scaled up by 1 / (1 - p)."""
        if self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p, training=True)
        return x * self.cut(x)

    def cut(self, like: Tensor) -> Tensor:
        """A mask of a CPU tensor's shape and precision: 0, or 1 / (1 - p)."""
        if self._pool is None or self._pool.dtype != like.dtype or self._pool.numel() < 2 * like.numel():
            size = max(self.SIZE, 2 * like.numel())
            draw = torch.rand(size, generator=torch.Generator().manual_seed(1))
            self._pool = (draw >= self.p).to(like.dtype) / (1.0 - self.p)
        start = self.rng.randrange(self._pool.numel() - like.numel())
        return self._pool[start : start + like.numel()].view(like.shape)


class Cache:
    """Keys and values of the tokens already read, one buffer a layer: ``(B, kv_heads, max_len, head_dim)``."""

    def __init__(self, shape: Shape, batch: int, max_len: int, dtype: torch.dtype, device: torch.device) -> None:
        size = (batch, shape.num_kv_heads, max_len, shape.head_dim)
        self.keys = [torch.zeros(size, dtype=dtype, device=device) for _ in range(shape.num_layers)]
        self.values = [torch.zeros(size, dtype=dtype, device=device) for _ in range(shape.num_layers)]

    def keep(self, rows: Tensor) -> None:
        """Keep only ``rows`` of the batch."""
        self.keys = [k[rows] for k in self.keys]
        self.values = [v[rows] for v in self.values]


class Block(nn.Module):
    """Attention and SwiGLU, each on a normalised copy of the residual stream."""

    def __init__(self, shape: Shape, drop: MaskPool, variant: Variant) -> None:
        super().__init__()
        self.shape, self.drop, self.eps, self.theta = shape, drop, variant.norm_eps, variant.rope_theta
        width, heads = shape.hidden_size, shape.num_heads + 2 * shape.num_kv_heads
        self.input_norm = nn.Parameter(torch.ones(width))
        self.qkv = nn.Linear(width, heads * shape.head_dim, bias=variant.qkv_bias)
        if shape.qk_norm:
            self.q_norm = nn.Parameter(torch.ones(shape.head_dim))
            self.k_norm = nn.Parameter(torch.ones(shape.head_dim))
        self.o = nn.Linear(shape.num_heads * shape.head_dim, width, bias=False)
        self.post_norm = nn.Parameter(torch.ones(width))
        self.gate_up = nn.Linear(width, 2 * shape.intermediate_size, bias=False)
        self.down = nn.Linear(shape.intermediate_size, width, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: tuple[Tensor, Tensor, Tensor] | None
    ) -> Tensor:
        """One block over ``x`` ``(B, T, C)``; see `Transformer.forward` for the other arguments."""
        x = x + self._drop(self._attend(rms_norm(x, self.input_norm, self.eps), cos, sin, mask, cache))
        gate, up = self.gate_up(rms_norm(x, self.post_norm, self.eps)).chunk(2, dim=-1)  # (B, T, F) each
        return x + self._drop(self.down(F.silu(gate) * up))

    def forward_fused(self, x: Tensor, normed: Tensor, next_gain: Tensor) -> tuple[Tensor, Tensor]:
        """One block over whole sequences by fused kernels.

        Args:
            x: The residual stream ``(B, T, C)``.
            normed: Its norm with this block's first gain.
            next_gain: The gain of the norm behind this block.

        Returns:
            The residual stream behind the block, and its norm with ``next_gain``.
        """
        s = self.shape
        gains = (self.q_norm, self.k_norm) if s.qk_norm else (None, None)
        heads = fused.Heads(s.num_heads, s.num_kv_heads, s.head_dim, self.eps)
        qkv = fused.linear(normed, self.qkv.weight, self.qkv.bias)
        attended = fused.linear(fused.attention(qkv, gains[0], gains[1], self.theta, heads), self.o.weight)
        x, normed = fused.add_norm(x, attended, self._mask(attended), self.post_norm, self.eps)
        update = fused.linear(fused.swiglu(fused.linear(normed, self.gate_up.weight)), self.down.weight)
        return fused.add_norm(x, update, self._mask(update), next_gain, self.eps)

    def _mask(self, x: Tensor) -> Tensor | None:
        return self.drop.cut(x) if self.training and self.drop.p else None

    def _drop(self, x: Tensor) -> Tensor:
        return self.drop(x) if self.training else x

    def _attend(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: tuple[Tensor, Tensor, Tensor] | None
    ) -> Tensor:
        s = self.shape
        batch, length, _ = x.shape
        heads = self.qkv(x).view(batch, length, s.num_heads + 2 * s.num_kv_heads, s.head_dim).transpose(1, 2)
        q, k, v = heads.split([s.num_heads, s.num_kv_heads, s.num_kv_heads], dim=1)  # (B, H, T, D)
        scale = 1.0 / math.sqrt(s.head_dim)
        if s.qk_norm:  # the scores' scale goes into the queries' gain, which is smaller than the queries
            q, k = rms_norm(q, self.q_norm * scale, self.eps), rms_norm(k, self.k_norm, self.eps)
        else:
            q = q * scale
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            keys, values, positions = cache
            keys[torch.arange(batch)[:, None], :, positions] = k.transpose(1, 2)
            values[torch.arange(batch)[:, None], :, positions] = v.transpose(1, 2)
            k, v = keys[:, :, : mask.shape[-1]], values[:, :, : mask.shape[-1]]
        if s.num_kv_heads != s.num_heads:
            repeat = s.num_heads // s.num_kv_heads
            k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        out = _attention(q, k, v, mask, causal=cache is None)  # (B, H, T, D)
        return cast(Tensor, self.o(out.transpose(1, 2).reshape(batch, length, s.num_heads * s.head_dim)))


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, causal: bool) -> Tensor:
    """Attention written out: on a CPU PyTorch's fused kernel is twice as slow forwards and up to ten times backwards.

    Args:
        q: Scaled queries ``(B, H, T, D)``.
        k: Keys ``(B, H, S, D)``.
        v: Values ``(B, H, S, D)``.
        mask: ``(..., T, S)``, 0 or -inf.
        causal: No query looks at a key behind its own place: the upper half of the scores need not be computed.
    """
    length = q.shape[2]
    if not causal or length <= 1.5 * _QUERY_BLOCK or torch.is_grad_enabled():
        return torch.softmax((q @ k.transpose(-1, -2)).add_(mask), dim=-1) @ v
    blocks = []
    for at in range(0, length, _QUERY_BLOCK):
        end = min(length, at + _QUERY_BLOCK)
        scores = (q[:, :, at:end] @ k[:, :, :end].transpose(-1, -2)).add_(mask[..., at:end, :end])
        blocks.append(torch.softmax(scores, dim=-1) @ v[:, :, :end])
    return torch.cat(blocks, dim=2)


def _earlier(positions: Tensor, span: int, dtype: torch.dtype) -> Tensor:
    """The mask ``(B, 1, T, S)`` that lets each token see the cached ones up to its own position."""
    hidden = torch.arange(span, device=positions.device) > positions[..., None]  # (B, T, S)
    return torch.zeros(hidden.shape, dtype=dtype, device=positions.device).masked_fill_(hidden, -torch.inf)[:, None]


class Transformer(nn.Module):
    """A decoder-only language model.

    Args:
        shape: Sizes.
        dropout: Probability of zeroing a residual update or an embedding feature while training.
        variant: How it differs from the models made here.
    """

    def __init__(self, shape: Shape, dropout: float = 0.0, variant: Variant = OURS) -> None:
        super().__init__()
        self.shape, self.variant = shape, variant
        self.drop = MaskPool(dropout)
        self.embed = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.blocks = nn.ModuleList([Block(shape, self.drop, variant) for _ in range(shape.num_layers)])
        self.norm = nn.Parameter(torch.ones(shape.hidden_size))
        if not shape.tie_embeddings:
            self.head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        self._tables: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Starting weights: embeddings N(0, 0.02), matrices N(0, 1/fan_in), what a block adds shrunk by depth."""
        for name, p in self.named_parameters():
            if p.dim() < 2:
                p.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = 0.02
            if not name.startswith(("embed", "head")):
                std = 1.0 / math.sqrt(p.shape[1])
                if name.endswith(("o.weight", "down.weight")):
                    std /= math.sqrt(2 * self.shape.num_layers)
            p.copy_(torch.randn(p.shape, generator=generator) * std)

    def forward(
        self, ids: Tensor, cache: Cache | None = None, positions: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Hidden states after the last norm.

        Args:
            ids: Token ids, ``(B, T)``.
            cache: Keys and values of earlier tokens; this call's are written into it.
            positions: Position of each token, ``(B, T)``; with ``cache`` or ``mask``. Rows may stand at different
                positions.
            mask: What each token may look at where that is not simply every earlier one: ``(B, 1, T, T)``, 0 or -inf.

        Returns:
            ``(B, T, C)``.
        """
        length = ids.shape[1]
        x = self.embed(ids)  # (B, T, C)
        x = self.drop(x) if self.training else x
        # Answers in fp32 are worth the last bits that the kernels' powers of two lack; steps and bf16 are not.
        rounded = x.dtype != torch.float32 or torch.is_grad_enabled()
        if positions is None and cache is None and rounded and fused.usable(x, self.shape.head_dim):
            return self._forward_fused(x)
        span = length if positions is None else int(positions.max()) + 1
        cos, sin = self._rotary(span, ids.device)
        if positions is None:
            cos, sin = cos[:length], sin[:length]
            mask = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu_(1)
        else:
            cos, sin = cos[positions][:, None], sin[positions][:, None]  # (B, 1, T, D)
            mask = mask if mask is not None else _earlier(positions, span, x.dtype)
        for index, block in enumerate(self.blocks):
            layer = None
            if cache is not None:
                assert positions is not None
                layer = (cache.keys[index], cache.values[index], positions)
            x = block(x, cos, sin, mask, layer)
        return rms_norm(x, self.norm, self.variant.norm_eps)

    def _forward_fused(self, x: Tensor) -> Tensor:
        blocks = list(self.blocks)
        gains = [cast(Tensor, block.input_norm) for block in blocks[1:]] + [self.norm]
        normed = fused.norm(x, cast(Tensor, blocks[0].input_norm) if blocks else self.norm, self.variant.norm_eps)
        for block, gain in zip(blocks, gains, strict=False):
            x, normed = cast(Block, block).forward_fused(x, normed, gain)
        return normed

    @property
    def head_weight(self) -> Tensor:
        """The head's weights ``(V, C)``: the embedding table, or its own where it is not tied."""
        return self.embed.weight if self.shape.tie_embeddings else self.head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """``(..., C)`` -> ``(..., V)`` through the head."""
        return F.linear(hidden, self.head_weight)

    def _rotary(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tables in the model's dtype; the first half of the sines is negated, which is what `rotate` expects."""
        dtype = self.embed.weight.dtype
        held = self._tables  # read once: other threads may put longer ones in its place
        if held is None or held[0].shape[0] < length or held[0].dtype != dtype or held[0].device != device:
            # Also when first needed while answering: a table made in inference mode could not be trained with.
            with torch.inference_mode(False), torch.no_grad():
                cos, sin = rotary_tables(max(length, 256), self.shape.head_dim, self.variant.rope_theta, device)
                sin[:, : self.shape.head_dim // 2] *= -1
                self._tables = held = (cos.to(dtype), sin.to(dtype))
        return held[0][:length], held[1][:length]
