"""What every peer of the training benchmark gives and gets."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smallfry.sizes import Shape

HEAD_DIM = 64  # the fastest width of a head on CPUs, for every peer
LR = 3e-4
Precision = Literal["fp32", "autocast", "bf16", "masters"]


def shape_of(layers: int, width: int, vocab: int) -> Shape:
    """This project's architecture at a depth, width and vocabulary: SwiGLU of 8/3 widths (up to 64), tied."""
    return Shape(
        vocab_size=vocab, hidden_size=width, num_layers=layers, num_heads=width // HEAD_DIM,
        num_kv_heads=width // HEAD_DIM, head_dim=HEAD_DIM, intermediate_size=-(-8 * width // (3 * 64)) * 64,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spec:
    """One row of the benchmark: which peer, how it computes, and what.

    Args:
        peer: The module in this package that builds it.
        name: Name of the peer in tables.
        layers: Transformer blocks.
        width: Width of the residual stream.
        vocab: Rows of the embedding table.
        seq_len: Tokens in a row.
        rows: Rows a training step reads.
        precision: ``fp32``; ``autocast`` to bf16; ``bf16`` as the peer's own setting; ``masters``: bf16 weights that
            are copies of fp32 ones.
        compiled: The model goes through torch.compile.
        attention: ``sdpa``, ``eager`` (written out as products and a softmax) or ``own``.
        micro: Rows computed at once that are tried; the fastest is kept.
        cores: Cores the process is pinned to; one thread each.
        folder: Checkout of a peer that cannot be installed, or a folder of packages.
    """

    peer: str
    name: str
    layers: int
    width: int
    vocab: int
    seq_len: int
    rows: int
    precision: Precision = "autocast"
    compiled: bool = False
    attention: str = "sdpa"
    micro: tuple[int, ...] = ()
    cores: tuple[int, ...] = (0,)
    folder: str | None = None

    @property
    def shape(self) -> Shape:
        """Our shape, which a peer takes as far as it can."""
        return shape_of(self.layers, self.width, self.vocab)

    @property
    def tokens(self) -> int:
        """Tokens a training step reads."""
        return self.rows * self.seq_len

    @property
    def variant(self) -> str:
        """How it computes, for tables."""
        words = {"fp32": "fp32", "autocast": "bf16 autocast", "bf16": "bf16", "masters": "bf16 weights, fp32 masters"}
        attention = {"sdpa": "SDPA", "eager": "written-out attention", "own": ""}[self.attention]
        return ", ".join(w for w in (words[self.precision], "compiled" if self.compiled else "eager", attention) if w)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Spec:
        """The inverse of `to_dict`."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return Spec(**values)


@dataclass(slots=True)
class Built:
    """A peer that is ready to train.

    Args:
        loss: Mean cross-entropy of ids ``(B, T)`` and the tokens after them ``(B, T)``.
        update: Moves the weights by the gradients that stand, and clears them.
        params: Parameters, tied ones once.
        matmul_params: Weights that every token is multiplied with: the blocks and the head.
        after_part: Called after each micro-batch's backward where there is more than one.
        versions: Versions of what it is made of.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    update: Callable[[], None]
    params: int
    matmul_params: int
    after_part: Callable[[], None] | None = None
    versions: dict[str, str] = field(default_factory=dict)


def count_params(model: nn.Module) -> tuple[int, int]:
    """Parameters, and weights of linear layers: a tied head is a linear layer too, an embedding table is a look-up."""
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    return sum(p.numel() for p in model.parameters()), linear


def autocast(spec: Spec) -> contextlib.AbstractContextManager[Any]:
    """The context that a forward pass runs in."""
    return torch.autocast("cpu", torch.bfloat16) if spec.precision == "autocast" else contextlib.nullcontext()


def compiled(spec: Spec, model: nn.Module) -> Callable[..., Any]:
    """The model, through torch.compile if the row asks for it."""
    return torch.compile(model, dynamic=False) if spec.compiled else model


def adamw(parameters: Iterable[Tensor]) -> torch.optim.AdamW:
    """PyTorch's fastest AdamW on a CPU: one fused kernel a tensor."""
    return torch.optim.AdamW(list(parameters), lr=LR, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def built_with_adamw(spec: Spec, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], *packages: str) -> Built:
    """A peer that brings a model but no optimizer of its own."""
    optimizer = adamw(model.parameters())

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Built(loss, update, *count_params(model), versions={name: metadata.version(name) for name in packages})


def commit_of(folder: str) -> str:
    """Short commit of a checkout; ``unknown`` where it is none."""
    git = ["git", "-C", folder, "rev-parse", "--short=7", "HEAD"]
    with contextlib.suppress(OSError):
        done = subprocess.run(git, capture_output=True, text=True, check=False)
        if not done.returncode and (Path(folder) / ".git").exists():
            return done.stdout.strip()
    return "unknown"
