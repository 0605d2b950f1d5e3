"""The training loop: repeatable to the bit, resumable at any moment, never a negative learning rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallfry.data import Batch, JobData, Noise, bucket, padded_length
from smallfry.errors import CandidateError, SmallfryError
from smallfry.forms import Form, build_form
from smallfry.frames import FrameCodec
from smallfry.job import Example, Job
from smallfry.model import MaskPool, Transformer
from smallfry.recipes import larger_vocab, recipe_for
from smallfry.sizes import Shape
from smallfry.tokenizer import END, MASK, PAD
from smallfry.train import Progress, train
from smallfry.training.optim import Optimizer, schedule
from smallfry.training.runstate import DiskSaves
from tests.test_frames import slot_rows
from tests.training_runs import JOB, NOISE, RECIPE, ROWS, fit, fresh, make_form, one_line, weights

# ---- schedule -------------------------------------------------------------------------------------------------------


@given(st.floats(-10, 10), st.floats(0.001, 0.9), st.sampled_from(["linear", "cosine"]))
def test_the_learning_rate_factor_stays_between_zero_and_one(progress: float, warmup: float, kind: str) -> None:
    assert 0.0 <= schedule(progress, warmup, kind) <= 1.0


def test_the_schedule_rises_then_falls_to_zero() -> None:
    values = [schedule(p, 0.1) for p in np.linspace(0, 1, 101)]
    top = int(np.argmax(values))
    assert values[0] == 0.0 and top == 10 and values[top] == 1.0 and values[-1] == 0.0
    assert all(a <= b for a, b in pairwise(values[: top + 1]))
    assert all(a >= b for a, b in pairwise(values[top:]))


class Growing:
    """Data whose every epoch has more batches than the one before, as augmentation can make it."""

    def __init__(self, form: Form) -> None:
        self.inner = JobData(ROWS, form, Noise(), 0.0, 256, 0)

    def epoch(self, epoch: int) -> list[Batch]:
        """More and more of the same."""
        return self.inner.epoch(epoch) * (1 + epoch * 2)


def test_more_steps_than_planned_never_turn_the_learning_rate_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    factors: list[float] = []
    step = Optimizer.step
    monkeypatch.setattr(Optimizer, "step", lambda self, factor: (factors.append(factor), step(self, factor))[1])
    form = make_form()
    trained = train(fresh(form), Growing(form), replace(RECIPE, epochs=3))
    assert trained.finished and len(factors) > 3 * len(Growing(form).epoch(0))
    assert min(factors) >= 0.0
    assert factors[-1] < 0.05


# ---- data -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(16, 400))
def test_every_row_is_in_exactly_one_batch(lengths: list[int], batch_tokens: int) -> None:
    groups = bucket(lengths, batch_tokens, np.random.default_rng(0))
    assert sorted(i for g in groups for i in g) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or padded_length(max(lengths[i] for i in group)) * len(group) <= batch_tokens


def test_nothing_is_lost_and_only_answers_carry_loss() -> None:
    form = make_form()
    data = JobData(ROWS, form, Noise(), 0.0, 256, 0)
    seen = []
    for batch in data.plain():
        for ids, targets, w, row in zip(batch.ids, batch.targets, batch.weights, batch.rows, strict=True):
            example = ROWS[int(row)]
            expected = [*form.prompt_ids(example.input), *(form.answer_ids(example.input, example.output) or [])]
            got = [int(ids[0]), *[int(t) for t in targets if t != PAD]]
            assert got == expected
            assert [int(t) for t, x in zip(targets, w, strict=True) if x > 0] == expected[-2:]
            assert expected[-1] == END
            seen.append(int(row))
    assert sorted(seen) == list(range(len(ROWS)))


def test_epochs_depend_on_seed_and_number_alone() -> None:
    form = make_form()
    one, two = (JobData(ROWS, form, NOISE, 0.0, 256, 3) for _ in range(2))
    two.epoch(0)
    for a, b in zip(one.epoch(5), two.epoch(5), strict=True):
        assert np.array_equal(a.ids, b.ids) and np.array_equal(a.rows, b.rows)
    assert any(
        a.ids.shape != b.ids.shape or not np.array_equal(a.ids, b.ids)
        for a, b in zip(one.epoch(5), one.epoch(6), strict=False)
    )


def test_few_words_are_cut_in_many_ways_so_that_none_is_learned_by_heart() -> None:
    form = make_form()
    word = max((w for e in ROWS for w in form.tokenizer.words(" " + e.input)), key=len)
    rows = [Example(f"{word} {word}", ROWS[0].output)] * 400 + [Example("once", ROWS[0].output)]
    data = JobData(rows, form, Noise(bpe_dropout=0.3), 0.3, 4096, 0)

    def spellings(epoch: int) -> Counter[tuple[int, ...]]:
        return Counter(tuple(int(i) for i in ids) for batch in data.epoch(epoch) for ids in batch.ids)

    one, two = spellings(0), spellings(1)
    known = sum(count for ids, count in two.items() if ids in one)
    assert len(one) > 50 and known > 0.6 * len(rows)  # a new epoch is mostly what was seen before


def test_masks_hide_inputs_but_never_targets_or_markers() -> None:
    form = make_form()
    plain = JobData(ROWS, form, Noise(), 0.0, 256, 0)
    hidden = 0
    for batch in JobData(ROWS, form, Noise(token_mask=0.5), 0.0, 256, 0).epoch(0):
        assert not (batch.targets == MASK).any()
        hidden += int((batch.ids == MASK).sum())
    words = sum(len(form.prompt_ids(e.input)) - 2 for e in ROWS)
    assert 0.4 * words < hidden < 0.6 * words
    assert len(plain) == len(ROWS)


def test_swapped_values_stay_right() -> None:
    rows = slot_rows()
    codec = FrameCodec.learn(rows)
    job = Job("slots", "transform", tuple(rows), tuple(rows[:10]), tuple(rows[:10]), "exact_match")
    form = build_form(job, "inline", 300, True, codec)
    data = JobData(rows, form, Noise(swap=1.0), 0.0, 512, 0)
    swapped = data._swapped(np.random.default_rng(0))
    changed = 0
    for row, example in zip(swapped, data.examples, strict=True):
        ids = form.ids(row.answer)
        text = form.tokenizer.decode(form.ids(row.prompt)).strip()
        output = form.read(text, ids)
        changed += output != example.output
        head, _, pairs = output.partition(" | ")
        assert head == example.output.split(" | ")[0]
        for pair in pairs.split(" ; "):
            assert pair.split(" = ")[1] in text
    assert changed > len(rows) / 2


# ---- the loop -------------------------------------------------------------------------------------------------------


def test_same_seed_same_result_to_the_bit() -> None:
    one, two = fit(), fit()
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(fit(recipe=replace(RECIPE, seed=8))))


@pytest.mark.parametrize("stop_at", [1, 4, 11])
def test_stopped_and_resumed_is_the_same_to_the_bit(tmp_path: Path, stop_at: int) -> None:
    whole = fit()
    part = fit(tmp_path, stop_at=stop_at)
    assert not part.finished and part.steps == stop_at
    rest = fit(tmp_path, resume=True)
    assert rest.finished and rest.steps == whole.steps
    assert torch.equal(weights(whole), weights(rest))
    losses = [[p.train_loss for p in t.curve] for t in (whole, rest)]
    assert losses[0] == losses[1]


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    fit(tmp_path, stop_at=3)
    with pytest.raises(SmallfryError, match="another recipe"):
        fit(tmp_path, resume=True, recipe=replace(RECIPE, lr=0.1))


def test_training_learns() -> None:
    trained = fit(recipe=replace(RECIPE, epochs=20, lr=0.01))
    curve = trained.curve
    assert trained.notes == []
    assert curve[-1].train_loss < 0.3 * curve[0].train_loss


def test_half_an_epoch_is_half_an_epoch() -> None:
    form = make_form()
    batches = len(JobData(ROWS, form, NOISE, 0.0, 256, 7).epoch(0))
    trained = fit(recipe=replace(RECIPE, epochs=0.5))
    assert trained.steps == round(batches / 2)


def test_a_larger_rung_gets_a_larger_vocabulary_only_where_its_table_leaves_room() -> None:
    assert larger_vocab("0.25m", 2048) == 2048
    assert larger_vocab("1m", 2048) == 4096
    assert larger_vocab("1m", 8192) == 8192
    assert larger_vocab("0.1m", 2048) == 2048


def test_a_recipe_reads_small_data_often_and_huge_data_not_whole() -> None:
    epochs = [recipe_for(JOB, "units", tokens, 1_000_000, 0).epochs for tokens in (10**3, 500_000, 10**7, 10**9)]
    assert epochs[0] == 40 and epochs[1] == 10 and epochs[2] == 2 and 0 < epochs[3] < 0.1


def test_answering_at_length_between_two_steps_does_not_spoil_the_next() -> None:
    net = fresh(make_form()).eval()
    with torch.inference_mode():
        net(torch.zeros(1, 700, dtype=torch.long))  # longer than any table made so far
    net.train()
    net.logits(net(torch.zeros(2, 9, dtype=torch.long))).sum().backward()
    assert net.embed.weight.grad is not None


# ---- saving ---------------------------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_damaged_save_costs_what_came_after_the_one_before(tmp_path: Path) -> None:
    fit(tmp_path, stop_at=3)
    damage(tmp_path / "state-3.safetensors")
    said: list[str] = []
    resumed = fit(tmp_path, resume=True, say=said.append)
    assert torch.equal(weights(resumed), weights(fit())) and resumed.notes == []
    assert said == [f"{tmp_path}: state-3.safetensors: checksum differs; going on from step 0"]
    assert [f.name for f in tmp_path.glob("*.json")] == ["state-0.json"]  # no damaged save counts as one of two


def test_two_damaged_saves_are_refused(tmp_path: Path) -> None:
    fit(tmp_path, stop_at=3)
    for step in (0, 3):
        damage(tmp_path / f"state-{step}.safetensors")
    with pytest.raises(SmallfryError, match=r"no save is whole.*checksum differs") as caught:
        fit(tmp_path, resume=True)
    one_line(caught)


def test_without_resume_earlier_saves_are_replaced(tmp_path: Path) -> None:
    fit(tmp_path, stop_at=9)
    fit(tmp_path, stop_at=2)
    assert sorted(f.name for f in tmp_path.glob("*.json")) == ["state-0.json", "state-2.json"]


def test_a_full_disk_stops_the_run_with_the_last_save_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path, stop_at=3)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smallfry.training.runstate.write_tensors", full)
    with pytest.raises(
        SmallfryError, match=r"cannot save step 9 \(No space left.*step 3 is intact.*--resume"
    ) as caught:
        fit(tmp_path, resume=True, stop_at=9)
    one_line(caught)
    assert not isinstance(caught.value, CandidateError)  # no other candidate would fare better
    monkeypatch.undo()
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
    assert torch.equal(weights(fit(tmp_path, resume=True)), weights(fit()))


def test_another_model_or_other_data_do_not_resume(tmp_path: Path) -> None:
    fit(tmp_path, stop_at=3)
    form = make_form()
    model = Transformer(Shape(form.tokenizer.vocab_size, 64, 2, 1, 1, 64, 64))
    data = JobData(ROWS, form, NOISE, 0.0, RECIPE.batch_tokens, RECIPE.seed)
    with pytest.raises(SmallfryError, match="another model") as caught:
        train(model, data, RECIPE, run_dir=tmp_path, resume=True)
    one_line(caught)
    half = JobData(ROWS[:80], form, NOISE, 0.0, RECIPE.batch_tokens, RECIPE.seed)
    with pytest.raises(SmallfryError, match="with other data") as caught:
        train(fresh(form), half, RECIPE, run_dir=tmp_path, resume=True)
    one_line(caught)


def test_masks_drawn_by_torch_are_the_same_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskPool, "SIZE", 64)  # as in a model so large that the pool of masks does not serve it
    whole = fit()
    fit(tmp_path, stop_at=5)
    torch.rand(3)
    assert torch.equal(weights(fit(tmp_path, resume=True)), weights(whole))


@pytest.mark.parametrize(("seconds", "rest"), [(0.0, 20.0), (50.0, 50.0)])
def test_saving_takes_a_twentieth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, rest: float
) -> None:
    clock, saved = [0.0], []
    save = DiskSaves.save

    def slow(self: DiskSaves, tensors: Any, plain: dict[str, Any]) -> None:
        save(self, tensors, plain)
        clock[0] += 1.0
        saved.append(clock[0])

    monkeypatch.setattr("smallfry.train.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(DiskSaves, "save", slow)
    form = make_form()

    def watch(progress: Progress) -> None:
        clock[0] += 1.0

    data = JobData(ROWS, form, NOISE, 0.0, RECIPE.batch_tokens, RECIPE.seed)
    found = train(fresh(form), data, replace(RECIPE, epochs=12), run_dir=tmp_path, watch=watch, save_seconds=seconds)
    assert found.steps > 100 and len(saved) == 1 + (found.steps // int(rest))
    assert {b - a - 1.0 for a, b in pairwise(saved)} == {rest}


# ---- data that is made when asked for -------------------------------------------------------------------------------


@dataclass
class Lazy(Sequence[Batch]):
    """Batches of which each is made when asked for."""

    batches: list[Batch]
    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: Any) -> Any:
        self.asked.append(index)
        return self.batches[index]

    def __iter__(self) -> Iterator[Batch]:
        raise AssertionError("iterated over")


class LazyData:
    """Notes what is asked of it."""

    def __init__(self, form: Form) -> None:
        self.inner = JobData(ROWS, form, NOISE, 0.0, RECIPE.batch_tokens, RECIPE.seed)
        self.made: list[tuple[int, Lazy]] = []

    def epoch(self, epoch: int) -> Sequence[Batch]:
        self.made.append((epoch, Lazy(self.inner.epoch(epoch))))
        return self.made[-1][1]


class CountedLazyData(LazyData):
    """Knows its length without making anything."""

    def steps_per_epoch(self, epoch: int) -> int:
        return len(self.inner.epoch(epoch))


@pytest.mark.parametrize("kind", [LazyData, CountedLazyData])
def test_an_epoch_and_a_batch_are_asked_for_once(tmp_path: Path, kind: type[LazyData]) -> None:
    form = make_form()
    data = kind(form)
    found = train(fresh(form), data, RECIPE)
    assert torch.equal(weights(found), weights(fit()))
    assert [number for number, _ in data.made] == [0, 1, 2]
    assert all(lazy.asked == list(range(len(lazy))) for _, lazy in data.made)
    fit(tmp_path, stop_at=found.steps - 2)
    data = kind(form)
    resumed = train(fresh(form), data, RECIPE, run_dir=tmp_path, resume=True)
    assert torch.equal(weights(found), weights(resumed))
    assert [number for number, _ in data.made] == ([2] if kind is CountedLazyData else [0, 2])
    assert len(data.made[-1][1].asked) == 2


def test_data_without_a_batch_is_one_line() -> None:
    form = make_form()
    with pytest.raises(CandidateError, match="no batches") as caught:
        train(fresh(form), JobData((), form, Noise(), 0.0, 256, 0), RECIPE)
    one_line(caught)
