"""The ladder: from a size such as ``1m`` to a shape, and the exact arithmetic of that shape.

Everything here is arithmetic on integers: nothing is trained and torch is not imported. The shapes are those of
`Qwen3ForCausalLM` (RMSNorm, rotary positions, QK-norm, SwiGLU, no biases, tied embeddings).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from smallfry.errors import SmallfryError
from smallfry.reference_models import REFERENCES, Reference

if TYPE_CHECKING:
    from rich.table import Table

Dtype = Literal["fp32", "bf16", "int8"]

RUNGS: tuple[str, ...] = ("0.25m", "0.5m", "1m", "2m", "5m", "10m", "20m", "50m", "100m")
"""The rungs of the ladder, smallest first."""

TOLERANCE = 0.10
"""How far the parameter count may be from the size's name, as a share of it."""

MAX_TABLE_SHARE = 0.90
"""How much of a size its embedding table may take; what is left must still hold two layers."""

SMALLEST_SIZE, LARGEST_SIZE = 50_000, 1_000_000_000
"""The sizes a name may ask for, in parameters."""

DEFAULT_FLOPS_PER_SECOND = 50e9
"""Matrix products of one ordinary CPU core in fp32, where nothing is measured: one that was did 44 to 97 GFLOP/s."""

TRAIN_EFFICIENCY: tuple[tuple[float, float], ...] = ((0.25e6, 0.21), (1e6, 0.28), (10e6, 0.39))
"""Share of a core's matrix-product speed that a training reaches, by parameters: whole trainings in bf16 on a core with
430 GFLOP/s (0.25m and 1m of docs/results/narrow/banking77.json, 10m of docs/results/sweep.json)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one decoder-only transformer, in the terms of `Qwen3Config`.

    Args:
        vocab_size: Rows of the embedding table.
        hidden_size: Width of the residual stream.
        num_layers: Transformer blocks.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; divides `num_heads`.
        head_dim: Width of one head; even, because rotary positions turn pairs.
        intermediate_size: Width of the SwiGLU hidden layer.
        tie_embeddings: The output head reuses the embedding table.
        qk_norm: Queries and keys each have an RMSNorm gain of `head_dim`.

    Raises:
        ValueError: If a number is not positive, `head_dim` is odd, or `num_kv_heads` does not divide `num_heads`.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    tie_embeddings: bool = True
    qk_norm: bool = True

    def __post_init__(self) -> None:
        counts = (self.vocab_size, self.hidden_size, self.num_layers, self.num_heads, self.num_kv_heads)
        if min(*counts, self.head_dim, self.intermediate_size) < 1:
            raise ValueError(f"every number of a shape must be at least 1: {self}")
        if self.head_dim % 2 or self.num_heads % self.num_kv_heads:
            raise ValueError(f"head_dim must be even and num_kv_heads must divide num_heads: {self}")

    def _matrices(self) -> Iterator[tuple[str, int, int, int]]:
        """Every weight matrix as (part, how many, rows = outputs, columns = inputs)."""
        hidden, layers = self.hidden_size, self.num_layers
        query, key = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        yield "embedding", 1 if self.tie_embeddings else 2, self.vocab_size, hidden
        yield "attention", layers, query, hidden
        yield "attention", 2 * layers, key, hidden
        yield "attention", layers, hidden, query
        yield "mlp", 2 * layers, self.intermediate_size, hidden
        yield "mlp", layers, hidden, self.intermediate_size

    @property
    def params_by_part(self) -> dict[str, int]:
        """Parameters of `embedding` (with the head if it is untied), `attention`, `mlp` and `norms`."""
        parts = dict.fromkeys(("embedding", "attention", "mlp"), 0)
        for part, count, rows, columns in self._matrices():
            parts[part] += count * rows * columns
        gains = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        return parts | {"norms": self.num_layers * gains + self.hidden_size}

    @property
    def params(self) -> int:
        """Exact number of parameters; a tied table is counted once, as `Qwen3ForCausalLM` does."""
        return sum(self.params_by_part.values())

    @property
    def matmul_params(self) -> int:
        """Weights that take part in a matrix product for every token: the blocks and the output head."""
        parts = self.params_by_part
        return parts["attention"] + parts["mlp"] + self.vocab_size * self.hidden_size

    def flops_per_token(self, seq_len: int) -> int:
        """Training FLOPs for one token, forward and backward.

        ``6 * matmul_params + 12 * layers * heads * head_dim * seq_len / 2``: a multiply-add is two FLOPs and the
        backward pass costs twice the forward pass (Kaplan et al. 2020, section 2.1); the attention term is that of
        Chowdhery et al. 2022 (PaLM), appendix B, halved because a causal token sees half the sequence on average.

        Args:
            seq_len: Tokens in a training sequence.

        Returns:
            FLOPs per token; norms, rotary positions, softmax and activations are left out.
        """
        return 6 * self.matmul_params + 6 * self.num_layers * self.num_heads * self.head_dim * seq_len

    def inference_flops_per_token(self, context: int) -> int:
        """FLOPs to produce one token that attends to `context` positions, itself included.

        ``2 * matmul_params + 4 * layers * heads * head_dim * context``: the forward third of
        :meth:`flops_per_token`, with the context as it is and not averaged over a sequence.
        """
        return 2 * self.matmul_params + 4 * self.num_layers * self.num_heads * self.head_dim * context

    def bytes(self, dtype: Dtype = "bf16") -> int:
        """Bytes of the weights alone.

        Args:
            dtype: `fp32` (4 bytes each), `bf16` (2 bytes each) or `int8`: one byte a matrix weight, one 4-byte scale
                a matrix row, and norm gains left in fp32.
        """
        if dtype != "int8":
            return self.params * {"fp32": 4, "bf16": 2}[dtype]
        matrices = sum(count * rows * (columns + 4) for _, count, rows, columns in self._matrices())
        return matrices + 4 * self.params_by_part["norms"]

    def kv_cache_bytes(self, seq_len: int, dtype: Literal["fp32", "bf16"] = "bf16") -> int:
        """Bytes of the keys and values of `seq_len` positions: two vectors a layer, position and key head."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * seq_len * {"fp32": 4, "bf16": 2}[dtype]


