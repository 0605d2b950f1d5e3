"""libfry's training kernels against double precision, every kernel set, both precisions, sizes that divide nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from smallfry import fused
from smallfry.engine import training
from smallfry.model import Transformer
from smallfry.sizes import Shape
from smallfry.training.optim import Optimizer

SETS = training.training_sets()
pytestmark = pytest.mark.skipif(not SETS, reason="libfry was not built: there was no C compiler")

# Relative to the norm of the right answer: a bf16 number has 8 bits, and a gradient is made of several roundings.
NEAR = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


@pytest.fixture(params=SETS or ["none"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    training.choose(request.param)
    yield request.param
    training.choose()


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def draw(seed: int, *shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def off(found: Tensor, right: Tensor) -> float:
    return float((found.double() - right).norm() / (right.norm() + 1e-12))


def compare(
    ours: Callable[..., tuple[Tensor, ...]], right: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor | None],
    near: float,
) -> None:  # fmt: skip
    """Outputs and gradients of all inputs, for random gradients of the outputs."""
    mine = [x if x is None else x.clone().requires_grad_() for x in inputs]
    theirs = [x if x is None else x.double().requires_grad_() for x in inputs]
    outs, rights = ours(*mine), right(*theirs)
    grads = [draw(90 + i, *o.shape, dtype=o.dtype) if o.dim() else torch.ones(()) for i, o in enumerate(outs)]
    torch.autograd.backward(outs, grads)
    torch.autograd.backward(rights, [g.double() for g in grads])
    for out, want in zip(outs, rights, strict=True):
        assert off(out.detach(), want.detach()) < near
    for x, want in zip(mine, theirs, strict=True):
        if x is not None and want is not None:
            assert x.grad is not None and want.grad is not None
            assert off(x.grad, want.grad) < near


def rms(x: Tensor, gain: Tensor, eps: float = 1e-6) -> Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * gain


@pytest.mark.parametrize("width", [3, 7, 16, 48, 129, 512])
def test_norm(kernels: str, dtype: torch.dtype, width: int) -> None:
    inputs: list[Tensor | None] = [draw(1, 3, 5, width, dtype=dtype), draw(2, width, dtype=dtype)]
    compare(lambda x, g: (fused.norm(x, g, 1e-6),), lambda x, g: (rms(x, g),), inputs, NEAR[dtype])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("width", [7, 64, 129])
def test_residual_sum_and_norm(kernels: str, dtype: torch.dtype, width: int, masked: bool) -> None:
    mask = (draw(3, 300, width, dtype=dtype) > 0).to(dtype) * 1.25 if masked else None
    inputs: list[Tensor | None] = [draw(1, 300, width, dtype=dtype), draw(2, 300, width, dtype=dtype)]

    def right(x: Tensor, u: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        total = x + u * (mask.double() if mask is not None else 1.0)
        return total, rms(total, g)

    compare(
        lambda x, u, g: fused.add_norm(x, u, mask, g, 1e-6), right, [*inputs, draw(4, width, dtype=dtype)], NEAR[dtype]
    )


def test_a_norm_alone_or_a_sum_alone_may_be_used(kernels: str) -> None:
    for which in (0, 1):
        x, u = (draw(i, 9, 24, dtype=torch.float32).requires_grad_() for i in (1, 2))
        gain = torch.ones(24, requires_grad=True)
        by = draw(3, 9, 24, dtype=torch.float32)
        (fused.add_norm(x, u, None, gain, 1e-6)[which] * by).sum().backward()
        y = x.detach().double().requires_grad_()
        total = y + u.detach().double()
        ((total if which == 0 else rms(total, torch.ones(24).double())) * by.double()).sum().backward()
        assert x.grad is not None and y.grad is not None and u.grad is not None
        assert off(x.grad, y.grad) < 1e-5 and off(u.grad, y.grad) < 1e-5


@pytest.mark.parametrize("width", [1, 31, 64, 100])
def test_swiglu(kernels: str, dtype: torch.dtype, width: int) -> None:
    def right(x: Tensor) -> tuple[Tensor, ...]:
        gate, up = x.chunk(2, -1)
        return (torch.nn.functional.silu(gate) * up,)

    wide = draw(1, 4, 3, 2 * width, dtype=dtype) * 4
    compare(lambda x: (fused.swiglu(x),), right, [wide], NEAR[dtype])


def test_swiglu_of_huge_numbers_is_finite(kernels: str, dtype: torch.dtype) -> None:
    x = torch.tensor([[-1e4, 1e4, -200.0, 0.0, 1.0, 1.0, 1.0, 1.0]]).to(dtype).requires_grad_()
    fused.swiglu(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("rows", "out", "width"), [(1, 5, 7), (33, 97, 48), (513, 64, 130), (1030, 32, 352)])
def test_linear(kernels: str, dtype: torch.dtype, rows: int, out: int, width: int) -> None:
    inputs: list[Tensor | None] = [draw(1, rows, 1, width, dtype=dtype), draw(2, out, width, dtype=dtype)]
    compare(lambda x, w: (fused.linear(x, w),), lambda x, w: (x @ w.t(),), inputs, NEAR[dtype])


def attention(qkv: Tensor, q_gain: Tensor | None, k_gain: Tensor | None, theta: float, h: fused.Heads) -> Tensor:
    """The textbook, in the precision of its arguments."""
    batch, length, _ = qkv.shape
    q, k, v = qkv.view(batch, length, -1, h.head_dim).transpose(1, 2).split([h.heads, h.kv_heads, h.kv_heads], dim=1)
    if q_gain is not None and k_gain is not None:
        q, k = rms(q, q_gain, h.eps), rms(k, k_gain, h.eps)
    angles = torch.outer(
        torch.arange(length, dtype=torch.float64),
        theta ** (-torch.arange(0, h.head_dim, 2, dtype=torch.float64) / h.head_dim),
    )
    cos, sin = angles.cos(), angles.sin()

    def turn(x: Tensor) -> Tensor:
        low, high = x.chunk(2, -1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)

    k, v = (x.repeat_interleave(h.heads // h.kv_heads, 1) for x in (turn(k), v))
    scores = turn(q) @ k.mT / math.sqrt(h.head_dim)
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    return (scores.masked_fill(hidden, -math.inf).softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1)


@pytest.mark.parametrize(
    ("batch", "length", "heads", "kv_heads", "head_dim", "normed"),
    [
        (1, 1, 1, 1, 64, False), (2, 7, 3, 3, 20, True), (1, 255, 2, 1, 64, True), (1, 33, 4, 2, 6, True),
        (2, 64, 1, 1, 128, False), (1, 40, 2, 2, 34, True), (3, 32, 2, 1, 32, True),
    ],
)  # fmt: skip
def test_attention(
    kernels: str, dtype: torch.dtype, batch: int, length: int, heads: int, kv_heads: int, head_dim: int, normed: bool
) -> None:
    if kernels == "plain" and length > 100:
        length //= 4  # one number at a time
    h = fused.Heads(heads, kv_heads, head_dim, 1e-6)
    gains: list[Tensor | None] = [None, None]
    if normed:
        gains = [draw(i, head_dim, dtype=dtype).abs() + 0.5 for i in (5, 6)]
    qkv = draw(1, batch, length, (heads + 2 * kv_heads) * head_dim, dtype=dtype)
    compare(
        lambda x, a, b: (fused.attention(x, a, b, 10000.0, h),), lambda x, a, b: (attention(x, a, b, 10000.0, h),),
        [qkv, *gains], NEAR[dtype],
    )  # fmt: skip


def test_a_table_that_was_made_while_answering_can_be_trained_with(kernels: str) -> None:
    fused.rotary.cache_clear()
    h, qkv = fused.Heads(1, 1, 8, 1e-6), draw(1, 1, 5, 24, dtype=torch.float32)
    with torch.inference_mode():
        fused.attention(qkv, None, None, 10000.0, h)
    qkv = qkv.clone().requires_grad_()
    fused.attention(qkv, None, None, 10000.0, h).sum().backward()
    assert qkv.grad is not None


def test_a_later_token_changes_nothing_before_it(kernels: str, dtype: torch.dtype) -> None:
    h = fused.Heads(2, 1, 16, 1e-6)
    qkv = draw(1, 1, 45, 64, dtype=dtype)
    other = qkv.clone()
    other[:, 40:] = draw(2, 1, 5, 64, dtype=dtype) * 100
    one, two = (fused.attention(x, None, None, 10000.0, h) for x in (qkv, other))
    assert torch.equal(one[:, :40], two[:, :40]) and not torch.equal(one[:, 40:], two[:, 40:])


def test_scores_far_apart_stay_finite(kernels: str, dtype: torch.dtype) -> None:
    h = fused.Heads(1, 1, 32, 1e-6)
    qkv = (draw(1, 1, 50, 96, dtype=dtype) * 40).requires_grad_()
    out = fused.attention(qkv, None, None, 10000.0, h)
    out.sum().backward()
    assert qkv.grad is not None and torch.isfinite(out).all() and torch.isfinite(qkv.grad).all()


@pytest.mark.parametrize(("rows", "vocab"), [(1, 257), (70, 257), (5, 16), (3, 5), (130, 64)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_head_and_loss(
    kernels: str, dtype: torch.dtype, rows: int, vocab: int, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_LOGITS", 64), ("_LOGIT_ROWS", 64), ("_MOST_LOGITS", 64)):
        monkeypatch.setattr(fused, name, value)  # several blocks of rows
    targets = torch.randint(vocab, (rows,), generator=torch.Generator().manual_seed(3))
    scales = draw(4, rows, dtype=torch.float32).abs()
    scales[rows // 2] = 0.0 if rows > 1 else 1.0

    def right(hidden: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        losses = torch.nn.functional.cross_entropy(
            hidden @ table.t(), targets, reduction="none", label_smoothing=smoothing
        )
        return ((losses * scales.double()).sum(),)

    inputs: list[Tensor | None] = [draw(1, rows, 24, dtype=dtype), draw(2, vocab, 24, dtype=dtype)]
    compare(lambda h, t: (fused.head_loss(h, t, targets, scales, smoothing),), right, inputs, NEAR[dtype])


def test_a_loss_that_is_scaled_scales_its_gradients() -> None:
    hidden, table = (draw(i, 6, 8, dtype=torch.float32).requires_grad_() for i in (1, 2))
    loss = fused.head_loss(hidden, table, torch.arange(6), torch.ones(6))
    (3.0 * loss).backward()
    want = torch.nn.functional.cross_entropy(hidden.detach() @ table.detach().t(), torch.arange(6), reduction="sum")
    assert float(loss.detach()) == pytest.approx(float(want), rel=1e-5)
    other = hidden.detach().clone().requires_grad_()
    torch.nn.functional.cross_entropy(other @ table.detach().t(), torch.arange(6), reduction="sum").backward()
    assert hidden.grad is not None and other.grad is not None
    assert off(hidden.grad, 3.0 * other.grad.double()) < 1e-5


def test_a_target_outside_the_vocabulary_is_refused() -> None:
    hidden, table = draw(1, 2, 8, dtype=torch.float32), draw(2, 5, 8, dtype=torch.float32)
    with pytest.raises(ValueError, match="wrong argument"):
        fused.head_loss(hidden, table, torch.tensor([1, 5]), torch.ones(2))


def test_what_is_left_over_stays_untouched(kernels: str, dtype: torch.dtype) -> None:
    """A kernel that wrote a whole register over a part of one would change its neighbour's numbers."""
    room = torch.full((3, 2, 21), 7.0).to(dtype)
    x = draw(1, 2, 21, dtype=dtype)
    args = training.SwigluArgs(
        fused.kind_of(x), 2, 10, draw(1, 2, 20, dtype=dtype).data_ptr(), room[1].flatten()[:20].data_ptr()
    )
    training.call("fry_swiglu_forward", args)
    assert (room[0] == 7).all() and (room[2] == 7).all() and (room[1].flatten()[20:] == 7).all()


