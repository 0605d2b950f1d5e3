"""Batches of a corpus: every token a target once a pass, any batch from its number alone, mixtures by their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallfry.corpus.rows import BLOCK_ROWS, CorpusData, mixture
from smallfry.corpus.shards import Corpus, TokenStream
from smallfry.data import Batch
from smallfry.tokenizer import BOS, PAD, Tokenizer

TOKENIZER = Tokenizer.train([], 263)
FIRST = 100  # the ids below are special or BOS; these tests number tokens from here on


def corpus(*lengths: int, weights: list[float | None] | None = None) -> Corpus:
    """Sources whose tokens are numbered, so that each can be told."""
    starts = np.cumsum([FIRST, *lengths])
    streams = [TokenStream([np.arange(a, a + n, dtype=np.uint32)]) for a, n in zip(starts, lengths, strict=False)]
    index = {"sources": [{"weight": w} for w in weights or [None] * len(lengths)]}
    return Corpus(Path("none"), index, TOKENIZER, [], streams)


def data(*lengths: int, seq_len: int = 8, batch: int = 32, seed: int = 0, **more: Any) -> CorpusData:
    return CorpusData(corpus(*lengths, **more), seq_len, batch, 5, seed)


def equal(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("ids", "targets", "weights", "rows"))


def targets(source: CorpusData, batches: range) -> np.ndarray:
    found = [source.batch(number) for number in batches]
    return np.concatenate([b.targets[b.weights > 0] for b in found])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5000), st.integers(2, 40), st.integers(0, 3))
def test_every_token_is_an_input_and_a_target_once_a_pass(tokens: int, seq_len: int, seed: int) -> None:
    source = data(tokens, seq_len=seq_len, batch=seq_len, seed=seed)  # one row a batch
    rows = -(-tokens // seq_len)
    for turn in range(2):
        batches = [source.batch(number) for number in range(turn * rows, (turn + 1) * rows)]
        read = np.concatenate([b.ids[b.weights > 0] for b in batches])
        assert sorted(read.tolist()) == list(range(FIRST, FIRST + tokens))
        for b in batches:
            told = b.weights > 0
            assert np.array_equal(b.targets[told], (b.ids[told] - FIRST + 1) % tokens + FIRST)
            assert (b.ids[~told] == PAD).all() and (b.targets[~told] == PAD).all()
    assert source.passes(rows) == [1.0]


def test_rows_of_many_groups_are_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smallfry.corpus.rows.GROUP_BLOCKS", 3)
    tokens = 4 * (BLOCK_ROWS * 10 + 17) + 1  # a partial row in a partial block
    source = data(tokens, seq_len=4, batch=4)
    assert sorted(targets(source, range(-(-tokens // 4)))) == list(range(FIRST, FIRST + tokens))


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    one, other = data(3000), data(3000)
    numbers = [7, 3, 200, 3, 7, 0, 95]
    seen = {number: one.batch(number) for number in numbers}
    assert all(equal(other.batch(number), seen[number]) for number in sorted(set(numbers)))
    assert not equal(data(3000, seed=1).batch(3), seen[3])
    assert all(equal(b, one.batch(10 + i)) for i, b in enumerate(one.epoch(2))) and len(one.epoch(2)) == 5
    assert equal(one.epoch(2)[-1], one.batch(14)) and len(one.epoch(0)[1:3]) == 2
    with pytest.raises(IndexError):
        one.epoch(0)[5]


def test_passes_differ_in_order_and_in_where_rows_are_cut() -> None:
    source = data(800, seq_len=8, batch=8)
    first = [source.batch(i).ids[0, 0] for i in range(100)]
    second = [source.batch(i).ids[0, 0] for i in range(100, 200)]
    assert set(first) == set(range(FIRST, FIRST + 800, 8)) and set(second) != set(first)
    assert first != sorted(first) and np.abs(np.diff(first)).mean() > 100  # neighbours are far apart


def test_a_beginning_is_no_target() -> None:
    ids = np.array([BOS, 50, 51, 3, BOS, 60, 61, 3], dtype=np.uint16)
    c = Corpus(Path("none"), {"sources": [{"weight": None}]}, TOKENIZER, [], [TokenStream([ids])])
    batch = CorpusData(c, 8, 8, 1, 0).batch(0)
    assert batch.ids[0].tolist() == ids.tolist() and batch.targets[0].tolist() == [*ids[1:].tolist(), BOS]
    assert batch.weights[0].tolist() == [1, 1, 1, 0, 1, 1, 1, 0] and batch.weights.dtype == np.float32
    assert batch.ids.dtype == batch.targets.dtype == np.int64 and batch.num_tokens == 8


def test_without_weights_sources_are_one() -> None:
    source = data(100, 60, seq_len=8, batch=16)
    assert sorted(targets(source, range(10))) == list(range(FIRST, FIRST + 160))


def test_a_mixture_takes_tokens_by_weight() -> None:
    source = data(8000, 8000, 800, seq_len=8, batch=64, weights=[3.0, None, 0.5])
    read = targets(source, range(540))
    shares = [((read >= low) & (read < high)).mean() for low, high in ((100, 8100), (8100, 16100), (16100, 17000))]
    assert shares == pytest.approx([3 / 4.5, 1 / 4.5, 0.5 / 4.5], abs=0.002)
    assert source.passes(540) == pytest.approx(
        [540 * 8 * s / r for s, r in zip(shares, (1000, 1000, 100), strict=True)]
    )
    small = read[read >= 16100]  # its own passes: after each every token was read as often as any other
    assert len(small) >= 4 * 800 and set(np.unique(small[:800], return_counts=True)[1].tolist()) == {1}


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=6))
def test_a_mixture_is_spread_evenly(weights: list[float]) -> None:
    pattern = mixture(weights)
    counts = np.bincount(pattern, minlength=len(weights))
    assert (counts >= 1).all()
    shares = np.array(weights) / sum(weights)
    assert np.abs(counts / len(pattern) - shares).max() < 0.002
    half = np.bincount(pattern[: len(pattern) // 2], minlength=len(weights))
    assert np.abs(half - counts / 2).max() <= 1.5


def test_a_batch_holds_at_least_one_row() -> None:
    assert data(500, seq_len=64, batch=10).batch(0).ids.shape == (1, 64)
    assert data(500, seq_len=8, batch=70).batch_tokens == 64