@dataclass(frozen=True, slots=True)
class Rung:
    """One size on the ladder with its arithmetic.

    Args:
        name: The size's name, such as `1m`.
        shape: The shape at the vocabulary in use.
        params: Exact parameters.
        flops: Training FLOPs per token at the sequence length the ladder was asked for.
        bytes: Bytes of the weights in bf16.
    """

    name: str
    shape: Shape
    params: int
    flops: int
    bytes: int


def parse_size(size: str) -> int:
    """Read a size's name.

    Args:
        size: A number followed by `k`, `m` or `b`: `750k`, `3.5m`, `0.1b`, in either case.

    Returns:
        Parameters.

    Raises:
        SmallfryError: If it is not such a name or is outside 50k to 1b.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})([kmb])", size.strip().lower(), re.ASCII)
    if match is None:
        raise SmallfryError(
            f"size {size!r} is not a size: expected a number with k, m or b; use a rung ({', '.join(RUNGS)}) "
            "or a size like 750k or 3.5m"
        )
    params = round(float(match[1]) * {"k": 10**3, "m": 10**6, "b": 10**9}[match[2]])
    if not SMALLEST_SIZE <= params <= LARGEST_SIZE:
        raise SmallfryError(f"size {size!r} is {params:,} parameters: expected 50k to 1b; use a rung such as 1m")
    return params


def shape_for(size: str, vocab_size: int) -> Shape:
    """The shape of a size at a vocabulary: the allowed shape with the lowest preference cost.

    Allowed are widths that are a multiple of 32 up to 128 and of 64 above (and 160); heads of 32 below width 128 and
    of 64 from there on where they divide the width (faster on CPUs), one key head a query head; MLPs a multiple of 32
    between 2 and 4 widths; depths from half to six times the preferred depth, from 2; tables of at most 90% and totals
    within 10% of the size. The cost, in natural logarithms so that twice as deep is as bad as half as deep, is

    - ``|ln(depth / preferred)|``, preferred depth ``4 * (width / 128) ** (2/3)``: 4 layers at 128, 6 at 256, 13 at 768;
    - ``+ |ln(mlp / (8/3 * width))|``, the SwiGLU width that equals a 4x MLP in parameters (Shazeer 2020);
    - ``+ 0.1`` for a width of 160, or one above 384 that is not a multiple of 128: only where they fit clearly better;
    - ``+ (ln(params / size) / 0.06) ** 2``: 3% off costs 0.25, 1% next to nothing.

    The last term is convex in the size's logarithm, so a larger size never has fewer parameters (Topkis 1978).

    Args:
        size: A rung's name or any size from 50k to 1b such as `750k` or `3.5m`.
        vocab_size: Rows of the embedding table, from 2.

    Returns:
        A shape whose parameters are within 10% of the size.

    Raises:
        SmallfryError: If the size is not one, or no shape of it holds the vocabulary; the message names the largest
            smaller vocabulary that fits.
    """
    target = parse_size(size)
    if vocab_size < 2:
        raise SmallfryError(f"vocabulary of {vocab_size} tokens: expected at least 2; plain bytes need 256")
    shape = _search(target, vocab_size)
    if shape is not None:
        return shape
    fitting = [most for width in _widths() if (most := _most_tokens(target, width)) < vocab_size]
    raise SmallfryError(
        f"a vocabulary of {vocab_size:,} does not fit a {size} model: its table leaves too few parameters for layers; "
        f"the largest that fits is {max(fitting):,}: use that or a larger size"
    )


def ladder(vocab_size: int, seq_len: int = 256) -> list[Rung]:
    """The rungs that hold a vocabulary, smallest first.

    Args:
        vocab_size: Rows of the embedding table.
        seq_len: Tokens in a training sequence, for the FLOPs.

    Returns:
        One rung for each name in `RUNGS` that can hold the vocabulary: small rungs drop out as it grows.

    Raises:
        SmallfryError: If not even the largest rung can hold it.
    """
    rungs: list[Rung] = []
    for name in RUNGS:
        try:
            shape = shape_for(name, vocab_size)
        except SmallfryError:
            if name == RUNGS[-1] and not rungs:
                raise
            continue
        rungs.append(Rung(name, shape, shape.params, shape.flops_per_token(seq_len), shape.bytes("bf16")))
    return rungs


def train_efficiency(params: int, table: Sequence[tuple[float, float]] = TRAIN_EFFICIENCY) -> float:
    """Share of the machine's matrix-product speed that training reaches.

    Args:
        params: Size of the model.
        table: (parameters, share) pairs, ascending. Between them the share is interpolated in log parameters; below
            the first pair the first slope goes on (smaller products waste more), above the last pair it is flat.

    Returns:
        A share between 0.05 and 1.

    Raises:
        ValueError: If the table is empty or not ascending, or a share is not in (0, 1].
    """
    sizes, shares = [size for size, _ in table], [share for _, share in table]
    if not table or sizes != sorted(set(sizes)) or sizes[0] <= 0 or min(shares) <= 0 or max(shares) > 1:
        raise ValueError("the efficiency table needs ascending sizes and shares in (0, 1]")
    if len(table) == 1 or params >= sizes[-1]:
        return max(shares[-1], 0.05)
    upper = next(i for i in range(1, len(sizes)) if params < sizes[i])
    run = math.log(sizes[upper] / sizes[upper - 1])
    share = shares[upper - 1] + (shares[upper] - shares[upper - 1]) * math.log(params / sizes[upper - 1]) / run
    return min(max(share, 0.05), 1.0)


def estimate_seconds(
    shape: Shape,
    tokens: int,
    flops_per_second: float = DEFAULT_FLOPS_PER_SECOND,
    *,
    seq_len: int = 256,
    efficiency: Sequence[tuple[float, float]] = TRAIN_EFFICIENCY,
) -> float:
    """Seconds to train a shape on a number of tokens.

    Args:
        shape: What is trained.
        tokens: Tokens seen, all epochs together.
        flops_per_second: Matrix-product speed of the machine, as measured.
        seq_len: Tokens in a training sequence.
        efficiency: Share of that speed training reaches, by parameters; see :func:`train_efficiency`.

    Raises:
        ValueError: If the speed is not positive or the table is not one.
    """
    if not flops_per_second > 0:
        raise ValueError(f"flops_per_second must be positive, got {flops_per_second}")
    share = train_efficiency(shape.params, efficiency)
    return tokens * shape.flops_per_token(seq_len) / (flops_per_second * share)


def render_ladder(
    vocab_size: int,
    tokens: int = 20_000_000,
    flops_per_second: float = DEFAULT_FLOPS_PER_SECOND,
    *,
    seq_len: int = 256,
    references: Sequence[Reference] = REFERENCES,
) -> Table:
    """The ladder as a table for the terminal.

    Args:
        vocab_size: Rows of the embedding table.
        tokens: Training tokens the time is for.
        flops_per_second: Matrix-product speed of this machine.
        seq_len: Tokens in a training sequence.
        references: Rows below the ladder that are computed, not trained.

    Raises:
        SmallfryError: If no rung can hold the vocabulary.
    """
    rungs = ladder(vocab_size, seq_len)
    missing = [name for name in RUNGS if name not in {rung.name for rung in rungs}]
    speed = f"{flops_per_second / 1e9:,.0f} GFLOP/s"
    caption = f"Times: {tokens:,} tokens on one core at {speed}, sequences of {seq_len}. *: computed, not trained."
    if missing:
        caption += f" Too small for this vocabulary: {', '.join(missing)}."
    title = f"Ladder at a vocabulary of {vocab_size:,} (shape: layers x width / heads)"
    from rich import box  # not where a model is only loaded
    from rich.table import Table

    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=0)
    table.add_column("rung and shape", no_wrap=True)
    for header in ("parameters", "tables", "attn", "MLP", "FLOPs", "bf16", "time"):
        table.add_column(header, justify="right", no_wrap=True)
    for rung in rungs:
        shape, parts = rung.shape, rung.shape.params_by_part
        dims = f"{shape.num_layers}x{shape.hidden_size}/{shape.num_heads}"
        counts = [_short(parts[part]) for part in ("embedding", "attention", "mlp")]
        size = _short(shape.bytes("bf16"), "B")
        time = _duration(estimate_seconds(shape, tokens, flops_per_second, seq_len=seq_len))
        table.add_row(f"{rung.name:<5} {dims}", f"{rung.params:,}", *counts, _short(rung.flops), size, time)
    table.add_section()
    for row in references:
        by_part = {part.name: _short(part.params) for part in row.parts}
        counts = [_short(row.tables), *(by_part.get(part, "") for part in ("attention", "mlp"))]
        table.add_row(f"{row.name} *", f"{row.params:,}", *counts, "", _short(2 * row.params, "B"))
    return table


def _widths() -> Iterator[int]:
    yield from (32, 64, 96, 128, 160)
    yield from range(192, 4096 + 1, 64)


def _depths(width: int) -> range:
    preferred = _preferred_depth(width)
    return range(max(2, math.ceil(preferred / 2)), math.floor(6 * preferred) + 1)


def _preferred_depth(width: int) -> float:
    return 4 * float((width / 128) ** (2 / 3))


def _make(vocab_size: int, width: int, depth: int, mlp: int) -> Shape:
    head_dim = 64 if width >= 128 and width % 64 == 0 else 32
    heads = width // head_dim
    return Shape(vocab_size, width, depth, heads, heads, head_dim, mlp)


def _most_tokens(target: int, width: int) -> int:
    """The largest vocabulary a width can have: its table may not be too large, nor its smallest shape."""
    blocks = _make(1, width, _depths(width)[0], 2 * width).params - width
    return math.floor(min(target * MAX_TABLE_SHARE, target * (1 + TOLERANCE) - blocks) / width)


def _candidates(target: int, vocab_size: int) -> Iterator[Shape]:
    """Every allowed shape whose parameters are within the tolerance of `target`."""
    low, high = target * (1 - TOLERANCE), target * (1 + TOLERANCE)
    for width in _widths():
        if vocab_size * width > target * MAX_TABLE_SHARE:
            return
        for depth in _depths(width):
            # The count is linear in the MLP width: solve for it instead of trying every one.
            first = _make(vocab_size, width, depth, 32).params
            step = 3 * 32 * width * depth
            fewest = max(math.ceil(2 * width / 32), 1 + math.ceil((low - first) / step))
            most = min(4 * width // 32, 1 + math.floor((high - first) / step))
            for units in range(fewest, most + 1):
                yield _make(vocab_size, width, depth, 32 * units)


def _cost(shape: Shape, target: int) -> float:
    width = shape.hidden_size
    uneven = width == 160 or (width > 384 and width % 128 != 0)
    depth_cost = abs(math.log(shape.num_layers / _preferred_depth(width)))
    mlp_cost = abs(math.log(3 * shape.intermediate_size / (8 * width)))
    return depth_cost + mlp_cost + 0.1 * uneven + (math.log(shape.params / target) / 0.06) ** 2


@lru_cache(maxsize=1024)
def _search(target: int, vocab_size: int) -> Shape | None:
    candidates = _candidates(target, vocab_size)
    return min(candidates, key=lambda shape: (_cost(shape, target), shape.params, shape.hidden_size), default=None)


def _short(value: float, unit: str = "") -> str:
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:#.3g}".rstrip(".") + letter + unit
    return f"{value:.0f}{unit}"


def _duration(seconds: float) -> str:
    for scale, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= scale:
            return f"{seconds / scale:.1f}{unit}"
    return f"{seconds:.0f}s"
