"""Batched, KV-cached answering with PyTorch, under constraints, with the probability of every answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from smallfry.engine.constraints import Constraint
from smallfry.model import Cache, Transformer
from smallfry.tokenizer import END, PAD

_PROMPT_TOKENS = 8192  # padded tokens read at once
_CACHED_TOKENS = 65_536  # places in the KV cache of one batch


@dataclass(frozen=True, slots=True)
class Answer:
    """What was written, END left out, and the log-probability of all its choices together."""

    ids: list[int]
    logprob: float


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn where the likeliest is not simply taken.

    Args:
        temperature: What logits are divided by; above 0.
        top_p: Only the likeliest tokens are drawn that have this much probability together (Holtzman et al. 2020).
        seed: Of the draws.
        rows: Number of each prompt; its draws depend on the seed and this number, not on what is answered beside it.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    rows: tuple[int, ...] = ()

    def of(self, rows: Sequence[int]) -> Sampling:
        """The same for some of the prompts."""
        return replace(self, rows=tuple(self.rows[i] for i in rows) if self.rows else tuple(rows))

    def draws(self, row: int) -> np.random.Generator:
        """The generator of one prompt."""
        return np.random.default_rng([self.seed, self.rows[row] if self.rows else row])


def pick(logits: np.ndarray, sampling: Sampling, draws: np.random.Generator) -> int:
    """Draw a token from logits ``(V,)``."""
    scaled = logits.astype(np.float64) / sampling.temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    if sampling.top_p < 1.0:
        order = np.argsort(-p, kind="stable")
        kept = order[: int(np.searchsorted(np.cumsum(p[order]), sampling.top_p)) + 1]
        thinned = np.zeros_like(p)
        thinned[kept] = p[kept]
        p = thinned / thinned.sum()
    return int(draws.choice(len(p), p=p))


class TorchEngine:
    """Decoding of many prompts at once; rows may be of any length and finish at any time.

    Args:
        model: A model in evaluation mode.
        end: The token that ends an answer.
        share: Of the memory for keys and values, where several engines write at once.
    """

    def __init__(self, model: Transformer, end: int = END, share: float = 1.0) -> None:
        self.model, self.end, self._cached_tokens = model, end, max(1, int(_CACHED_TOKENS * share))
        self.device = model.embed.weight.device

    @torch.inference_mode()
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
                answers[i] = Answer(row.written, row.logprob)
        return [a for a in answers if a is not None]

    def _run(self, rows: list[_Row], max_new: int, sampling: Sampling | None) -> None:
        live = list(rows)
        room = max(len(r.pending) for r in live) + max_new + max(_forced_room(r.constraint) for r in live)
        dtype = self.model.embed.weight.dtype
        cache = Cache(self.model.shape, len(live), room, dtype, self.device)
        for _ in range(max_new):
            hidden = self._feed(live, cache)
            logits = self.model.logits(hidden).float()  # (B, V)
            for row, choice in zip(live, self._choose(live, logits, sampling), strict=True):
                row.take(*choice)
            for row in live:
                row.done = row.done or row.position + len(row.pending) >= room
            keep = [i for i, row in enumerate(live) if not row.done]
            if not keep:
                return
            if len(keep) <= 0.75 * len(live):
                cache.keep(torch.tensor(keep, device=self.device))
                live = [live[i] for i in keep]
            else:
                for row in live:
                    if row.done:
                        row.pending = [PAD]  # computed and ignored until the batch is worth shrinking
        return

    def _feed(self, rows: list[_Row], cache: Cache) -> Tensor:
        """Read every row's pending tokens; hidden state of the last of each, ``(B, C)``."""
        longest = max(len(r.pending) for r in rows)
        limit = cache.keys[0].shape[2] - 1
        ids = torch.full((len(rows), longest), PAD, dtype=torch.long)
        positions = torch.zeros((len(rows), longest), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row.pending)] = torch.tensor(row.pending)
            positions[i] = torch.arange(row.position, row.position + longest).clamp_(max=limit)
        last = torch.tensor([len(r.pending) - 1 for r in rows])
        for row in rows:
            if not row.done:
                row.position += len(row.pending)
        # Padding is written beyond each row's end, where nothing looks before the next real token overwrites it.
        hidden = self.model(ids.to(self.device), cache, positions.to(self.device))
        return hidden[torch.arange(len(rows)), last]  # type: ignore[no-any-return]

    def _choose(self, rows: Sequence[_Row], logits: Tensor, sampling: Sampling | None) -> list[tuple[int, float]]:
        free = [
            i for i, r in enumerate(rows) if not r.done and (r.constraint is None or r.constraint.allowed() is None)
        ]
        best: dict[int, tuple[int, float]] = {}
        if free:
            logprobs = torch.log_softmax(logits[free], dim=-1)
            values, ids = logprobs.max(dim=-1)
            for i, token, value, row in zip(free, ids.tolist(), values.tolist(), logprobs, strict=True):
                draws = rows[i].draws
                if sampling is not None and draws is not None:
                    token = pick(row.cpu().numpy(), sampling, draws)
                    value = float(row[token])
                best[i] = (token, value)
        table = logits.cpu().numpy() if len(free) < len(rows) else None
        for i, row in enumerate(rows):
            if i in best:
                continue
            if row.done:
                best[i] = (self.end, 0.0)
                continue
            assert table is not None and row.constraint is not None
            allowed = row.constraint.allowed()
            assert allowed is not None
            scores = table[i, allowed]
            at = int(scores.argmax())
            best[i] = (int(allowed[at]), -float(np.log(np.exp(scores - scores[at]).sum())))
        return [best[i] for i in range(len(rows))]

    @torch.inference_mode()
    def next_logprobs(self, prompts: Sequence[Sequence[int]], ids: Sequence[int]) -> np.ndarray:
        """Log-probabilities of ``ids`` as the next token, normalised among themselves.

        Args:
            prompts: Ids of each prompt.
            ids: The N tokens to choose between.

        Returns:
            ``(len(prompts), N)`` float32.
        """
        table = np.zeros((len(prompts), len(ids)), dtype=np.float32)
        wanted = torch.tensor(ids, device=self.device)
        for group in batches_of([len(p) for p in prompts], _PROMPT_TOKENS):
            batch = torch.full((len(group), max(len(prompts[i]) for i in group)), PAD, dtype=torch.long)
            for r, i in enumerate(group):
                batch[r, : len(prompts[i])] = torch.tensor(prompts[i])
            hidden = self.model(batch.to(self.device))
            last = torch.tensor([len(prompts[i]) - 1 for i in group])
            logits = self.model.logits(hidden[torch.arange(len(group)), last])[:, wanted].float()
            table[group] = torch.log_softmax(logits, dim=-1).cpu().numpy()
        return table

    @torch.inference_mode()
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
        totals = [0.0] * len(prompts)
        lengths = [len(p) + len(a) for p, a in zip(prompts, answers, strict=True)]
        for group in batches_of(lengths, _PROMPT_TOKENS):
            longest = max(lengths[i] for i in group)
            ids = torch.full((len(group), longest), PAD, dtype=torch.long)
            for r, i in enumerate(group):
                ids[r, : lengths[i]] = torch.tensor([*prompts[i], *answers[i]])
            hidden = self.model(ids.to(self.device))
            for r, i in enumerate(group):
                start = len(prompts[i]) - 1
                logits = self.model.logits(hidden[r, start : start + len(answers[i])]).float().cpu().numpy()
                totals[i] = _path_logprob(logits, answers[i], constraints[i])
        return totals


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

    __slots__ = ("constraint", "done", "draws", "end", "logprob", "pending", "position", "written")

    def __init__(self, prompt: list[int], constraint: Constraint | None, end: int) -> None:
        self.end = end
        self.draws: np.random.Generator | None = None
        self.pending = prompt  # tokens not read by the model yet
        self.constraint = constraint
        self.position = 0
        self.written: list[int] = []
        self.logprob = 0.0
        self.done = False

    def take(self, token: int, logprob: float) -> None:
        """Note a choice, and every token that it forces."""
        if self.done:
            return
        self.pending = []
        self.logprob += logprob
        while True:
            if token == self.end:
                self.done = True
                self.pending = [PAD]
                return
            self.written.append(token)
            self.pending.append(token)
            if self.constraint is None:
                return
            self.constraint.advance(token)
            allowed = self.constraint.allowed()
            if allowed is None or len(allowed) != 1:
                return
            token = int(allowed[0])


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
