"""Where the next training goes."""

from __future__ import annotations

import pytest

from smallfry.assessment.climb import Climber

SECONDS = {"0.25m": 10.0, "1m": 30.0, "5m": 120.0}


def climb(
    scores: dict[str, float], target: float | None, budget: float = 1e9, workers: int = 1
) -> list[tuple[str, int]]:
    """Run a climb in which a rung scores what ``scores`` says, with one task at a time; the order of trainings."""
    spent = [0.0]
    climber = Climber(list(SECONDS), [0, 1, 2], True, SECONDS.__getitem__, lambda: budget - spent[0], workers)
    order = []
    while (step := climber.next()) is not None:
        order.append(step)
        spent[0] += SECONDS[step[0]]
        score = scores[step[0]]
        verdict = None if target is None else ("workable" if score >= target else "not")
        climber.record(step[0], step[1], score, verdict)  # type: ignore[arg-type]
    return order


def test_it_stops_at_the_first_workable_rung_and_repeats_it_and_the_one_below() -> None:
    order = climb({"0.25m": 0.8, "1m": 0.97, "5m": 0.99}, 0.95)
    assert order == [("0.25m", 0), ("1m", 0), ("1m", 1), ("1m", 2), ("0.25m", 1), ("0.25m", 2)]


def test_nothing_workable_repeats_the_best() -> None:
    order = climb({"0.25m": 0.5, "1m": 0.7, "5m": 0.6}, 0.95)
    assert order == [("0.25m", 0), ("1m", 0), ("5m", 0), ("1m", 1), ("1m", 2)]


def test_the_smallest_rung_is_enough() -> None:
    assert climb({"0.25m": 0.99, "1m": 1.0, "5m": 1.0}, 0.95) == [("0.25m", 0), ("0.25m", 1), ("0.25m", 2)]


def test_the_budget_is_kept_but_one_training_always_runs() -> None:
    assert climb({"0.25m": 0.5, "1m": 0.7, "5m": 0.9}, 0.95, budget=1.0) == [("0.25m", 0)]
    order = climb({"0.25m": 0.5, "1m": 0.7, "5m": 0.9}, 0.95, budget=100.0)
    assert order == [("0.25m", 0), ("1m", 0), ("1m", 1), ("1m", 2)]
    assert sum(SECONDS[r] for r, _ in order) <= 100.0


def test_seeds_that_do_not_fit_go_to_a_smaller_rung() -> None:
    order = climb({"0.25m": 0.5, "1m": 0.7, "5m": 0.9}, None, budget=250.0)
    assert order[:3] == [("0.25m", 0), ("1m", 0), ("5m", 0)]
    assert order[3:] == [("1m", 1), ("1m", 2)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_training_is_started_twice(workers: int) -> None:
    order = climb({"0.25m": 0.5, "1m": 0.96, "5m": 0.9}, 0.95, workers=workers)
    assert len(order) == len(set(order))


def test_seeds_of_the_only_affordable_rung_run_side_by_side() -> None:
    climber = Climber(list(SECONDS), [0, 1], True, SECONDS.__getitem__, lambda: 25.0, 2)
    assert climber.next() == ("0.25m", 0)
    assert climber.next() == ("0.25m", 1)
    assert climber.next() is None


def test_a_free_worker_takes_the_next_seed_of_the_top_rung_while_its_first_is_out() -> None:
    climber = Climber(["0.25m", "1m"], [0, 1, 2], True, SECONDS.__getitem__, lambda: 1e9, 2)
    assert [climber.next(), climber.next()] == [("0.25m", 0), ("1m", 0)]
    assert climber.next() is None  # the smallest may yet be workable
    climber.record("0.25m", 0, 0.8, "not")
    assert climber.next() == ("1m", 1)


def test_a_rung_that_cannot_be_trained_is_passed_over() -> None:
    climber = Climber(["0.25m", "1m"], [0, 1], True, SECONDS.__getitem__, lambda: 1e9, 1)
    assert climber.next() == ("0.25m", 0)
    climber.fail("0.25m")
    assert climber.next() == ("1m", 0)
    climber.record("1m", 0, 0.8, "not")
    assert climber.next() == ("1m", 1)


def test_rungs_within_chance_of_the_best_get_their_seeds_the_largest_first() -> None:
    order = climb({"0.25m": 0.905, "1m": 0.9, "5m": 0.5}, 0.95)
    assert order[3:] == [("1m", 1), ("1m", 2), ("0.25m", 1), ("0.25m", 2)]


def test_a_resumed_climb_takes_what_is_finished_however_little_time_is_left() -> None:
    done = {("0.25m", 0), ("1m", 0), ("1m", 1)}
    climber = Climber(
        ["0.25m", "1m"], [0, 1], True, SECONDS.__getitem__, lambda: -5.0, 1, lambda rung, seed: (rung, seed) in done
    )
    order = []
    while (step := climber.next()) is not None:
        order.append(step)
        climber.record(step[0], step[1], 0.5 if step[0] == "0.25m" else 0.8, "not")
    assert order == [("0.25m", 0), ("1m", 0), ("1m", 1)]
