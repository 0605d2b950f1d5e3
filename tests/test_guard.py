"""The watch over the loss: it must see a broken training and must not take ordinary noise for one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import numpy as np
import pytest

from smallfry.training.guard import PATIENCE, WINDOW, LossGuard, TroubleError

VOCAB = 2048


def trouble_at(losses: Iterable[float], vocab: int = VOCAB) -> int | None:
    """The step at which the guard calls a sequence of losses broken."""
    guard = LossGuard(vocab)
    for step, loss in enumerate(losses):
        try:
            guard.look(float(loss))
        except TroubleError as error:
            assert "\n" not in str(error) and f"rose to {loss:.3f}" in str(error)
            return step
    return None


def falling(steps: int, end: float, noise: float, seed: int, tail: float = 0.0) -> np.ndarray:
    """A training's losses: from ln V down along a power law, with noise in proportion and now and then a high one."""
    draw = np.random.default_rng(seed)
    ideal = end + (math.log(VOCAB) - end) * (1.0 + np.arange(steps) / 20.0) ** -0.8
    rare = np.where(draw.random(steps) < tail, draw.uniform(1.0, 20.0, steps), 1.0)
    return ideal * np.exp(noise * draw.standard_normal(steps)) * rare


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("end", "noise", "tail"), [
    (1.5, 0.05, 0.0), (1.5, 0.4, 0.0), (0.001, 1.0, 0.05), (0.2, 0.6, 0.02), (3.0, 0.02, 0.1),
])  # fmt: skip
def test_noise_is_not_trouble(end: float, noise: float, tail: float, seed: int) -> None:
    assert trouble_at(falling(5000, end, noise, seed, tail)) is None


def test_losses_that_never_fall_are_not_trouble() -> None:
    draw = np.random.default_rng(0)
    assert trouble_at(math.log(VOCAB) + 0.01 * draw.standard_normal(3000)) is None
    assert trouble_at(np.zeros(500)) is None


def test_a_slow_rise_is_not_trouble() -> None:
    assert trouble_at(np.concatenate([falling(500, 2.0, 0.05, 0), np.linspace(2.0, 2.8, 2000)])) is None


def test_a_rise_near_zero_is_not_trouble() -> None:
    assert trouble_at(np.concatenate([falling(500, 0.001, 0.1, 0), np.full(200, 0.3)])) is None


@pytest.mark.parametrize("length", [1, 5, PATIENCE - 1])
def test_a_spike_that_is_over_soon_is_not_trouble(length: int) -> None:
    losses = falling(2000, 1.5, 0.05, 1)
    losses[700 : 700 + length] = 12.0
    losses[1200 : 1200 + length] = 9.0
    assert trouble_at(losses) is None


@pytest.mark.parametrize("end", [3.0, 1.5, 0.2, 0.001])
@pytest.mark.parametrize("to", [math.log(VOCAB), 30.0, 1e8])
def test_a_loss_that_rises_and_stays_is_trouble(end: float, to: float) -> None:
    losses = falling(1500, end, 0.1, 2, 0.01)
    losses[1000:] = to * np.exp(0.1 * np.random.default_rng(3).standard_normal(500))
    assert trouble_at(losses) in range(1000, 1000 + PATIENCE)


def test_a_loss_that_creeps_back_from_where_it_rose_to_is_trouble_too() -> None:
    losses = falling(1500, 1.0, 0.05, 4)
    losses[1000:] = 1.0 + 6.0 * 0.995 ** np.arange(500)
    assert trouble_at(losses) in range(1000, 1000 + PATIENCE)


def test_a_start_that_explodes_is_trouble_before_anything_is_ordinary() -> None:
    losses = np.concatenate([np.full(5, math.log(VOCAB)), 10.0 * 2.0 ** np.arange(40)])
    found = trouble_at(losses)
    assert found is not None and found < 5 + PATIENCE + 2 < WINDOW


def test_it_is_calm_only_while_losses_are_ordinary() -> None:
    guard = LossGuard(VOCAB)
    for loss in falling(200, 1.5, 0.05, 5):
        guard.look(float(loss))
    assert guard.calm
    bound = guard.bound()
    guard.look(20.0)
    assert not guard.calm and guard.bound() == bound  # what is out of bounds does not move them
    guard.look(1.5)
    assert guard.calm


def test_what_is_saved_continues_alike() -> None:
    losses = falling(600, 1.0, 0.3, 6)
    one = LossGuard(VOCAB)
    for step, loss in enumerate(losses):
        if step in (0, 30, 300):
            two = LossGuard(VOCAB)
            two.load_state(json.loads(json.dumps(one.state())))
            assert two.state() == one.state() and two.bound() == one.bound()
            one = two
        one.look(float(loss))
    assert one.calm
