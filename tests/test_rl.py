"""Problems, rewards, rollouts: what is learned is exactly what the model chose, weighed by what it earned."""

from __future__ import annotations

import copy
import gzip
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from smallfry.builtin._split import part_of
from smallfry.calculator import calculate, calculator
from smallfry.data import Batch
from smallfry.engine.constraints import WatchConstraint
from smallfry.engine.decoding import Answer, Engine, Sampling, pick, pick_each
from smallfry.errors import SmallfryError
from smallfry.model import Transformer
from smallfry.sizes import Shape, shape_for
from smallfry.tokenizer import ASSISTANT, END, PAD, USER, Tokenizer
from smallfry.train import Recipe, loss_of, train
from smallfry.training.guard import PATIENCE, LossGuard, TroubleError
from smallfry.training.microbatch import MicroBatches
from smallfry.tuning import rollouts
from smallfry.tuning.arithmetic import LEVELS, NAMES
from smallfry.tuning.problems import Problem, arithmetic, conversations, read_problems, read_test, reward
from smallfry.tuning.rollouts import (
    Answerer,
    Drawing,
    Rollouts,
    advantages_of,
    assemble,
    token_logprobs,
)

GSM8K = Path(__file__).parents[2] / "shared" / "data" / "evals" / "gsm8k.jsonl.gz"
TOKENIZER = Tokenizer.train([], 263)  # plain bytes


def tiny(seed: int = 0, dtype: torch.dtype = torch.float32) -> Transformer:
    model = Transformer(shape_for("60k", TOKENIZER.vocab_size), 0.0)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model.to(dtype).eval()


# ---- problems -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_generated_solutions_are_right_in_every_step(level: int) -> None:
    for problem in arithmetic("train", 200, 0, [level]):
        calls = re.findall(r"(\S+) = <<([^=]+)=([^>]+)>>(\S+)", problem.solution)
        assert calls
        for before, expression, result, after in calls:
            assert before == expression and result == calculate(expression) and after == result
        assert problem.solution.endswith(f"#### {problem.answer}") and calls[-1][2] == problem.answer
        assert problem.answer.isdigit() and int(problem.answer) > 0 and problem.level == level
        assert reward(problem.solution, problem.answer) == 1.0
        assert not re.search(r"[{}\[\]]", problem.question + problem.solution)


def pairs(problems: Sequence[Problem]) -> set[tuple[int, ...]]:
    """The two numbers of each first step; a question gives them in either order."""
    found = [re.search(r"<<(\d+)\D(\d+)=", p.solution) for p in problems]
    return {tuple(sorted(map(int, match.groups()))) for match in found if match}


def test_splits_share_no_numbers_and_test_has_names_of_its_own() -> None:
    train, valid, test = (arithmetic(split, 3000, 0) for split in ("train", "valid", "test"))
    assert pairs(train) and not pairs(train) & pairs(test) and not pairs(train) & pairs(valid)
    assert not pairs(valid) & pairs(test)
    words = [{word for p in each for word in re.findall(r"\w+", p.question)} for each in (train, test)]
    assert (words[1] - words[0]) & set(NAMES) == {name for name in NAMES if part_of(name) == "test"}
    assert len({p.question for p in train}) == 3000


def test_more_problems_begin_with_fewer_and_other_seeds_are_others() -> None:
    assert arithmetic("train", 50, 3, [2, 4]) == arithmetic("train", 80, 3, [2, 4])[:50]
    assert arithmetic("train", 50, 3, [2, 4]) != arithmetic("train", 50, 4, [2, 4])


@pytest.mark.parametrize("levels", [[], [7], [0, 1]])
def test_levels_that_do_not_exist_are_refused(levels: list[int]) -> None:
    with pytest.raises(SmallfryError, match="expected some of 1 to 6"):
        arithmetic("train", 1, 0, levels)


def test_problems_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smallfry.tuning.arithmetic.part_of", lambda text: "test")
    with pytest.raises(SmallfryError, match="only 0 different train problems, 1 were asked for"):
        arithmetic("train", 1, 0, [3])


