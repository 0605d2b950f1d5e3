"""libfry beside PyTorch: the same scores to the precision of bf16, for every shape, and no trust in its input."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from smallfry.architecture import Variant
from smallfry.engine import native
from smallfry.errors import SmallfryError
from smallfry.evals.suites import transformer
from smallfry.evals.suites.scoring import Branch, Group
from smallfry.evals.suites.texts import OwnTexts
from smallfry.evals.suites.transformer import TransformerScorer, native_scorer
from smallfry.model import Transformer
from smallfry.sizes import Shape
from tests.test_suites import TOKENIZER

needs_library = pytest.mark.skipif(native.libfry() is None, reason="libfry was not built here: no C compiler")
SHAPES = {
    "ours": (Shape(301, 64, 2, 2, 2, 32, 96), Variant()),
    "grouped": (Shape(512, 96, 3, 4, 2, 64, 160), Variant()),
    "narrow heads": (Shape(299, 32, 2, 2, 1, 16, 48), Variant(rope_theta=500.0)),
    "wide heads": (Shape(700, 128, 2, 1, 1, 128, 208), Variant(norm_eps=1e-3)),
    "llama": (Shape(300, 64, 2, 2, 2, 32, 96, tie_embeddings=False, qk_norm=False), Variant()),
    "qwen2": (Shape(300, 64, 2, 2, 1, 32, 96, qk_norm=False), Variant(qkv_bias=True)),
}


def make(name: str) -> Transformer:
    torch.manual_seed(len(name))
    shape, variant = SHAPES[name]
    model = Transformer(shape, variant=variant)
    model.init_weights(torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.embed.weight.mul_(8)  # logits that differ, as those of a trained model
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        # What libfry reads is bf16: the same rounded weights for both.
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    return model.eval()


def groups(vocab: int, count: int = 30, seed: int = 0, longest: int = 200) -> list[Group]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        prefix = tuple(rng.integers(0, vocab, int(rng.integers(1, longest))).tolist())
        branches = [tuple(rng.integers(0, vocab, n).tolist()) for n in rng.integers(1, 40, int(rng.integers(1, 6)))]
        found.append(Group(prefix, tuple(Branch(b, int(rng.integers(0, len(b)))) for b in branches)))
    return found


@needs_library
@pytest.mark.parametrize("name", list(SHAPES))
def test_scores_are_those_of_pytorch(name: str) -> None:
    model = make(name)
    exact = TransformerScorer(name, model, OwnTexts(TOKENIZER))
    exact.native = None
    fast = TransformerScorer(name, make(name).to(torch.bfloat16), OwnTexts(TOKENIZER))
    assert fast.native is not None
    asked = groups(model.shape.vocab_size)
    pairs = [
        (a, b) for mine, theirs in zip(fast.score(asked), exact.score(asked), strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]  # fmt: skip
    each = np.array([(a.logprob - b.logprob) / b.tokens for a, b in pairs])
    scale = np.std([b.logprob / b.tokens for _, b in pairs])
    assert [a.tokens for a, _ in pairs] == [b.tokens for _, b in pairs]
    assert np.abs(each).mean() < 0.02 * scale and np.abs(each.mean()) < 0.01 * scale, (np.abs(each).mean(), scale)
    assert np.mean([a.greedy == b.greedy for a, b in pairs]) > 0.97


@needs_library
def test_company_and_threads_change_nothing() -> None:
    model = make("grouped").to(torch.bfloat16)
    scorer = TransformerScorer("x", model, OwnTexts(TOKENIZER))
    asked = groups(512, 40)
    together = scorer.score(asked)
    alone = [scorer.score([group])[0] for group in asked]
    assert together == alone
    results: dict[int, object] = {}

    def run(n: int) -> None:
        results[n] = scorer.score(asked)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results[n] == together for n in range(4))


@needs_library
def test_wrong_input_is_refused() -> None:
    scorer = native_scorer(make("ours").to(torch.bfloat16))
    assert scorer is not None
    one = np.array([1, 2, 3], dtype=np.int32)
    zero = np.zeros(3, dtype=np.int32)
    places = np.arange(3, dtype=np.int32)
    good = native.Rows(places[[0]].repeat(2) + np.array([0, 3], dtype=np.int32), np.array([3], dtype=np.int32), one,
                       places, zero, np.array([2], dtype=np.int32), np.array([7], dtype=np.int32))  # fmt: skip
    logprobs, greedy = scorer.score(good)
    assert np.isfinite(logprobs).all() and len(greedy) == 1
    bad = np.int32
    for change in (
        {"ids": np.array([1, 2, 301], dtype=bad)}, {"ids": np.array([1, -1, 3], dtype=bad)},
        {"targets": np.array([301], dtype=bad)}, {"targets": np.array([-5], dtype=bad)},
        {"places": np.array([3], dtype=bad)}, {"places": np.array([-1], dtype=bad)},
        {"prefix": np.array([0], dtype=bad)}, {"prefix": np.array([4], dtype=bad)},
        {"positions": np.array([0, 1, -2], dtype=bad)}, {"branch": np.array([0, 0, 5], dtype=bad)},
        {"row_start": np.array([0, 0], dtype=bad)}, {"row_start": np.array([1, 3], dtype=bad)},
    ):  # fmt: skip
        with pytest.raises(SmallfryError, match="wrong argument"):
            scorer.score(replace(good, **change))


def test_without_the_library_pytorch_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "kernel_sets", list)
    scorer = TransformerScorer("x", make("ours").to(torch.bfloat16), OwnTexts(TOKENIZER))
    assert scorer.native is None and len(scorer.score(groups(301, 3))) == 3


def test_it_is_built_where_there_is_a_compiler() -> None:
    import shutil
    from pathlib import Path

    if shutil.which("cc") is None or sys.platform != "linux":
        pytest.skip("no C compiler here")
    assert list(Path(native.__file__).parent.glob("_fry*.so"))
