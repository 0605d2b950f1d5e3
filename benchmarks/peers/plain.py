"""Plain PyTorch: a GPT of this project's shape, written as PyTorch's own documentation would, and compiled or not."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peers.common import Built, Spec, adamw, autocast, built_with_adamw, compiled, count_params
from smallfry.sizes import Shape


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn ``(B, H, T, D)`` by the positions' angles ``(T, D / 2)``, halves paired."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Block(nn.Module):
    """RMSNorm, attention with QK-norm, RMSNorm, SwiGLU."""

    def __init__(self, shape: Shape, written_out: bool) -> None:
        super().__init__()
        width, inner = shape.hidden_size, shape.intermediate_size
        self.heads, self.written_out = shape.num_heads, written_out
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.q_norm, self.k_norm = nn.RMSNorm(shape.head_dim, eps=1e-6), nn.RMSNorm(shape.head_dim, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, T, C) -> (B, T, C)."""
        batch, length, width = x.shape
        heads = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        q, k, v = heads.unbind(0)
        q, k = rotary(self.q_norm(q), cos, sin).to(v.dtype), rotary(self.k_norm(k), cos, sin).to(v.dtype)
        if self.written_out:
            scores = (q @ k.transpose(-1, -2)) * (1.0 / math.sqrt(q.shape[-1])) + mask
            mixed = torch.softmax(scores, dim=-1).to(v.dtype) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        out: Tensor = x + self.down(F.silu(gate) * up)
        return out


class PlainGpt(nn.Module):
    """The whole model; called with targets it gives the loss, so that the head is compiled with the rest."""

    def __init__(self, shape: Shape, seq_len: int, written_out: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.embed = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.blocks = nn.ModuleList([Block(shape, written_out) for _ in range(shape.num_layers)])
        self.norm = nn.RMSNorm(shape.hidden_size, eps=1e-6)
        self.head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        self.head.weight = self.embed.weight
        for name, p in self.named_parameters():
            if p.dim() == 2:
                shrink = math.sqrt(2 * shape.num_layers) if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(p, std=0.02 / shrink)
        frequencies = 10000.0 ** (-torch.arange(0, shape.head_dim, 2) / shape.head_dim)
        angles = torch.outer(torch.arange(seq_len).float(), frequencies)
        self.register_buffer("cos", angles.cos().to(dtype))
        self.register_buffer("sin", angles.sin().to(dtype))
        self.register_buffer("mask", torch.full((seq_len, seq_len), -torch.inf, dtype=dtype).triu_(1))

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of ``(B, T)`` ids and targets."""
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin, self.mask)
        logits = self.head(self.norm(x)).float()  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def build(spec: Spec) -> Built:
    """The model with PyTorch's fused AdamW."""
    masters = spec.precision == "masters"
    low = torch.float32 if spec.precision == "fp32" else torch.bfloat16
    model = PlainGpt(spec.shape, spec.seq_len, spec.attention == "eager", low)
    if masters:
        return _with_masters(spec, model)
    run = compiled(spec, model)

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        with autocast(spec):
            value: Tensor = run(ids, targets)
        return value

    return built_with_adamw(spec, model, loss, "torch")


def _with_masters(spec: Spec, model: PlainGpt) -> Built:
    """Weights in bf16, which no forward pass has to cast; AdamW moves fp32 masters of them."""
    model.to(torch.bfloat16)
    parameters = list(model.parameters())
    masters = [p.detach().float() for p in parameters]
    sums = [torch.zeros_like(m) for m in masters]
    optimizer = adamw(masters)
    run = compiled(spec, model)

    @torch.no_grad()
    def add_up() -> None:
        """Gradients of micro-batches are added in fp32."""
        torch._foreach_add_(sums, [p.grad.float() for p in parameters if p.grad is not None])
        for p in parameters:
            p.grad = None

    @torch.no_grad()
    def update() -> None:
        if parameters[0].grad is not None:
            add_up()
        for master, grad in zip(masters, sums, strict=True):
            master.grad = grad
        optimizer.step()
        torch._foreach_copy_(list[Tensor](parameters), masters)
        torch._foreach_zero_(sums)

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = run(ids, targets)
        return value

    return Built(loss, update, *count_params(model), after_part=add_up, versions={"torch": torch.__version__})
