"""Other people's models as rows beside the ladder: their parameters are computed from their architecture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class Part(NamedTuple):
    """Some parameters of a reference model: what they are, how many, and by which formula."""

    name: str
    params: int
    formula: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A model of someone else: its parameters are computed from its architecture, it is not trained here.

    Args:
        name: Name for tables.
        parts: Parameters by part; the formulas use V vocabulary, C width, L layers, T positions, F MLP width, H heads.
        source: Where the architecture is defined.
    """

    name: str
    parts: tuple[Part, ...]
    source: str

    @property
    def params(self) -> int:
        """Exact number of parameters."""
        return sum(part.params for part in self.parts)

    @property
    def tables(self) -> int:
        """Parameters that grow with the vocabulary or the number of positions: embeddings and an untied head."""
        return sum(part.params for part in self.parts if part.formula[0] in "VT" or "VC" in part.formula)


def nanochat_2025(depth: int, vocab_size: int = 65_536) -> Reference:
    """The nanochat of October 2025 (first commit 3a5e0bc), the 561M of its d20.

    Width 64 x depth, untied head, norms without gains, a squared-ReLU MLP of 4 widths.
    """
    width = 64 * depth
    parts = (
        Part("embedding", vocab_size * width, "VC"),
        Part("head", vocab_size * width, "VC"),
        Part("attention", depth * 4 * width**2, "L(4CC)"),
        Part("mlp", depth * 8 * width**2, "L(8CC)"),
    )
    return Reference(f"nanochat d{depth} 2025", parts, "karpathy/nanochat at 3a5e0bc, nanochat/gpt.py")


def nanochat_2026(depth: int, vocab_size: int = 32_768) -> Reference:
    """The nanochat of July 2026 (92d63d4): heads of 128, value embeddings on every other layer, smear and backout."""
    width = math.ceil(64 * depth / 128) * 128
    vocab_size, heads, value_layers = math.ceil(vocab_size / 64) * 64, width // 128, (depth + 1) // 2
    parts = (
        Part("embedding", vocab_size * width, "VC"),
        Part("head", vocab_size * width, "VC"),
        Part("value embeddings", value_layers * vocab_size * width, "ceil(L/2)VC"),
        Part("attention", depth * 4 * width**2 + value_layers * 12 * heads, "L(4CC) + ceil(L/2)12H"),
        Part("mlp", depth * 8 * width**2, "L(8CC)"),
        Part("scalars", 2 * depth + 26, "2L + 24 + 2"),
    )
    return Reference(f"nanochat d{depth} 2026", parts, "karpathy/nanochat at 92d63d4, nanochat/gpt.py")


def gpt2(name: str, width: int, depth: int, vocab_size: int = 50_257, positions: int = 1024) -> Reference:
    """GPT-2 (Radford et al. 2019): tied head, learned positions, LayerNorm and biases everywhere."""
    parts = (
        Part("embedding", vocab_size * width, "VC"),
        Part("positions", positions * width, "TC"),
        Part("attention", depth * (4 * width**2 + 4 * width), "L(4CC + 4C)"),
        Part("mlp", depth * (8 * width**2 + 5 * width), "L(8CC + 5C)"),
        Part("norms", depth * 4 * width + 2 * width, "L(4C) + 2C"),
    )
    return Reference(name, parts, "openai/gpt-2, src/model.py")


def llama(name: str, width: int, depth: int, mlp: int, vocab_size: int = 32_000) -> Reference:
    """LLaMA with one key head a query head (Touvron et al. 2023): untied head, RMSNorm gains, SwiGLU, no biases."""
    parts = (
        Part("embedding", vocab_size * width, "VC"),
        Part("head", vocab_size * width, "VC"),
        Part("attention", depth * 4 * width**2, "L(4CC)"),
        Part("mlp", depth * 3 * width * mlp, "L(3CF)"),
        Part("norms", depth * 2 * width + width, "L(2C) + C"),
    )
    return Reference(name, parts, "meta-llama/llama, llama/model.py")


REFERENCES: tuple[Reference, ...] = (
    *(nanochat_2025(depth) for depth in (1, 2, 4, 6, 20)),
    *(nanochat_2026(depth) for depth in (1, 2, 4, 6, 20)),
    gpt2("GPT-2", width=768, depth=12),
    gpt2("GPT-2 XL", width=1600, depth=48),
    llama("Llama-2-7B", width=4096, depth=32, mlp=11_008),
)
"""Reference rows: what the sizes of the ladder are held against."""
