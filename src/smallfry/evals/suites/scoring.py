"""What a suite asks of a language model: log-probabilities of continuations that share a prefix, and answers."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from smallfry.engine.decoding import Sampling
from smallfry.evals.suites.texts import Texts

_FEWEST, _MOST = 16, 256  # groups that a thread takes at once
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation: ``ids`` follow the prefix, those from ``scored_from`` on are scored."""

    ids: tuple[int, ...]
    scored_from: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Continuations of one prefix, which holds at least one token."""

    prefix: tuple[int, ...]
    branches: tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """A scored branch.

    Args:
        logprob: Log-probability in nats of its scored tokens together.
        tokens: How many they are.
        greedy: Whether greedy decoding would have written every one of them.
    """

    logprob: float
    tokens: int
    greedy: bool


Tool = Callable[[str], str | None]  # from the text so far to what is to be written next, or None


def score_all(model: LanguageModel, groups: Sequence[Group]) -> list[list[Scored]]:
    """Score many groups, shared among the threads that may ask the model at once."""
    size = max(_FEWEST, min(_MOST, -(-len(groups) // (8 * model.workers))))
    if len(groups) <= size:
        return model.score(groups)  # one share: PyTorch may use every core inside an operation
    slices = (groups[at : at + size] for at in range(0, len(groups), size))
    return [scored for part in in_threads(model.score, slices, model.workers) for scored in part]


@dataclass(frozen=True, slots=True)
class Writing:
    """How a model is to write.

    Args:
        max_new: Most tokens.
        tool: Shown what was written so far, it may write on.
        sampling: How tokens are drawn; None takes the likeliest.
        stops: Texts that end what is written and do not belong to it.
    """

    max_new: int
    tool: Tool | None = None
    sampling: Sampling | None = None
    stops: tuple[str, ...] = ()


class LanguageModel(Protocol):
    """Anything that gives log-probabilities."""

    name: str
    context: int  # most tokens it can read
    texts: Texts  # how it spells
    workers: int  # threads that may ask it at once

    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """Every branch of every group."""

    def generate(self, prompts: Sequence[Sequence[int]], how: Writing) -> list[str]:
        """What is written after token ids; of a prompt that is too long the end is kept."""


def too_long(model: LanguageModel, prompts: Sequence[Sequence[int]], max_new: int) -> int:
    """How many prompts lose their beginning where ``max_new`` tokens are to be written."""
    room = model.context - min(max_new, model.context // 2)
    return sum(len(prompt) > room for prompt in prompts)


def write(model: LanguageModel, prompts: Sequence[str], how: Writing) -> list[str]:
    """What a model writes after plain texts; a text that is too long loses its beginning."""
    start = model.texts.start()
    room = model.context - min(how.max_new, model.context // 2) - len(start)
    return model.generate([[*start, *model.texts.encode(prompt)[-room:]] for prompt in prompts], how)


def in_threads(work: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R]:
    """Results in order, a thread a core: PyTorch lets other threads go on while it computes.

    Two threads with an operation each are faster than two threads in one operation where the operations are small.

    Args:
        work: Done for each item, with one thread inside PyTorch.
        items: Taken as threads become free; what is not needed any more is not begun when the iterator is closed.
        workers: Threads.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


class GuessingModel:
    """The control that knows nothing: every branch has a random log-probability, nothing is ever greedy.

    Args:
        like: Whose tokens and context to use, so that prompts are built alike.
        seed: Of the guesses.
    """

    def __init__(self, like: LanguageModel, seed: int = 0) -> None:
        self.name, self.context, self.texts, self.workers, self._seed = "guessing", like.context, like.texts, 1, seed

    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """A draw a branch, seeded by its tokens, as if it had one token."""
        return [
            [Scored(-self._draw(g.prefix, number, b.ids), 1, False) for number, b in enumerate(g.branches)]
            for g in groups
        ]

    def generate(self, prompts: Sequence[Sequence[int]], how: Writing) -> list[str]:
        """Nothing."""
        return [""] * len(prompts)

    def _draw(self, *what: Any) -> float:
        digest = hashlib.blake2b(repr((self._seed, what)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2.0**64
