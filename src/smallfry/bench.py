"""This machine against its own limit: how fast models train here, and what holds them back."""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from smallfry import fused
from smallfry.data import Batch
from smallfry.engine import training
from smallfry.errors import SmallfryError
from smallfry.machine import compute_dtype, keep_freed_memory, threads_used
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.train import loss_of
from smallfry.training.optim import STEP_NAME, Optimizer
from smallfry.training.parallel import World

# Products whose speed is taken for the machine's: square ones, and those of a model's layers (rows, inputs, outputs).
PRODUCTS = ((768, 768, 768), (1024, 1024, 1024), (2048, 2048, 2048), (4096, 256, 768), (4096, 512, 2816))
PARTS = ("matrix products", "attention", "norms", "activation", "loss", "optimizer", "the rest")
_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Peaks:
    """The fastest matrix products of one core, FLOP/s; None where the precision is not native."""

    bf16: float | None
    fp32: float


@dataclass(slots=True)
class TrainSpeed:
    """How fast one model trains.

    Args:
        name: The size.
        params: Parameters.
        tokens: Tokens a step.
        seq_len: Tokens a row.
        micro_tokens: Tokens computed at once.
        threads: Threads, of all processes.
        precision: What is computed in.
        kernels: libfry's kernel set, or "PyTorch".
        tokens_per_second: Median over steps.
        flops_per_second: Model FLOP/s by `Shape.flops_per_token`.
        peaks: One core's products.
        memory_bytes: The process's largest resident size so far.
        parts: Share of a step's time by part.
    """

    name: str
    params: int
    tokens: int
    seq_len: int
    micro_tokens: int
    threads: int
    precision: str
    kernels: str
    tokens_per_second: float
    flops_per_second: float
    peaks: Peaks
    memory_bytes: int
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def bf16_share(self) -> float | None:
        """Of as many cores' bf16 products as there are threads."""
        return self.flops_per_second / (self.peaks.bf16 * self.threads) if self.peaks.bf16 else None

    @property
    def fp32_share(self) -> float:
        """Of as many cores' fp32 products as there are threads."""
        return self.flops_per_second / (self.peaks.fp32 * self.threads)

    @property
    def limit(self) -> str:
        """What a step waits for, in one line."""
        order = sorted(self.parts, key=lambda part: -self.parts[part])[:3]
        return ", ".join(f"{part} {self.parts[part]:.0%}" for part in order)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"bf16_share": self.bf16_share, "fp32_share": self.fp32_share, "limit": self.limit}


