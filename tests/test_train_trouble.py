"""The training loop in trouble: too little memory is met with smaller parts, a run out of bounds with going back."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import smallfry.train
import smallfry.training.loss
from smallfry.data import Batch, JobData, Noise
from smallfry.errors import CandidateError
from smallfry.model import Transformer
from smallfry.train import Progress, loss_of, mean_loss, train
from smallfry.training.guard import PATIENCE
from smallfry.training.microbatch import MicroBatches, out_of_memory
from smallfry.training.optim import Optimizer
from tests.training_runs import RECIPE, ROWS, fit, fresh, make_form, one_line, weights

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
