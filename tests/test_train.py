"""The training loop: repeatable to the bit, resumable at any moment, never a negative learning rate."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import smallfry.train
import smallfry.training.loss
from smallfry.data import Batch, JobData, Noise, bucket, padded_length
from smallfry.errors import CandidateError, SmallfryError
from smallfry.forms import Form, build_form
from smallfry.frames import FrameCodec
from smallfry.job import Example, Job
from smallfry.model import MaskPool, Transformer
from smallfry.recipes import larger_vocab, recipe_for
from smallfry.sizes import Shape
from smallfry.tokenizer import END, MASK, PAD
from smallfry.train import Progress, Recipe, Trained, loss_of, mean_loss, train
from smallfry.training.guard import PATIENCE
from smallfry.training.microbatch import MicroBatches, out_of_memory
from smallfry.training.optim import Optimizer, schedule
from smallfry.training.runstate import DiskSaves
from tests.test_frames import slot_rows

COLOURS = ("red", "green", "blue", "black")
ROWS = tuple(Example(f"the {c} thing number {i}", c) for i in range(40) for c in COLOURS)
JOB = Job("colours", "classify", ROWS, ROWS[:20], ROWS[:20], "accuracy")
NOISE = Noise(token_mask=0.1, bpe_dropout=0.1)
RECIPE = Recipe(epochs=3, batch_tokens=256, noise=NOISE, dropout=0.1, seed=7)


@cache
def make_form() -> Form:
    return build_form(JOB, "units", 300, True, None)


def fresh(form: Form, seed: int = 7, dropout: float = 0.1) -> Transformer:
    torch.set_num_threads(1)
    shape = Shape(form.tokenizer.vocab_size, 32, 2, 1, 1, 32, 64)
    model = Transformer(shape, dropout)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def fit(
    run_dir: Path | None = None, resume: bool = False, stop_at: int | None = None, recipe: Recipe = RECIPE, **more: Any
) -> Trained:
    form = make_form()

    def watch(progress: Progress) -> None:
        if progress.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    data = JobData(ROWS, form, recipe.noise, recipe.prompt_loss, recipe.batch_tokens, recipe.seed)
    model = fresh(form, dropout=recipe.dropout)
    return train(model, data, recipe, run_dir=run_dir, resume=resume, watch=watch, **more)


def weights(trained: Trained) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


def one_line(caught: pytest.ExceptionInfo[SmallfryError]) -> None:
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


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


# ---- memory ---------------------------------------------------------------------------------------------------------

PLAIN = replace(RECIPE, dropout=0.0, noise=Noise(), batch_tokens=512, prompt_loss=0.3)


def plain_batch() -> Batch:
    return max(JobData(ROWS, make_form(), Noise(), 0.3, 512, 0).epoch(0), key=lambda batch: batch.num_tokens)


@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 900))
def test_parts_hold_every_row_once_and_need_not_divide_anything(rows: int, length: int, tokens: int) -> None:
    ids = np.arange(rows * length).reshape(rows, length)
    parts = MicroBatches(tokens).parts(Batch(ids, ids + 1, ids.astype(np.float32), np.arange(rows)))
    for name, whole in (("ids", ids), ("targets", ids + 1), ("weights", ids), ("rows", np.arange(rows))):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), whole)
    sizes = [len(part.rows) for part in parts]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1
    assert all(part.num_tokens <= tokens or len(part.rows) == 1 for part in parts)
    assert len(parts) == 1 or rows * length > tokens


def gradients(model: Transformer, parts: list[Batch], whole: float) -> Tensor:
    for p in model.parameters():
        p.grad = None
    for part in parts:
        loss, weight = loss_of(model, part, 0.1)
        (loss * (weight / whole)).backward()  # type: ignore[no-untyped-call]
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("tokens", [1, 30, 100, 333])
def test_the_gradient_of_the_parts_is_that_of_the_batch(tokens: int) -> None:
    batch, model = plain_batch(), fresh(make_form()).eval()
    weight = float(batch.weights.sum())
    whole = gradients(model, [batch], weight)
    parts = MicroBatches(tokens).parts(batch)
    assert len(parts) > 1
    torch.testing.assert_close(gradients(model, parts, weight), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 100, 300])
def test_a_run_in_parts_is_the_same_up_to_rounding(tokens: int) -> None:
    whole, parts = fit(recipe=PLAIN), fit(recipe=PLAIN, micro_tokens=tokens)
    assert whole.tokens == parts.tokens and whole.steps == parts.steps
    losses = [[p.train_loss for p in t.curve] for t in (whole, parts)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
    assert fit(recipe=PLAIN, micro_tokens=10**6).curve[-1].train_loss == losses[0][-1]


ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"
    ),
    "python": MemoryError(),
}


def short_of_memory(monkeypatch: pytest.MonkeyPatch, tokens: int, error: BaseException, at: int = 0) -> list[int]:
    """A machine whose memory holds so many tokens from the ``at``-th call on; returns the sizes that were tried."""
    tried: list[int] = []

    def tight(model: Transformer, batch: Batch, smoothing: float = 0.0) -> tuple[Tensor, float]:
        tried.append(batch.num_tokens)
        found = loss_of(model, batch, smoothing)
        if batch.num_tokens > tokens and len(tried) > at:
            found[0].backward()  # type: ignore[no-untyped-call]  # leaves half of a gradient behind
            raise error
        return found

    monkeypatch.setattr(smallfry.train, "loss_of", tight)
    return tried


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_out_of_memory_halves_the_parts_and_goes_on(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    whole = fit(recipe=PLAIN)
    tried = short_of_memory(monkeypatch, 130, error)
    said: list[str] = []
    found = fit(recipe=PLAIN, say=said.append)
    assert found.finished and found.steps == whole.steps and found.tokens == whole.tokens
    np.testing.assert_allclose(found.curve[-1].train_loss, whole.curve[-1].train_loss, rtol=2e-3)
    limits = [int(n) for n in re.findall(r"at most (\d+) tokens", "\n".join(said))]
    assert len(said) == len(limits) >= 2 and limits == sorted(set(limits), reverse=True)  # once per halving
    assert found.notes == said
    assert max(tried[len(tried) // 2 :]) <= 130


def test_a_part_that_fails_leaves_nothing_of_its_batch_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [p.train_loss for p in fit(recipe=PLAIN, micro_tokens=200).curve]
    short_of_memory(monkeypatch, 90, ERRORS["gpu"], at=8)  # after whole parts of a batch, and steps, went well
    found = fit(recipe=PLAIN, micro_tokens=200)
    assert len(found.notes) == 1
    np.testing.assert_allclose([p.train_loss for p in found.curve], before, rtol=2e-3)


def test_the_size_found_is_saved_and_resumed_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(monkeypatch, 130, ERRORS["cpu"])
    whole = fit()
    fit(tmp_path, stop_at=7)
    monkeypatch.undo()  # the resumed run has memory enough, and still computes the parts that the first one did
    for given_tokens in (None, 10**6):
        resumed = fit(tmp_path, resume=True, micro_tokens=given_tokens)
        assert torch.equal(weights(resumed), weights(whole)) and resumed.notes == whole.notes
    assert not torch.equal(weights(fit()), weights(whole))


def test_a_row_that_does_not_fit_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(monkeypatch, 5, ERRORS["cpu"])
    with pytest.raises(CandidateError, match=r"a single row of \d+ tokens does not fit") as caught:
        fit()
    one_line(caught)


def test_other_errors_are_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(monkeypatch, 5, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        fit()


@pytest.mark.parametrize("make", [lambda: torch.empty(1 << 50), lambda: np.empty(1 << 50)])
def test_what_the_allocators_really_say_is_known(make: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        make()
    assert out_of_memory(caught.value)


def test_an_optimizer_that_does_not_fit_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Optimizer, factor: float) -> float:
        raise ERRORS["cpu"]

    monkeypatch.setattr(Optimizer, "step", fail)
    with pytest.raises(CandidateError, match="the model and its optimizer do not fit") as caught:
        fit()
    one_line(caught)


def test_a_validation_loss_is_measured_in_parts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, model = JobData(ROWS, make_form(), Noise(), 0.3, 512, 0).plain(), fresh(make_form())
    whole = mean_loss(model, batches)
    with torch.no_grad():
        tried: list[int] = []

        def tight(model: Transformer, batch: Batch, smoothing: float = 0.0) -> tuple[Tensor, float]:
            tried.append(batch.num_tokens)
            if batch.num_tokens > 100:
                raise ERRORS["gpu"]
            return loss_of(model, batch, smoothing)

        monkeypatch.setattr(smallfry.training.loss, "loss_of", tight)
        assert mean_loss(model, batches) == pytest.approx(whole, rel=1e-5)
    assert max(tried) > 100


# ---- going back -----------------------------------------------------------------------------------------------------


class Saboteur:
    """Breaks the losses of a training at given calls, and notes what the loop does about it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: Callable[[int], float]) -> None:
        self.calls = 0
        self.rows: list[tuple[int, ...]] = []
        self.factors: list[float] = []
        step = Optimizer.step

        def loss(model: Transformer, batch: Batch, smoothing: float = 0.0) -> tuple[Tensor, float]:
            self.rows.append(tuple(batch.rows.tolist()))
            found, weight = loss_of(model, batch, smoothing)
            add = broken(self.calls)
            self.calls += 1
            return found + add, weight

        def noted(optimizer: Optimizer, factor: float) -> float:
            self.factors.append(factor)
            return step(optimizer, factor)

        monkeypatch.setattr(smallfry.train, "loss_of", loss)
        monkeypatch.setattr(Optimizer, "step", noted)


