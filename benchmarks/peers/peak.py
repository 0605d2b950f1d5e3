"""What one core can do: the fastest of many matrix products, square ones and those of a training step."""

from __future__ import annotations

import time

import torch

from smallfry.sizes import Shape

Product = tuple[str, int, int, int]  # name, and m, k, n of (m, k) @ (k, n)
SQUARES = (512, 768, 1024, 1536, 2048)
SECONDS = 0.06  # spent on one product at least, and three repeats


def products_of(shape: Shape, tokens: int) -> list[Product]:
    """Square products, and the three of every linear layer of a shape: forward, gradient of inputs, of weights."""
    width, inner = shape.hidden_size, shape.intermediate_size
    layers = {
        "qkv": (width, 3 * width), "out": (width, width), "gate_up": (width, 2 * inner), "down": (inner, width),
        "head": (width, shape.vocab_size),
    }  # fmt: skip
    found: list[Product] = [(f"square {n}", n, n, n) for n in SQUARES]
    for name, (inputs, outputs) in layers.items():
        found.append((f"{name} forward", tokens, inputs, outputs))
        found.append((f"{name} input gradient", tokens, outputs, inputs))
        found.append((f"{name} weight gradient", outputs, tokens, inputs))
    return found


def flops_per_second(m: int, k: int, n: int, kind: str, dtype: torch.dtype) -> float:
    """The fastest of several repeats, operands laid out as training has them, into memory that is there."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(*((k, m) if kind == "weight" else (m, k)), generator=generator).to(dtype)
    b = torch.randn(*((n, k) if kind == "forward" else (k, n)), generator=generator).to(dtype)
    a, b = a.t() if kind == "weight" else a, b.t() if kind == "forward" else b
    out = torch.empty(m, n, dtype=dtype)
    torch.mm(a, b, out=out)
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < SECONDS:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        taken.append(time.perf_counter() - start)
    return 2 * m * k * n / min(taken)


def measure(products: list[Product]) -> dict[str, dict[str, float | str]]:
    """The best product in bf16 and in fp32: FLOP/s and its name."""
    found: dict[str, dict[str, float | str]] = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        speeds = {}
        for label, m, k, n in products:
            kind = "weight" if "weight" in label else "forward" if "forward" in label else "plain"
            speeds[label] = flops_per_second(m, k, n, kind, dtype)
        best = max(speeds, key=lambda s: speeds[s])
        found[name] = {"flops_per_second": speeds[best], "product": best}
    return found