@pytest.mark.parametrize(("text", "answer", "earned"), [
    ("3*4 = <<3*4=12>>12\n#### 12", "12", 1.0), ("#### 12", "12.0", 1.0), ("#### 1,200.", "1200", 1.0),
    ("#### -3", "-3", 1.0), ("#### 0.5", ".5", 1.0), ("#### 12\n#### 13", "12", 1.0), ("#### 13\n#### 12", "12", 0.0),
    ("#### 13", "12", 0.0), ("12", "12", 0.0), ("#### ", "12", 0.0), ("####12", "12", 0.0), ("#### 1.2.3", "1.2", 0.0),
    ("#### -.", "0", 0.0), ("", "12", 0.0), ("#### 120", "12", 0.0),
])  # fmt: skip
def test_only_the_right_number_earns(text: str, answer: str, earned: float) -> None:
    assert reward(text, answer) == earned


def test_problems_become_conversations() -> None:
    question, answer = conversations("train", 0, 3)[2]
    problem = arithmetic("train", 3, 0)[2]
    assert (question.role, question.content) == ("user", problem.question)
    assert (answer.role, answer.content) == ("assistant", problem.solution)


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_files_of_problems_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.jsonl.gz", [
        {"question": f"q{i}", "answer": f"so\n#### {i}", "split": "train"} for i in range(200)
    ] + [
        {"question": "q3", "answer": "#### 3", "split": "test"},
        {"question": "x", "answer": "by thought", "final": "1,000", "split": "test"},
    ])  # fmt: skip
    found = read_problems([str(path)])
    assert found.facts["left_out"] == 1 and "q3" not in {p.question for p in found.train}
    assert len(found.train) + len(found.valid) in (199, 200) and 1 <= len(found.valid) < 30
    assert found.test[1] == Problem("x", "1000", "by thought\n#### 1000")
    assert read_test(path) == found.test
    plain = write(tmp_path / "plain.jsonl", [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(100)])
    beside = read_test(plain)  # it does not say: all of it is for measuring
    assert len(beside) == 100
    apart = read_problems([str(path)], apart=beside)
    assert not {p.question for p in beside} & {p.question for p in (*apart.train, *apart.valid)}
    assert len(apart.train) + len(apart.valid) == 100
    monkeypatch.setattr("smallfry.tuning.problems._COUNTS", {"train": 300, "valid": 20, "test": 50})
    both = read_problems([str(path), "arithmetic"], levels=[1, 2])
    assert both.facts["train"] > found.facts["train"] and {p.level for p in both.test} == {0, 1, 2}


@pytest.mark.parametrize(("row", "says"), [
    ({"question": "q", "answer": "none"}, "line 2"), ({"question": "", "answer": "#### 1"}, "no question"),
    ({"answer": "#### 1"}, "no question"), ({"question": "q", "answer": "#### 1", "split": "other"}, "'other'"),
    ({"question": "q", "answer": "a", "final": "many"}, "no number"),
])  # fmt: skip
def test_rows_that_are_no_problems_are_named(tmp_path: Path, row: dict[str, object], says: str) -> None:
    path = write(tmp_path / "p.jsonl", [{"question": "a", "answer": "#### 1", "split": "train"}, row])
    with pytest.raises(SmallfryError, match=re.escape(says)) as error:
        read_problems([str(path)])
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_set_without_test_problems_or_files_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"question": "a", "answer": "#### 1", "split": "train"}])
    for sources in ([str(path)], [], [str(tmp_path / "no.jsonl")]):
        with pytest.raises(SmallfryError, match=r"expected|name"):
            read_problems(sources)
    with pytest.raises(SmallfryError, match="no test problems"):
        read_test(path)


@pytest.mark.skipif(not GSM8K.exists(), reason="needs the benchmark data beside the checkout")
def test_gsm8k_is_read_and_its_solutions_earn() -> None:
    found = read_problems([str(GSM8K)])
    assert len(found.test) == 1319 and len(found.train) + len(found.valid) == 7473
    assert all(reward(p.solution, p.answer) == 1.0 for p in found.test)


# ---- drawing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [
    Sampling(1.0, top_k=50), Sampling(0.7, top_k=3), Sampling(2.0, top_k=1), Sampling(1.0, top_k=400),
    Sampling(1.0, top_k=20, top_p=0.9), Sampling(1.0, top_k=20, repetition=1.3), Sampling(0.5),
])  # fmt: skip
def test_rows_drawn_together_are_those_drawn_alone(sampling: Sampling) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (40, 300)).astype(np.float32)
    written = [[1, 2, int(row)] for row in range(40)]

    def draws() -> list[np.random.Generator]:
        return [sampling.draws(row) for row in range(40)]

    together = pick_each(logits, sampling, draws(), written)
    assert together == [pick(*each) for each in zip(logits, [sampling] * 40, draws(), written, strict=True)]


