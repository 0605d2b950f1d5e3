"""What a model being reinforced learns from: its own answers, drawn anew before every step.

REINFORCE (Williams 1992) with each question's mean reward as the baseline, as nanochat does it: on-policy, so there is
no ratio and nothing to clip; every token the model chose counts alike, whatever the length of its answer (Yu et al.
2025). What the calculator wrote is read but not learned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from smallfry.calculator import calculator
from smallfry.data import Batch, padded_length
from smallfry.engine.constraints import WatchConstraint
from smallfry.engine.decoding import Answer, Backend, Engine, Sampling
from smallfry.engine.torch_engine import TorchModel
from smallfry.evals.suites.transformer import native_scorer
from smallfry.files import write_atomic
from smallfry.model import Transformer
from smallfry.tokenizer import ASSISTANT, END, PAD, USER, Tokenizer
from smallfry.training.epochs import MadeBatches
from smallfry.tuning.problems import Problem, reward

_ATTEMPTS = 8  # draws of other questions until the answers to one of them differ in reward
_KL_ROWS = 32  # rows whose logits are held at once


@dataclass(frozen=True, slots=True)
class Drawing:
    """How answers are drawn and weighed.

    Args:
        questions: Questions a step.
        samples: Answers to each.
        max_new: Most tokens of an answer that the model may choose.
        temperature: Of the draws. The gradient is that of the model at temperature 1, whatever stands here.
        top_k: Only the likeliest are drawn; 0 for all.
        tool: Whether the calculator finishes ``<<3*4=``.
        spread: Divide advantages by their question's standard deviation, as GRPO does (Shao et al. 2024).
        kl: Weight of the distance from the model that training began with; 0 for none.
        seed: Of questions and draws.
    """

    questions: int = 16
    samples: int = 16
    max_new: int = 96
    temperature: float = 1.0
    top_k: int = 50
    tool: bool = True
    spread: bool = False
    kl: float = 0.0
    seed: int = 0


class Answerer:
    """Asks problems of a model as it stands now.

    Args:
        model: The model; its weights are read once, here.
        tokenizer: Its tokenizer.
        max_new: Most tokens of an answer that the model may choose.
        tool: Whether the calculator helps.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, max_new: int, tool: bool = True) -> None:
        begun = time.perf_counter()
        backend: Backend = native_scorer(model) or TorchModel(model)
        self.seconds = time.perf_counter() - begun  # what taking over the weights cost
        self.engine, self.tokenizer, self.max_new, self.tool = Engine(backend, END), tokenizer, max_new, tool
        self._asks = frozenset(index for token, index in tokenizer.vocab.items() if token.endswith("="))

    def prompt(self, problem: Problem) -> list[int]:
        """``<|user|> question<|assistant|>``."""
        return [USER, *self.tokenizer.encode(" " + problem.question), ASSISTANT]

    def ask(self, problems: Sequence[Problem], sampling: Sampling | None = None) -> list[Answer]:
        """An answer to each: the likeliest tokens, or drawn."""
        watching = [
            WatchConstraint(self.tokenizer, calculator, asks=self._asks) if self.tool else None for _ in problems
        ]
        return self.engine.generate([self.prompt(p) for p in problems], watching, self.max_new, sampling)

    def rewards(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> np.ndarray:
        """1 for each right answer, ``(n,)`` float32."""
        texts = [self.tokenizer.decode(answer.ids) for answer in answers]
        return np.array([reward(t, p.answer) for t, p in zip(texts, problems, strict=True)], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step's answers were like.

    Args:
        step: Its number, from 0.
        reward: Share of right answers.
        solved: Share of questions with at least one right answer.
        mixed: Share of questions with right and wrong answers, the only ones that teach.
        length: Mean tokens that the model chose for an answer.
        ended: Share of answers that came to an end by themselves.
        entropy: Mean surprise of the chosen tokens in nats, which estimates the entropy of the model's choices.
        draws: How often questions were drawn until one was mixed.
        seconds: Spent on drawing.
        loading: Of these, on taking over the weights.
    """

    step: int
    reward: float
    solved: float
    mixed: float
    length: float
    ended: float
    entropy: float
    draws: int
    seconds: float
    loading: float


def describe(answers: Sequence[Answer]) -> tuple[float, float, float]:
    """Mean chosen tokens an answer, share that ended, and mean surprise of a chosen token in nats."""
    choices = [sum(answer.chosen) + answer.ended for answer in answers]
    length = float(np.mean(choices))
    ended = float(np.mean([answer.ended for answer in answers]))
    return length, ended, -sum(answer.logprob for answer in answers) / max(1, sum(choices))


class Rollouts:
    """Training data made from the model that is trained, as it is when a batch is asked for.

    A step's questions and draws depend on the seed and the step alone, so that a resumed run, which has the same
    weights, makes the same batches. Where several processes train together each makes them all.

    Args:
        model: The model that is trained.
        tokenizer: Its tokenizer.
        problems: What to ask.
        how: How to draw.
        every: Steps an epoch.
        log: File that gets a line of JSON a step; None for none.
        reference: The model before training, for ``how.kl``.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, problems: Sequence[Problem], how: Drawing, every: int,
        log: Path | None = None, reference: Transformer | None = None,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.problems, self.how, self.every = model, tokenizer, problems, how, every
        self.log, self.reference = log, reference
        self.steps: dict[int, Step] = {}
        self._torn = False  # the log holds a part of a line, which a killed run left
        if log is not None and log.exists():
            for line in log.read_text(encoding="utf-8").splitlines():
                found = _step(line)
                if found is not None:
                    self.steps[found.step] = found
                self._torn = self._torn or found is None

    def steps_per_epoch(self, epoch: int) -> int:
        """Batches in an epoch."""
        return self.every

    def epoch(self, epoch: int) -> Sequence[Batch]:
        """The batches of an epoch, each made when it is asked for."""
        return MadeBatches(self.every, lambda at: self.batch(epoch * self.every + at))

    def batch(self, step: int) -> Batch:
        """Draw answers with the current weights and weigh them by their rewards."""
        begun = time.perf_counter()
        training = self.model.training
        self.model.eval()
        answerer = Answerer(self.model, self.tokenizer, self.how.max_new, self.how.tool)
        drawn: list[np.ndarray] = []  # of all attempts: to keep the last alone would leave out what taught nothing
        for attempt in range(_ATTEMPTS):
            asked = self._asked(step, attempt)
            answers = answerer.ask(asked, self._sampling(step, attempt))
            rewards = answerer.rewards(asked, answers).reshape(-1, self.how.samples)  # (Q, G)
            drawn.append(rewards)
            mixed = rewards.max(axis=1) > rewards.min(axis=1)
            if mixed.any():
                break
        advantages = advantages_of(rewards, self.how.spread).ravel()
        rows = np.flatnonzero(np.repeat(mixed, self.how.samples))
        if not len(rows):
            rows = np.arange(1)  # nothing to learn: one row without weight, for a batch must have one
        prompts = [answerer.prompt(problem) for problem in asked]
        batch = assemble(prompts, answers, advantages, rows)
        if self.how.kl and self.reference is not None:
            self._hold(batch)
        self.model.train(training)
        length, ended, entropy = describe(answers)
        every = np.concatenate(drawn)  # (attempts Q, G)
        best, worst = every.max(axis=1), every.min(axis=1)
        self._note(Step(
            step, float(every.mean()), float(best.mean()), float((best > worst).mean()), length, ended, entropy,
            attempt + 1, time.perf_counter() - begun, answerer.seconds,
        ))  # fmt: skip
        return batch

    def _asked(self, step: int, attempt: int) -> list[Problem]:
        """The step's questions, each as often as it is answered."""
        rng = np.random.default_rng([self.how.seed, step, attempt])
        count = min(self.how.questions, len(self.problems))
        chosen = rng.choice(len(self.problems), size=count, replace=False)
        return [self.problems[i] for i in chosen for _ in range(self.how.samples)]

    def _sampling(self, step: int, attempt: int) -> Sampling:
        seed = np.random.SeedSequence([self.how.seed, step, attempt, 1]).generate_state(1, np.uint64)[0]
        return Sampling(self.how.temperature, seed=int(seed), top_k=self.how.top_k)

    def _hold(self, batch: Batch) -> None:
        """Lower each chosen token's weight by how much likelier it is now than before training, times ``kl``.

        The gradient of ``KL(now || before)``, each token's own term (Schulman 2020, k1 in the reward).
        """
        assert self.reference is not None
        now, before = (token_logprobs(model, batch) for model in (self.model, self.reference))
        np.subtract(batch.weights, self.how.kl * (now - before), out=batch.weights, where=batch.weights != 0)

    def _note(self, step: Step) -> None:
        """Remember a step, and forget later ones, which a run that went back made."""
        stale = [number for number in self.steps if number >= step.step]
        for number in stale:
            del self.steps[number]
        self.steps[step.step] = step
        if self.log is None:
            return
        if stale or self._torn:
            write_atomic(self.log, "".join(_line(s) for s in self.steps.values()))
            self._torn = False
        else:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(_line(step))

    def recent(self, epoch: int) -> dict[str, float]:
        """Means over the steps of an epoch."""
        steps = [s for s in self.steps.values() if s.step // self.every == epoch]
        names = ("reward", "solved", "mixed", "length", "ended", "entropy")
        return {name: float(np.mean([getattr(s, name) for s in steps])) for name in names} if steps else {}


def advantages_of(rewards: np.ndarray, spread: bool = False) -> np.ndarray:
    """Rewards less their question's mean, ``(Q, G)``; divided by its standard deviation where that is asked for."""
    above = rewards - rewards.mean(axis=1, keepdims=True)
    if spread:
        above = above / np.maximum(rewards.std(axis=1, keepdims=True), 1e-6)
    return np.asarray(above, dtype=np.float32)


def assemble(
    prompts: Sequence[Sequence[int]], answers: Sequence[Answer], advantages: np.ndarray, rows: Iterable[int]
) -> Batch:
    """Answers as rows to learn from.

    Args:
        prompts: Before each answer.
        answers: All of the step's, N.
        advantages: Weight of each, ``(N,)``.
        rows: Which of them become rows; the others count in what the loss is divided by.

    Returns:
        ``(B, T)``: weights are the advantage on tokens the model chose, END among them, and 0 elsewhere.
    """
    kept = list(rows)
    length = padded_length(max(len(prompts[i]) + len(answers[i].ids) for i in kept))
    ids = np.full((len(kept), length + 1), PAD, dtype=np.int64)
    weights = np.zeros((len(kept), length + 1), dtype=np.float32)
    for r, i in enumerate(kept):
        start, answer = len(prompts[i]), answers[i]
        written = [*answer.ids, *([END] if answer.ended else [])]
        ids[r, : start + len(written)] = [*prompts[i], *written]
        chosen = [*answer.chosen, *([True] if answer.ended else [])]
        weights[r, start : start + len(written)] = advantages[i] * np.array(chosen, dtype=np.float32)
    total = float(sum(sum(answer.chosen) + answer.ended for answer in answers))
    return Batch(ids[:, :-1], ids[:, 1:], weights[:, 1:], np.array(kept), max(1.0, total))


@torch.no_grad()
def token_logprobs(model: Transformer, batch: Batch) -> np.ndarray:
    """Log-probability of every target, ``(B, T)`` float32."""
    device = model.embed.weight.device
    found = []
    for at in range(0, len(batch.ids), _KL_ROWS):
        part = batch.take(slice(at, at + _KL_ROWS))
        logits = model.logits(model(torch.from_numpy(np.ascontiguousarray(part.ids)).to(device))).float()  # (b, T, V)
        targets = torch.from_numpy(np.ascontiguousarray(part.targets)).to(device)
        found.append(-F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape))
    return torch.cat(found).cpu().numpy()


def _line(step: Step) -> str:
    return json.dumps(asdict(step)) + "\n"


def _step(line: str) -> Step | None:
    """A line of the log; None where a killed run left a part of one."""
    try:
        return Step(**json.loads(line))
    except (ValueError, TypeError):
        return None
