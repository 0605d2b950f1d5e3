"""Answering many prompts at once, under constraints, with the probability of every answer, on any backend."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smallfry.engine.constraints import Constraint
from smallfry.sizes import Shape
from smallfry.tokenizer import END

Floats = NDArray[np.float32]

_PROMPT_TOKENS = 8192  # padded tokens read at once
_CACHED_TOKENS = 65_536  # places in the KV cache of one batch


@dataclass(frozen=True, slots=True)
class Answer:
    """What was written, END left out, and the log-probability of all its choices together.

    Args:
        ids: Tokens written.
        logprob: Of the model's choices together, END's too where it was one, in nats; what is forced costs nothing.
        chosen: Whether the model chose each of ``ids``; the others a constraint forced.
        ended: The model chose END; False where the room ran out or a constraint forced the end.
        whole: END was written, whoever chose it; False where the room ran out before.
    """

    ids: list[int]
    logprob: float
    chosen: list[bool] = field(default_factory=list)
    ended: bool = False
    whole: bool = False


class Session(Protocol):
    """Sequences that a model reads, with what it needs to remember of them."""

    def feed(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Read each row's next tokens; logits after the last of each, ``(rows, V)``. An empty row is left alone."""

    def keep(self, rows: Sequence[int]) -> None:
        """Row i becomes what row ``rows[i]`` was; the others are forgotten."""

    def rewind(self, row: int, length: int) -> None:
        """Forget everything behind a row's first ``length`` tokens."""