# ---- the model and the optimizer -------------------------------------------------------------------------------------

SHAPE = Shape(97, 48, 2, 3, 1, 16, 72, True, True)


def make(dtype: torch.dtype, dropout: float = 0.0) -> Transformer:
    model = Transformer(SHAPE, dropout)
    model.init_weights(torch.Generator().manual_seed(0))
    return model.to(dtype)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_whole_model_is_the_plain_one(dropout: float) -> None:
    ids = torch.randint(97, (3, 37), generator=torch.Generator().manual_seed(1))
    gradients = []
    for plain in (False, True):
        model = make(torch.float32, dropout).train()
        model.drop.rng.seed("same")
        with fused.switched_off() if plain else nullcontext():
            hidden = model(ids)
        (hidden * draw(2, *hidden.shape, dtype=torch.float32)).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for ours, right in zip(*gradients, strict=True):
        assert off(ours, right.double()) < 2e-5


def test_fused_steps_are_the_written_out_ones(dtype: torch.dtype) -> None:
    states = []
    for plain in (False, True):
        model = make(dtype)
        with fused.switched_off() if plain else nullcontext():
            optimizer = Optimizer(model, 0.01, 0.02, 0.1, 0.9)
        generator = torch.Generator().manual_seed(1)
        for step in range(4):
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator).to(dtype)
                if step == 2:  # a sum of two
                    optimizer.accumulate()
                    p.grad = torch.randn(p.shape, generator=generator).to(dtype)
            norm = optimizer.step(0.5)
        states.append((norm, optimizer.state()[0]))
    (norm, ours), (right_norm, right) = states
    assert norm == pytest.approx(right_norm, rel=1e-2 if dtype == torch.bfloat16 else 1e-5)
    for name, tensor in ours.items():
        assert off(tensor, right[name].double()) < (2e-2 if dtype == torch.bfloat16 else 1e-4), name