class Script:
    """A backend that writes one text whatever it is asked, and reads what is forced on it in its place."""

    def __init__(self, ids: Sequence[int], prompt: int) -> None:
        self.ids, self.start, self.shape, self.stored_bytes = ids, prompt, Shape(263, 64, 1, 1, 1, 64, 64), 0

    def session(self, rows: int, length: int) -> Script:
        self.read = [0] * rows
        return self

    def feed(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        logits = np.zeros((len(tokens), 263), dtype=np.float32)
        for row, new in enumerate(tokens):
            self.read[row] += len(new)
            logits[row, self.ids[min(self.read[row] - self.start, len(self.ids) - 1)]] = 50.0
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        self.read = [self.read[i] for i in rows]

    def rewind(self, row: int, length: int) -> None:
        raise AssertionError

    def answer_logits(self, texts: Sequence[Sequence[int]], starts: Sequence[int]) -> list[np.ndarray]:
        raise AssertionError


def calculating() -> WatchConstraint:
    return WatchConstraint(TOKENIZER, calculator, asks=frozenset(TOKENIZER.encode("=")))


def test_an_answer_says_what_was_chosen_and_what_was_forced() -> None:
    text = "a <<3*4=12>>12"
    backend = Script([*TOKENIZER.encode(text), END], 2)
    found = Engine(backend).generate([[USER, ASSISTANT]], [calculating()], 20)[0]
    assert TOKENIZER.decode(found.ids) == text and found.ended
    forced = [i for i, chosen in enumerate(found.chosen) if not chosen]
    assert TOKENIZER.decode([found.ids[i] for i in forced]) == "12>>" and forced == [8, 9, 10, 11]
    assert found.logprob == pytest.approx(0.0, abs=1e-6)
    short = Engine(backend).generate([[USER, ASSISTANT]], [calculating()], 5)[0]
    assert not short.ended and all(short.chosen) and len(short.ids) == 5
    free = Engine(backend).generate([[USER, ASSISTANT]], [None], 20)[0]
    assert all(free.chosen) and free.ended and free.ids == found.ids


def test_what_a_calculator_cannot_compute_stays_the_model_s() -> None:
    backend = Script([*TOKENIZER.encode("<<x=7"), END], 2)
    found = Engine(backend).generate([[USER, ASSISTANT]], [calculating()], 20)[0]
    assert all(found.chosen) and TOKENIZER.decode(found.ids) == "<<x=7"


# ---- weights --------------------------------------------------------------------------------------------------------


def test_advantages_are_what_an_answer_earned_above_its_question_s_mean() -> None:
    rewards = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=np.float32)
    assert advantages_of(rewards).tolist() == [[0.75, -0.25, -0.25, -0.25], [0.0] * 4, [0.0] * 4]
    assert advantages_of(rewards, spread=True)[0] == pytest.approx(np.array([3, -1, -1, -1]) / math.sqrt(3))
    assert np.all(np.isfinite(advantages_of(rewards, spread=True)))


def test_each_token_carries_the_weight_it_should() -> None:
    prompts = [[USER, 70, ASSISTANT], [USER, 71, 72, ASSISTANT], [USER, ASSISTANT]]
    answers = [
        Answer([80, 81, 82], -1.0, [True, False, True], True), Answer([83], -1.0, [True], False),
        Answer([84, 85], -1.0, [True, True], True),
    ]  # fmt: skip
    batch = assemble(prompts, answers, np.array([0.5, -0.5, 9.0], dtype=np.float32), [0, 1])
    assert batch.ids.shape == (2, 8) and batch.total == 3 + 1 + 3  # END counts; the third has no row and counts
    assert batch.ids[0].tolist() == [USER, 70, ASSISTANT, 80, 81, 82, END, PAD]
    assert batch.targets[0].tolist() == [70, ASSISTANT, 80, 81, 82, END, PAD, PAD]
    assert batch.weights[0].tolist() == [0, 0, 0.5, 0, 0.5, 0.5, 0, 0]  # nothing on the forced token
    assert batch.targets[1].tolist() == [71, 72, ASSISTANT, 83, PAD, PAD, PAD, PAD]
    assert batch.weights[1].tolist() == [0, 0, 0, -0.5, 0, 0, 0, 0]