class Backend(Protocol):
    """A model that something computes: libfry, numpy or PyTorch."""

    @property
    def shape(self) -> Shape:
        """The model's shape."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weights as shipped."""

    def session(self, rows: int, length: int) -> Session:
        """Memory for ``rows`` sequences of up to ``length`` tokens."""

    def answer_logits(self, texts: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Floats]:
        """Logits after the tokens ``text[start:]`` of each text: one ``(len(text) - start, V)`` a text."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn where the likeliest is not simply taken.

    Args:
        temperature: What logits are divided by; above 0.
        top_p: Only the likeliest tokens are drawn that have this much probability together (Holtzman et al. 2020).
        seed: Of the draws.
        rows: Number of each prompt; its draws depend on the seed and this number, not on what is answered beside it.
        top_k: Only the k likeliest are drawn; 0 for all.
        min_p: Only tokens with at least this share of the likeliest one's probability are drawn.
        repetition: Divides positive and multiplies negative logits of tokens already written (Keskar et al. 2019).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    rows: tuple[int, ...] = ()
    top_k: int = 0
    min_p: float = 0.0
    repetition: float = 1.0

    def of(self, rows: Sequence[int]) -> Sampling:
        """The same for some of the prompts."""
        return replace(self, rows=tuple(self.rows[i] for i in rows) if self.rows else tuple(rows))

    def draws(self, row: int) -> np.random.Generator:
        """The generator of one prompt."""
        return np.random.default_rng([self.seed, self.rows[row] if self.rows else row])


def pick(logits: np.ndarray, sampling: Sampling, draws: np.random.Generator, written: Sequence[int] = ()) -> int:
    """Draw a token from logits ``(V,)``, of which ``written`` were written before."""
    scaled = logits.astype(np.float64)
    if sampling.repetition != 1.0 and len(written):
        past = np.unique(np.asarray(written))
        scaled[past] *= np.where(scaled[past] > 0, 1.0 / sampling.repetition, sampling.repetition)
    scaled /= sampling.temperature
    p = np.exp(scaled - scaled.max())  # the likeliest has 1
    if sampling.top_k or sampling.top_p < 1.0 or sampling.min_p > 0.0:
        order = np.argsort(-p, kind="stable")[: sampling.top_k or None]
        before = np.cumsum(p[order]) - p[order]
        kept = (before < sampling.top_p * p[order].sum()) & (p[order] >= sampling.min_p)
        kept[0] = True  # a top_p of nought means the likeliest
        order = order[kept]
        thinned = np.zeros_like(p)
        thinned[order] = p[order]
        p = thinned
    p /= p.sum()
    return int(draws.choice(len(p), p=p))


def pick_each(
    logits: np.ndarray, sampling: Sampling, draws: Sequence[np.random.Generator], written: Sequence[Sequence[int]]
) -> list[int]:
    """What `pick` draws from each row of logits ``(B, V)``; for all rows at once where there is a ``top_k`` only.

    Where several tokens share the k-th largest logit, others of them may be kept then than `pick` keeps.
    """
    only_k = sampling.repetition == 1.0 and sampling.top_p >= 1.0 and sampling.min_p <= 0.0
    if not only_k or not 0 < sampling.top_k < logits.shape[1] or len(logits) < 2:
        return [pick(*each) for each in zip(logits, itertools.repeat(sampling), draws, written, strict=False)]
    kept = np.sort(np.argpartition(logits, -sampling.top_k, axis=1)[:, -sampling.top_k :], axis=1)  # (B, k)
    scaled = np.take_along_axis(logits, kept, axis=1).astype(np.float64) / sampling.temperature
    cumulative = np.exp(scaled - scaled.max(axis=1, keepdims=True)).cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    at = (cumulative <= np.array([draw.random() for draw in draws])[:, None]).sum(axis=1)
    found: list[int] = kept[np.arange(len(kept)), at].tolist()
    return found


class Engine:
    """Decoding of many prompts at once; rows may be of any length and finish at any time.

    Args:
        backend: The model.
        end: The token that ends an answer.
        share: Of the memory for keys and values, where several engines write at once.
    """

    def __init__(self, backend: Backend, end: int = END, share: float = 1.0) -> None:
        self.backend, self.end, self._cached_tokens = backend, end, max(1, int(_CACHED_TOKENS * share))

    def generate(
        self, prompts: Sequence[Sequence[int]], constraints: Sequence[Constraint | None], max_new: int,
        sampling: Sampling | None = None,
    ) -> list[Answer]:  # fmt: skip
        """Answer every prompt.

        Args:
            prompts: Ids of each prompt.
            constraints: What each answer may hold, None for anything; they are advanced.
            max_new: Most tokens an answer may have, forced ones not counted against it when a constraint forces them.
            sampling: How free tokens are drawn; None takes the likeliest.

        Returns:
            Answers in the order of the prompts.
        """
        answers: list[Answer | None] = [None] * len(prompts)
        lengths = [len(p) for p in prompts]
        forced = [_forced_room(c) for c in constraints]
        rooms = [n + f + max_new for n, f in zip(lengths, forced, strict=True)]
        for group in batches_of(lengths, _PROMPT_TOKENS, rooms, self._cached_tokens):
            rows = [_Row(list(prompts[i]), constraints[i], self.end) for i in group]
            for row, i in zip(rows, group, strict=True):
                row.draws = sampling.draws(i) if sampling else None
            self._run(rows, max_new, sampling)
            for i, row in zip(group, rows, strict=True):
                answers[i] = Answer(row.written, row.logprob, row.chosen, row.ended, row.whole)
        return [a for a in answers if a is not None]

    def _run(self, rows: list[_Row], max_new: int, sampling: Sampling | None) -> None:
        live = list(rows)
        room = max(len(r.pending) for r in live) + max_new + max(_forced_room(r.constraint) for r in live)
        session = self.backend.session(len(live), room)
        for _ in range(max_new):
            logits = session.feed([row.pending for row in live])  # (B, V)
            for row in live:
                row.position += len(row.pending)
            for row, choice in zip(live, self._choose(live, logits, sampling), strict=True):
                row.take(*choice)
            for row in live:
                if row.position + len(row.pending) >= room:
                    row.done, row.pending = True, []
            keep = [i for i, row in enumerate(live) if not row.done]
            if not keep:
                return
            if len(keep) <= 0.75 * len(live):  # fewer rows are worth the move only then
                session.keep(keep)
                live = [live[i] for i in keep]

    def _choose(self, rows: Sequence[_Row], logits: Floats, sampling: Sampling | None) -> list[tuple[int, float, bool]]:
        allowed = [None if row.done or row.constraint is None else row.constraint.allowed() for row in rows]
        free = {i: row for i, row in enumerate(rows) if not row.done and allowed[i] is None}
        tokens: list[int] = logits.argmax(axis=1).tolist()
        if sampling is not None and free:
            draws = [row.draws for row in free.values() if row.draws is not None]
            drawn = pick_each(logits[list(free)], sampling, draws, [row.written for row in free.values()])
            for i, token in zip(free, drawn, strict=True):
                tokens[i] = token
        best: list[tuple[int, float, bool]] = []
        for i in range(len(rows)):
            if i in free:
                best.append((tokens[i], -_log_sum(logits[i], float(logits[i, tokens[i]])), True))
            elif (ids := allowed[i]) is not None:
                scores = logits[i, ids]
                at = int(scores.argmax())
                best.append((int(ids[at]), -_log_sum(scores, float(scores[at])), len(ids) > 1))
            else:  # done
                best.append((self.end, 0.0, False))
        return best

    def next_logprobs(self, prompts: Sequence[Sequence[int]], ids: Sequence[int]) -> np.ndarray:
        """Log-probabilities of ``ids`` as the next token, normalised among themselves.

        Args:
            prompts: Ids of each prompt.
            ids: The N tokens to choose between.

        Returns:
            ``(len(prompts), N)`` float32.
        """
        table = np.zeros((len(prompts), len(ids)), dtype=np.float32)
        for group in batches_of([len(p) for p in prompts], _PROMPT_TOKENS):
            session = self.backend.session(len(group), max(len(prompts[i]) for i in group))
            logits = session.feed([prompts[i] for i in group])[:, list(ids)]
            table[group] = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        return table

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        constraints: Sequence[Constraint | None],
    ) -> list[float]:
        """Log-probability of given answers, each token normalised over what its constraint allows at that place.

        Args:
            prompts: Ids of each prompt.
            answers: Ids of each answer, END included.
            constraints: Fresh constraints, or None; an answer they forbid scores -inf.
        """
        texts = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
        found = self.backend.answer_logits(texts, [len(prompt) - 1 for prompt in prompts])
        return [_path_logprob(*each) for each in zip(found, answers, constraints, strict=True)]


def _log_sum(scores: np.ndarray, above: float) -> float:
    """Log of the sum of e^(score - above)."""
    return float(np.log(np.exp(scores.astype(np.float64) - above).sum()))


def _path_logprob(logits: np.ndarray, answer: Sequence[int], constraint: Constraint | None) -> float:
    total = 0.0
    for row, token in zip(logits, answer, strict=True):
        allowed = constraint.allowed() if constraint is not None else None
        if allowed is None:
            top = row.max()
            total += float(row[token] - top - np.log(np.exp(row - top).sum()))
        else:
            if token not in allowed:
                return -math.inf
            scores = row[allowed]
            top = scores.max()
            total += float(row[token] - top - np.log(np.exp(scores - top).sum()))
        if constraint is not None:
            constraint.advance(token)
    return total


def _forced_room(constraint: Constraint | None) -> int:
    """Places to keep for the words of an inline answer, which are written besides the choices."""
    return len(getattr(constraint, "schedule", ()))


class _Row:
    """One answer being written."""

    __slots__ = (
        "chosen", "constraint", "done", "draws", "end", "ended", "logprob", "pending", "position", "whole", "written",
    )  # fmt: skip

    def __init__(self, prompt: list[int], constraint: Constraint | None, end: int) -> None:
        self.end = end
        self.draws: np.random.Generator | None = None
        self.pending = prompt  # tokens not read by the model yet
        self.constraint = constraint
        self.position = 0
        self.written: list[int] = []
        self.chosen: list[bool] = []
        self.logprob = 0.0
        self.done = self.ended = self.whole = False

    def take(self, token: int, logprob: float, own: bool) -> None:
        """Note a token, the model's own choice or not, and every token that it forces."""
        if self.done:
            return
        self.pending = []
        self.logprob += logprob
        while True:
            if token == self.end:
                self.done, self.ended, self.whole = True, own, True
                return
            self.written.append(token)
            self.chosen.append(own)
            self.pending.append(token)
            if self.constraint is None:
                return
            self.constraint.advance(token)
            allowed = self.constraint.allowed()
            if allowed is None or len(allowed) != 1:
                return
            token, own = int(allowed[0]), False


def batches_of(
    lengths: Sequence[int], batch_tokens: int, rooms: Sequence[int] = (), batch_room: int = 0
) -> Iterator[list[int]]:
    """Rows in length order into batches for asking.

    Args:
        lengths: Tokens of each row.
        batch_tokens: Padded tokens a batch holds at most.
        rooms: Places each row may come to need; empty for no second limit.
        batch_room: Places a batch holds at most, as if every row needed as many as the one that needs most.
    """
    group: list[int] = []
    widest = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        rows = len(group) + 1
        wider = max(widest, rooms[i]) if rooms else 0
        if group and (lengths[i] * rows > batch_tokens or wider * rows > batch_room > 0):
            yield group
            group, wider = [], rooms[i] if rooms else 0
        group.append(i)
        widest = wider
    if group:
        yield group