def test_steps_are_those_of_torch() -> None:
    model = make(torch.float32)
    params = dict(model.named_parameters())
    copies = {n: torch.nn.Parameter(p.detach().clone()) for n, p in params.items()}
    matrices = [p for n, p in copies.items() if p.dim() == 2 and "blocks" in n]
    tables = [p for n, p in copies.items() if p.dim() == 2 and "blocks" not in n]
    gains = [p for p in copies.values() if p.dim() < 2]
    optimizer = Optimizer(model, 0.01, 0.02, 0.1, 0.0)
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95)
    adamw = torch.optim.AdamW(
        [{"params": tables, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}],
        lr=0.01, betas=(0.9, 0.98), eps=1e-8,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for name, p in params.items():
            p.grad = torch.randn(p.shape, generator=generator) * 1e-3
            copies[name].grad = p.grad.clone()
        optimizer.step(1.0)
        muon.step()
        adamw.step()
    for name, p in params.items():
        # torch's Newton-Schulz is in bf16 whatever the weights are
        assert off(p.detach(), copies[name].detach().double()) < (5e-3 if p.dim() == 2 and "blocks" in name else 1e-5)


def test_a_gradient_that_is_no_number_changes_nothing(dtype: torch.dtype) -> None:
    model = make(dtype)
    optimizer = Optimizer(model, 0.01, 0.02, 0.1, 0.9)
    before = {n: t.clone() for n, t in optimizer.state()[0].items()}
    for p in model.parameters():
        p.grad = torch.full_like(p, math.nan)
    assert not math.isfinite(optimizer.step(1.0))
    assert all(torch.equal(t, before[n]) for n, t in optimizer.state()[0].items())
    assert all(p.grad is None for p in model.parameters()) and optimizer.steps == 0


def test_threads_give_the_same_bits() -> None:
    torch_threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            training.set_threads(count)
            qkv = draw(1, 3, 130, 4 * 32, dtype=torch.float32).requires_grad_()
            gains = [torch.ones(32, requires_grad=True) for _ in range(2)]
            out = fused.attention(qkv, *gains, 10000.0, fused.Heads(2, 1, 32, 1e-6))
            normed = fused.norm(out, torch.ones(64), 1e-6)
            normed.square().sum().backward()
            dw = fused.weight_gradient(draw(2, 70, 100, dtype=torch.bfloat16), draw(3, 70, 66, dtype=torch.bfloat16))
            assert qkv.grad is not None and gains[0].grad is not None
            found.append((normed.detach(), qkv.grad, gains[0].grad, dw))
    finally:
        training.set_threads(1)
        torch.set_num_threads(torch_threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