def some_batch() -> Batch:
    draw = np.random.default_rng(1)
    prompts = [draw.integers(7, 263, 5).tolist() for _ in range(6)]
    answers = [Answer(draw.integers(7, 263, 3 + i).tolist(), -1.0, [i % 2 == 0] * (3 + i), i < 3) for i in range(6)]
    return assemble(prompts, answers, draw.normal(size=6).astype(np.float32), range(6))


def gradients(model: Transformer, batches: Sequence[Batch]) -> list[torch.Tensor]:
    model.zero_grad()
    for batch in batches:
        loss_of(model, batch)[0].backward()  # type: ignore[no-untyped-call]
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_the_gradient_is_reinforce_s_whole_and_in_parts() -> None:
    model, batch = tiny(), some_batch()
    mine = gradients(model, [batch])
    parts = MicroBatches(24).parts(batch)
    assert len(parts) > 1
    for a, b in zip(mine, gradients(model, parts), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    model.zero_grad()
    logits = model.logits(model(torch.from_numpy(batch.ids.copy()))).float()
    chosen = torch.log_softmax(logits, -1).gather(2, torch.from_numpy(batch.targets.copy())[..., None])[..., 0]
    assert batch.total is not None
    (-(torch.from_numpy(batch.weights.copy()) * chosen).sum() / batch.total).backward()  # type: ignore[no-untyped-call]
    for a, p in zip(mine, model.parameters(), strict=True):
        assert p.grad is not None and torch.allclose(a, p.grad, atol=1e-5)


def test_a_batch_without_any_weight_moves_nothing() -> None:
    batch = some_batch()
    batch.weights[:] = 0.0
    model = tiny()
    loss, _ = loss_of(model, batch)
    assert float(loss.detach()) == 0.0
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or float(p.grad.abs().max()) == 0.0 for p in model.parameters())


# ---- rollouts -------------------------------------------------------------------------------------------------------

PROBLEMS = [Problem(f"{i}+1", str(i + 1), f"#### {i + 1}") for i in range(12)]
HOW = Drawing(questions=4, samples=8, max_new=6, seed=5)


def by_luck(text: str, answer: str) -> float:
    """A reward that an untrained model earns now and then."""
    return float(len(text.encode()) % 3 == 0)


def test_a_step_draws_the_same_whenever_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "reward", by_luck)
    model = tiny()
    first = Rollouts(model, TOKENIZER, PROBLEMS, HOW, 10)
    a, b = first.batch(3), first.batch(4)
    again = Rollouts(model, TOKENIZER, PROBLEMS, HOW, 10).epoch(0)
    assert len(again) == 10
    for x, y in ((a, again[3]), (b, again[4])):
        assert np.array_equal(x.ids, y.ids) and np.array_equal(x.weights, y.weights) and x.total == y.total
    assert not np.array_equal(a.ids[:1], b.ids[:1])
    others = Rollouts(tiny(1), TOKENIZER, PROBLEMS, HOW, 10).batch(3)
    assert others.ids.shape != a.ids.shape or not np.array_equal(others.ids, a.ids)