LONG = replace(RECIPE, epochs=13, warmup=0.0, noise=Noise())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_goes_back_with_half_the_rate(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    saboteur = Saboteur(monkeypatch, lambda call: value if call == 12 else 0.0)
    said: list[str] = []
    found = fit(recipe=LONG, say=said.append)
    assert found.finished and bool(torch.isfinite(weights(found)).all())
    assert found.notes == said and len(said) == 1
    assert f"step 12: the loss is {value}; went back to step 0 and on with 0.5 of the learning rates" in said[0]
    assert saboteur.rows[:12] == saboteur.rows[13:25]  # the same batches are read again
    assert found.steps == len(saboteur.factors) - 12 == saboteur.calls - 13
    first, again = saboteur.factors[:12], saboteur.factors[12:24]
    assert again == [0.5 * factor for factor in first]


def test_a_gradient_that_is_no_number_goes_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    step, calls, model = Optimizer.step, [0], fresh(make_form())

    def broken(self: Optimizer, factor: float) -> float:
        calls[0] += 1
        if calls[0] == 9:
            for p in model.parameters():
                p.grad = torch.full_like(p, torch.inf)
        return step(self, factor)

    monkeypatch.setattr(Optimizer, "step", broken)
    found = train(model, JobData(ROWS, make_form(), Noise(), 0.0, RECIPE.batch_tokens, RECIPE.seed), LONG)
    assert found.finished and bool(torch.isfinite(weights(found)).all())
    assert len(found.notes) == 1 and "step 8: the gradient's norm is" in found.notes[0]


def test_a_loss_that_explodes_goes_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    saboteur = Saboteur(monkeypatch, lambda call: 7.0 if 70 <= call < 70 + PATIENCE else 0.0)
    found = fit(recipe=LONG)
    assert found.finished and saboteur.calls == found.steps + 70 + PATIENCE
    assert len(found.notes) == 1 and re.search(r"step 90: the loss rose to .*; went back to step 0", found.notes[0])


def test_a_spike_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Saboteur(monkeypatch, lambda call: 7.0 if 70 <= call < 70 + PATIENCE - 1 else 0.0)
    assert fit(recipe=LONG).notes == []


def test_the_third_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    saboteur = Saboteur(monkeypatch, lambda call: float("nan") if call % 10 == 9 else 0.0)
    said: list[str] = []
    with pytest.raises(CandidateError, match=r"step 9: the loss is nan, after going back 2 times") as caught:
        fit(recipe=LONG, say=said.append)
    one_line(caught)
    assert [re.findall(r"with (\S+) of the learning rates", line) for line in said] == [["0.5"], ["0.25"]]
    assert saboteur.factors[9:18] == [0.5 * f for f in saboteur.factors[:9]]
    assert saboteur.factors[18:27] == [0.25 * f for f in saboteur.factors[:9]]


def test_a_save_made_as_the_trouble_began_is_not_gone_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("smallfry.train.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    form = make_form()
    steps: list[int] = []

    def watch(progress: Progress) -> None:
        clock[0] = float(progress.step)
        steps.append(progress.step)

    Saboteur(monkeypatch, lambda call: float("nan") if call == 47 else 0.0)
    data = JobData(ROWS, form, Noise(), 0.0, RECIPE.batch_tokens, RECIPE.seed)
    found = train(fresh(form), data, LONG, run_dir=tmp_path, watch=watch, save_seconds=20.0)  # saves at 0, 20, 40
    assert len(found.notes) == 1 and "step 47: the loss is nan; went back to step 20 " in found.notes[0]
    assert steps[46:49] == [47, 21, 22]


def test_a_resumed_run_knows_that_it_went_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Saboteur(monkeypatch, lambda call: float("nan") if call == 12 else 0.0)
    whole = fit(recipe=LONG)
    Saboteur(monkeypatch, lambda call: float("nan") if call == 12 else 0.0)

    def stop(progress: Progress, seen: list[int] = []) -> None:  # noqa: B006
        seen.append(progress.step)
        if seen.count(5) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    form = make_form()
    data = JobData(ROWS, form, Noise(), 0.0, RECIPE.batch_tokens, RECIPE.seed)
    part = train(fresh(form), data, LONG, run_dir=tmp_path, watch=stop)
    assert not part.finished and part.steps == 5 and len(part.notes) == 1
    saboteur = Saboteur(monkeypatch, lambda call: 0.0)
    rest = fit(tmp_path, resume=True, recipe=LONG)
    assert rest.finished and rest.notes == whole.notes and torch.equal(weights(rest), weights(whole))
    assert max(saboteur.factors) <= 0.5


def test_a_run_out_of_bounds_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Saboteur(monkeypatch, lambda call: 7.0 if call >= 70 else 0.0)
    said: list[str] = []
    part = fit(tmp_path, stop_at=75, recipe=LONG, say=said.append)
    assert not part.finished and [f.name for f in tmp_path.glob("*.json")] == ["state-0.json"]
    assert said == ["step 75: the loss is out of bounds; not saved, the save before stands"]
    monkeypatch.undo()
    assert torch.equal(weights(fit(tmp_path, resume=True, recipe=LONG)), weights(fit(recipe=LONG)))


@pytest.mark.parametrize("rate", [1.0, 4.0])
def test_ordinary_training_never_goes_back(rate: float) -> None:
    recipe = replace(RECIPE, epochs=12, lr=0.012 * rate, muon_lr=0.03 * rate)
    assert fit(recipe=recipe).notes == []