def measure_peaks(seconds: float = 0.15) -> Peaks:
    """The fastest of several matrix products on one core.

    Args:
        seconds: How long each product is repeated.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        native = compute_dtype(torch.device("cpu")) == torch.bfloat16
        bf16 = max(_product_speed(sizes, torch.bfloat16, seconds) for sizes in PRODUCTS) if native else None
        return Peaks(bf16, max(_product_speed(sizes, torch.float32, seconds) for sizes in PRODUCTS))
    finally:
        torch.set_num_threads(before)


def _product_speed(sizes: tuple[int, int, int], dtype: torch.dtype, seconds: float) -> float:
    rows, inputs, outputs = sizes
    left, right = torch.ones(rows, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype)
    best = float("inf")
    until = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        torch.nn.functional.linear(left, right)
        end = time.perf_counter()
        best = min(best, end - start)
        if end > until:
            return 2.0 * rows * inputs * outputs / best


def check_step(tokens: int, seq_len: int, micro_tokens: int | None = None) -> None:
    """See that a step, and what is computed at once, holds a row.

    Raises:
        SmallfryError: It does not.
    """
    least = min(tokens, micro_tokens or tokens)
    if least < seq_len:
        raise SmallfryError(f"{least} tokens hold no row of {seq_len}: ask for more a step, or for shorter rows")


class Step:
    """A training step over random tokens, as the training loop takes it.

    Args:
        shape: The model.
        tokens: Tokens a step.
        seq_len: Tokens a row.
        micro_tokens: Tokens computed at once.
        muon: Whether Muon moves the matrices.
        world: The processes that take the step together; each computes ``micro_tokens`` at once.

    Raises:
        SmallfryError: A step would have no row.
    """

    def __init__(
        self, shape: Shape, tokens: int, seq_len: int, micro_tokens: int, muon: bool = True, world: World | None = None
    ) -> None:
        check_step(tokens, seq_len, micro_tokens)
        self.world = world or World()
        device = self.world.device
        self.model = Transformer(shape)
        self.model.init_weights(torch.Generator().manual_seed(0))
        self.model = self.model.to(device, compute_dtype(device)).train()
        self.optimizer = Optimizer(self.model, 1e-3, 1e-2 if muon else 0.0, 0.1, 0.99)
        rng = np.random.default_rng(0)
        self.tokens = 0
        self._parts = []
        most = micro_tokens // seq_len * self.world.size
        for begin in range(0, tokens // seq_len, most):
            rows = min(most, tokens // seq_len - begin)
            ids = rng.integers(shape.vocab_size, size=(rows, seq_len + 1))
            part = Batch(ids[:, :-1], ids[:, 1:], np.ones((rows, seq_len), np.float32), np.arange(rows))
            self._parts.append(self.world.share(part))
            self.tokens += rows * seq_len

    def __call__(self) -> float:
        """Take a step; its seconds."""
        start = time.perf_counter()
        whole = len(self._parts) == 1 and self.world.size == 1
        for number, part in enumerate(self._parts):
            if number:
                self.optimizer.accumulate()
            loss, weight = loss_of(self.model, part)
            (loss if whole else loss * (weight / self.tokens)).backward()  # type: ignore[no-untyped-call]
        if self.world.size > 1:
            self.world.add(self.optimizer.sums)
        self.optimizer.step(1e-3)
        if self.model.embed.weight.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def measure_training(
    name: str, shape: Shape, tokens: int, seq_len: int, *, threads: int = 1, micro_tokens: int | None = None,
    seconds: float = 5.0, peaks: Peaks | None = None, world: World | None = None,
) -> TrainSpeed:  # fmt: skip
    """Train a model of random weights on random tokens for a while.

    Args:
        name: What the row is called.
        shape: The model.
        tokens: Tokens a step.
        seq_len: Tokens a row.
        threads: Threads.
        micro_tokens: Tokens computed at once; all of a step by default.
        seconds: How long, about; at least three steps.
        peaks: One core's products; measured when None.
        world: The processes that train together, each with ``threads``; all call this with the same arguments.
    """
    world = world or World()
    keep_freed_memory()
    peaks = peaks or measure_peaks()
    micro = min(tokens, micro_tokens or -(-tokens // world.size // seq_len) * seq_len)
    with threads_used(threads) as many:
        step = Step(shape, tokens, seq_len, micro, world=world)
        for _ in range(_WARM_UP):
            step()
        times: list[float] = []
        while world.sum(float(world.main and (sum(times) < seconds or len(times) < 3))):
            times.append(step())
        parts = step_parts(step)
    took = statistics.median(times)
    speed = step.tokens / took
    many *= world.size
    on_cpu = step.model.embed.weight.device.type == "cpu"
    return TrainSpeed(
        name, shape.params, step.tokens, seq_len, micro, many, str(step.model.embed.weight.dtype)[6:],
        training.training_sets()[0] if on_cpu and fused.available() else "PyTorch", speed,
        speed * shape.flops_per_token(seq_len), peaks, peak_memory(), parts,
    )  # fmt: skip


def step_parts(step: Callable[[], float]) -> dict[str, float]:
    """Shares of a step's time by `PARTS`: which of them each operation that PyTorch's profiler saw belongs to."""
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    sums = dict.fromkeys(PARTS, 0.0)
    for event in profile.events() or ():
        sums[_part_of(event)] += event.self_cpu_time_total
    total = sum(sums.values()) or 1.0
    return {part: value / total for part, value in sums.items()}


_PART_OF = {
    "Linear": "matrix products", "aten::mm": "matrix products", "aten::addmm": "matrix products",
    "aten::bmm": "matrix products", "Attention": "attention", "aten::_softmax": "attention", "Norm": "norms",
    "AddNorm": "norms", "RmsNorm": "norms", "SwiGLU": "activation", "aten::silu": "activation", "HeadLoss": "loss",
    "aten::_log_softmax": "loss",
}  # fmt: skip


def _part_of(event: Any) -> str:
    above = event
    while above is not None:
        if above.name == STEP_NAME:
            return "optimizer"
        above = above.cpu_parent
    return _PART_OF.get(event.name.removesuffix("Backward"), "the rest")


def peak_memory() -> int:
    """The process's largest resident size so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