def test_only_questions_with_both_kinds_of_answers_have_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(10**6))
    # The first two questions' answers are all right and all wrong; every other answer of the others is right.
    monkeypatch.setattr(rollouts, "reward", lambda t, a: float([1, 0, (n := next(calls)) % 2, 1 - n % 2][n // 8 % 4]))
    batch = Rollouts(tiny(), TOKENIZER, PROBLEMS, HOW, 10).batch(0)
    assert batch.rows.tolist() == list(range(16, 32))
    assert set(np.unique(batch.weights).tolist()) == {-0.5, 0.0, 0.5}
    assert batch.total is not None and batch.total > (batch.weights != 0).sum()


def test_a_step_in_which_all_agree_moves_nothing_and_is_not_given_up_at_once() -> None:
    data = Rollouts(tiny(), TOKENIZER, PROBLEMS, HOW, 10)  # an untrained model solves nothing
    batch = data.batch(0)
    assert len(batch.ids) == 1 and not batch.weights.any()
    assert data.steps[0].draws == 8 and data.steps[0].reward == 0.0 and data.steps[0].mixed == 0.0


def test_the_reward_that_is_noted_is_of_all_that_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Rollouts(tiny(), TOKENIZER, PROBLEMS, HOW, 10)
    found = iter([np.zeros, lambda n: np.arange(n) % 2 == 0])  # nothing to learn from the first draw, then something
    monkeypatch.setattr(
        "smallfry.tuning.rollouts.Answerer.rewards", lambda self, asked, answers: next(found)(len(answers)) * 1.0
    )
    data.batch(0)
    step = data.steps[0]
    assert (step.draws, step.reward, step.solved, step.mixed) == (2, 0.25, 0.5, 0.5)


def test_reinforcing_brings_about_what_is_rewarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "reward", lambda text, answer: float(text[:1].isascii() and text[:1].isalnum()))
    how = Drawing(questions=4, samples=16, max_new=2, top_k=0)
    model = tiny()
    data = Rollouts(model, TOKENIZER, PROBLEMS, how, 10)
    recipe = Recipe(epochs=2, lr=0.02, muon_lr=0.05, weight_decay=0.0, dropout=0.0, ema=0.0)
    train(model, data, recipe, save_seconds=1e9)
    before, after = data.recent(0), data.recent(1)
    assert data.steps[0].reward < 0.4 and after["reward"] > 0.8
    assert after["entropy"] < before["entropy"] and data.recent(7) == {}


def test_the_distance_from_before_lowers_what_became_likelier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "reward", by_luck)
    model, before = tiny(), tiny(1)
    plain = Rollouts(model, TOKENIZER, PROBLEMS, HOW, 10).batch(0)
    how = Drawing(questions=4, samples=8, max_new=6, seed=5, kl=0.1)
    held = Rollouts(model, TOKENIZER, PROBLEMS, how, 10, reference=before).batch(0)
    gap = token_logprobs(model, plain) - token_logprobs(before, plain)
    expected = np.where(plain.weights != 0, plain.weights - 0.1 * gap, 0.0)
    assert np.allclose(held.weights, expected, atol=1e-6) and not np.allclose(held.weights, plain.weights)
    same = Rollouts(model, TOKENIZER, PROBLEMS, how, 10, reference=copy.deepcopy(model)).batch(0)
    assert np.array_equal(same.weights, plain.weights)


def test_log_probabilities_are_the_model_s() -> None:
    model, batch = tiny(), some_batch()
    logits = model.logits(model(torch.from_numpy(batch.ids.copy()))).float().detach()
    expected = -F.cross_entropy(logits[2], torch.from_numpy(batch.targets[2].copy()), reduction="none")
    assert np.allclose(token_logprobs(model, batch)[2], expected.numpy(), atol=1e-5)


def test_the_log_forgets_what_a_run_that_went_back_made(tmp_path: Path) -> None:
    log = tmp_path / "steps.jsonl"
    data = Rollouts(tiny(), TOKENIZER, PROBLEMS, HOW, 10, log)
    for step in (0, 1, 2):
        data.batch(step)
    with log.open("a") as file:
        file.write('{"step": 3, "rew')  # killed while it wrote
    again = Rollouts(tiny(), TOKENIZER, PROBLEMS, HOW, 10, log)
    assert sorted(again.steps) == [0, 1, 2]
    again.batch(1)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [0, 1]


def test_answers_do_not_depend_on_what_is_asked_beside_them() -> None:
    answerer = Answerer(tiny(), TOKENIZER, 8)
    sampling = Sampling(1.0, seed=3, top_k=50)
    together = answerer.ask(PROBLEMS, sampling)
    alone = answerer.ask(PROBLEMS[4:6], sampling.of([4, 5]))
    assert [a.ids for a in together[4:6]] == [a.ids for a in alone]


# ---- the watch over the loss ----------------------------------------------------------------------------------------


def test_losses_around_zero_are_not_trouble() -> None:
    draw = np.random.default_rng(0)
    guard = LossGuard(512)
    for step in range(3000):  # rewards come and go: sizes change by far more than a cross-entropy's
        guard.look(float(draw.normal(-0.01, 0.02 + 0.1 * (step // 500 % 2))))
    assert guard.calm
    for _ in range(500):
        guard.look(0.0)
    assert guard.calm


@pytest.mark.parametrize("to", [-5.0, 5.0, -1e6])
def test_a_loss_that_runs_away_to_either_side_is_trouble(to: float) -> None:
    guard = LossGuard(512)
    for loss in np.random.default_rng(0).normal(0.0, 0.05, 200):
        guard.look(float(loss))
    with pytest.raises(TroubleError, match="rose" if to > 0 else "fell"):
        for _ in range(PATIENCE):
            guard.look(to)
