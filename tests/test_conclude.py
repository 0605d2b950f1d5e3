"""From outcomes to rows, verdicts and advice."""

from __future__ import annotations

import numpy as np
import pytest

from smallfry.assessment import conclude
from smallfry.assessment.run import State
from smallfry.assessment.work import Outcome, RungTask
from smallfry.job import Example, Job
from smallfry.record import Assessment, JobRecord, Row

N = 400
ROWS = tuple(Example(f"text {i}", ("yes", "no")[i % 2]) for i in range(N))
JOB = Job("j", "classify", ROWS, ROWS, ROWS, "accuracy")


def outcome(name: str, wrong: int, seed: int = 0, size: int = 1000, seconds: float = 1.0, loss: float = 0.5) -> Outcome:
    """A candidate that gets ``wrong`` rows wrong, the same on validation and test."""
    miss = set(np.random.default_rng(seed).choice(N, wrong, replace=False).tolist())
    answers = [[("no" if e.output == "yes" else "yes") if i in miss else e.output, 0.9] for i, e in enumerate(ROWS)]
    return Outcome(name, size // 2, size, seconds, 1.0, answers, list(answers), valid_loss=loss)


def assessed(baseline_wrong: int, lm_wrong: dict[str, list[int]], target: float | None) -> Assessment:
    state = State()
    state.baselines["svm"] = (outcome("svm", baseline_wrong, 99, 80_000, 0.5), None)  # type: ignore[assignment]
    first = next(iter(lm_wrong))
    size = {"0.25m": 500_000, "1m": 2_000_000, "5m": 10_000_000}[first]
    state.baselines[f"svm-{size}"] = (outcome("svm-cut", baseline_wrong + 40, 98, size), None)  # type: ignore[assignment]
    for rung, wrongs in lm_wrong.items():
        params = {"0.25m": 250_000, "1m": 1_000_000, "5m": 5_000_000}[rung]
        state.rungs[rung] = {s: outcome(rung, w, s, 2 * params, 60.0) for s, w in enumerate(wrongs)}
    record = Assessment(JobRecord("j", "classify", "accuracy", True, target, N, N, N))
    conclude.fill(record, JOB, state, target, None, list(lm_wrong))
    return record


def row(record: Assessment, name: str) -> Row:
    return next(r for r in record.rows if r.name == name)


def test_the_smallest_workable_rung_is_found_and_advised() -> None:
    record = assessed(200, {"0.25m": [100, 101, 99], "1m": [4, 5, 4], "5m": [2]}, 0.9)
    assert record.smallest == "1m"
    assert row(record, "0.25m").verdict == "not"
    assert "Use the 1m model" in record.advice
    versus = row(record, "1m").versus
    assert versus is not None and versus.difference == pytest.approx(0.49, abs=0.01) and (versus.p or 1) < 1e-6


def test_a_baseline_cut_to_a_rung_names_the_rung_and_is_no_rival() -> None:
    record = assessed(5, {"0.25m": [100]}, 0.9)
    assert row(record, "svm cut to 0.25m").bytes == 500_000
    versus = row(record, "0.25m").versus
    assert versus is not None and versus.other == "svm"


def test_a_baseline_that_does_as_well_is_advised() -> None:
    record = assessed(5, {"0.25m": [5, 6, 5]}, 0.9)
    assert record.smallest == "0.25m"
    assert record.advice.startswith("Use svm") and "not significantly better" in record.advice


def test_any_workable_baseline_is_named_before_nothing_is() -> None:
    state = State()
    strong, shown = outcome("svm", 4, 1, 80_000), outcome("nearest", 4, 2, 90_000)
    shown.valid = outcome("nearest", 1, 3).valid  # better on validation rows, so it is the rival
    shown.test = outcome("nearest", 60, 2).test
    state.baselines = {"svm": (strong, None), "nearest": (shown, None)}  # type: ignore[dict-item]
    state.rungs["1m"] = {0: outcome("1m", 100, 0)}
    record = Assessment(JobRecord("j", "classify", "accuracy", True, 0.95, N, N, N))
    conclude.fill(record, JOB, state, 0.95, None, ["1m"])
    assert record.advice.startswith("Use svm: ")


def test_a_smaller_rung_that_is_not_ruled_out_is_named() -> None:
    record = assessed(200, {"0.25m": [22, 22], "1m": [4, 5]}, 0.95)
    assert row(record, "0.25m").verdict == "undecided" and record.smallest == "1m"
    assert record.advice.endswith("; 0.25m, which is smaller, is undecided.")


def test_ties_do_not_depend_on_who_ended_first() -> None:
    state = State()
    for rung, params in (("5m", 5_000_000), ("1m", 1_000_000)):
        state.rungs[rung] = {0: outcome(rung, 50, 7, 2 * params)}
    assert conclude.best_rung(JOB, state.rungs) == "1m"
    state.rungs = dict(reversed(state.rungs.items()))
    assert conclude.best_rung(JOB, state.rungs) == "1m"


def test_why_no_model_was_trained_is_said() -> None:
    record = Assessment(JobRecord("j", "classify", "accuracy", True, 0.9, N, N, N))
    assert conclude.advise(record, None) == "No language model was trained."
    record.job.warnings = ["40 rows are doubles.", "1m-s0 was left out: the loss rose to 9"]
    assert conclude.advise(record, None) == "No language model was trained: 1m-s0 was left out: the loss rose to 9."


def test_a_single_text_decides_nothing() -> None:
    rows = (Example("", "a long text " * 50),)
    job = Job("j", "generate", rows, rows, rows, "bits_per_byte")
    found = conclude.make_row(
        job, "1m", "lm", {0: Outcome("1m", 1, 1, 1.0, valid=[[-400.0]], test=[[-400.0]])}, 9.0, None
    )
    assert found.verdict == "undecided" and "too few" in found.note


def test_a_better_baseline_is_advised_where_nothing_is_workable() -> None:
    record = assessed(60, {"0.25m": [150, 151, 149]}, 0.95)
    assert record.smallest is None
    assert "svm" in record.advice and "far cheaper" in record.advice


def test_undecided_rows_say_how_many_examples_would_decide() -> None:
    record = assessed(200, {"0.25m": [20, 20, 20]}, 0.94)
    assert row(record, "0.25m").verdict == "undecided"
    needed = row(record, "0.25m").examples_to_decide
    assert needed is not None and needed > 100
    assert f"{needed:,} more test examples" in record.advice


def test_where_only_seeds_are_missing_the_row_says_so() -> None:
    record = assessed(200, {"0.25m": [4, 40]}, 0.9)
    undecided = row(record, "0.25m")
    assert undecided.verdict == "undecided" and undecided.examples_to_decide is None
    assert "more --seeds" in undecided.note


def test_without_a_target_there_is_no_verdict() -> None:
    record = assessed(60, {"0.25m": [30]}, None)
    assert row(record, "0.25m").verdict is None and record.smallest is None
    assert "No target was given" in record.advice


def test_seeds_widen_a_model_s_interval_but_not_a_baseline_s() -> None:
    record = assessed(40, {"0.25m": [40]}, 0.9)
    (a, b), (c, d) = row(record, "svm").ci, row(record, "0.25m").ci
    assert d - c > b - a and not row(record, "svm").seeds


def test_rungs_that_were_not_trained_are_predicted() -> None:
    record = assessed(200, {"0.25m": [80, 82, 78], "1m": [40, 42, 38]}, 0.99)
    assert record.prediction is not None
    names = [p.name for p in record.prediction.points]
    assert "5m" not in names and "2m" in names and "0.25m" not in names
    two = next(p for p in record.prediction.points if p.name == "2m")
    assert two.ci is not None and two.ci[0] < 0.93 < two.ci[1]


def test_pilots_of_labels_are_ranked_by_loss_and_others_by_score() -> None:
    tasks = [RungTask("0.25m", 0, "units", v, True, 0.3, pilot=True) for v in (263, 512)]
    pilots = [(tasks[0], outcome("a", 10, loss=0.9)), (tasks[1], outcome("b", 12, loss=0.4))]
    assert conclude.best_pilot(JOB, pilots) == tasks[1]
    exact = Job("j", "transform", ROWS, ROWS, ROWS, "exact_match")
    far = [(tasks[0], outcome("a", 10)), (tasks[1], outcome("b", 200))]
    assert conclude.best_pilot(exact, far) == tasks[0]
    assert conclude.best_pilot(exact, far[::-1]) == tasks[0]
    equal = [(tasks[1], outcome("a", 10)), (tasks[0], outcome("b", 10))]
    assert conclude.best_pilot(exact, equal) == tasks[0]


def test_the_shipped_model_is_chosen_on_validation_rows() -> None:
    state = State()
    good, lucky = outcome("0.25m", 10, 1), outcome("0.25m", 30, 2)
    lucky.test = [[e.output, 0.9] for e in ROWS]  # perfect on test, worse on validation
    state.rungs["0.25m"] = {0: good, 1: lucky}
    record = Assessment(JobRecord("j", "classify", "accuracy"))
    assert conclude.shipped(JOB, state, record) == ("0.25m", 0)
    record.job.target = 0.9
    conclude.fill(record, JOB, state, 0.9, None, ["0.25m"])
    assert (record.shipped, record.shipped_seed) == ("0.25m", 0)
