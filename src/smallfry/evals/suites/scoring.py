"""What a suite asks of a language model: log-probabilities of continuations that share a prefix.

A group is read once: its prefix, then all its branches in the same row, each of which sees the prefix and itself only.
With ten examples before a question and four short answers after it that saves three quarters of the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from smallfry.engine.constraints import ToolConstraint
from smallfry.engine.torch_engine import TorchEngine
from smallfry.model import Transformer
from smallfry.tokenizer import ASSISTANT, BOS, USER, Tokenizer

_BATCH_TOKENS = 8192
_BATCH_SCORES = 32_000_000  # attention scores of one head in a batch: rows x length^2


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


class LanguageModel(Protocol):
    """Anything that gives log-probabilities."""

    name: str
    context: int  # most tokens it can read
    lead: str  # what its chat template puts before an answer

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without a beginning-of-sequence token."""

    def start(self) -> list[int]:
        """What stands before every text: the beginning-of-sequence token."""

    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """Every branch of every group."""

    def chat(self, text: str) -> list[int]:
        """Token ids of a conversation in which the user said ``text`` and it is the model's turn."""

    def generate(self, prompts: Sequence[str], max_new: int) -> list[str]:
        """What greedy decoding writes after each prompt, in at most ``max_new`` tokens."""

    def generate_ids(self, prompts: Sequence[Sequence[int]], max_new: int, tool: Tool | None) -> list[str]:
        """The same after token ids; a tool is shown what was written so far and may write on."""


@dataclass(slots=True)
class _Row:
    """A group laid out in one row: prefix, then each branch without its last token."""

    ids: list[int]
    positions: list[int]
    segments: list[int]  # 0 for the prefix, then 1, 2, ... a branch
    ask: list[int]  # place whose logits predict a scored token
    targets: list[int]
    owners: list[int]  # branch of each asked place

    @staticmethod
    def of(group: Group) -> _Row:
        prefix = len(group.prefix)
        row = _Row(list(group.prefix), list(range(prefix)), [0] * prefix, [], [], [])
        for number, branch in enumerate(group.branches):
            first = len(row.ids)
            row.ids += branch.ids[:-1]
            row.positions += range(prefix, prefix + len(branch.ids) - 1)
            row.segments += [number + 1] * (len(branch.ids) - 1)
            for at in range(branch.scored_from, len(branch.ids)):
                row.ask.append(prefix - 1 if at == 0 else first + at - 1)
                row.targets.append(branch.ids[at])
                row.owners.append(number)
        return row


class TransformerScorer:
    """A smallfry model as a `LanguageModel`.

    Args:
        name: For tables.
        model: In evaluation mode.
        tokenizer: The model's.
        context: Most tokens of one text.
    """

    def __init__(self, name: str, model: Transformer, tokenizer: Tokenizer, context: int = 2048) -> None:
        self.name, self.model, self.tokenizer, self.context, self.lead = name, model, tokenizer, context, " "

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.tokenizer.encode(text)

    def start(self) -> list[int]:
        """``<|bos|>``."""
        return [BOS]

    def generate(self, prompts: Sequence[str], max_new: int) -> list[str]:
        """Greedy continuations; a prompt that is too long loses its beginning."""
        max_new = min(max_new, self.context // 2)
        room = self.context - max_new - len(self.start())
        ids = [[*self.start(), *self.encode(prompt)[-room:]] for prompt in prompts]
        return self.generate_ids(ids, max_new, None)

    def chat(self, text: str) -> list[int]:
        """``<|user|> text<|assistant|>``."""
        return [USER, *self.tokenizer.encode(" " + text), ASSISTANT]

    def generate_ids(self, prompts: Sequence[Sequence[int]], max_new: int, tool: Tool | None) -> list[str]:
        """Greedy continuations of token ids; what a tool writes is forced on the model."""
        max_new = min(max_new, self.context // 2)
        kept = [list(ids[-(self.context - max_new) :]) for ids in prompts]
        watching = [ToolConstraint(self.tokenizer, tool) if tool else None for _ in kept]
        answers = TorchEngine(self.model).generate(kept, watching, max_new)
        return [self.tokenizer.decode(answer.ids) for answer in answers]

    @torch.inference_mode()
    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """Every branch of every group, groups of about the same length together."""
        rows = [_Row.of(group) for group in groups]
        found: list[list[Scored]] = [[] for _ in groups]
        for batch in _batches([len(row.ids) for row in rows]):
            for index, scored in zip(batch, self._score([rows[i] for i in batch]), strict=True):
                found[index] = scored
        return found

    def _score(self, rows: Sequence[_Row]) -> list[list[Scored]]:
        device, dtype = self.model.embed.weight.device, self.model.embed.weight.dtype
        ids, positions, mask = _pack(rows, dtype)
        hidden = self.model(ids.to(device), positions=positions.to(device), mask=mask.to(device))  # (B, T, C)
        length = ids.shape[1]
        places = torch.tensor([r * length + at for r, row in enumerate(rows) for at in row.ask], device=device)
        logits = self.model.logits(hidden.flatten(0, 1)[places]).float()  # (N, V)
        targets = torch.tensor([t for row in rows for t in row.targets], device=device)
        values = torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0].cpu().numpy()
        hits = (logits.argmax(dim=-1) == targets).cpu().numpy()
        results = []
        at = 0
        for row in rows:
            owners = np.array(row.owners)
            value, hit = values[at : at + len(owners)], hits[at : at + len(owners)]
            at += len(owners)
            results.append([
                Scored(float(value[mine].sum()), int(mine.sum()), bool(hit[mine].all()))
                for mine in (owners == branch for branch in range(max(row.owners) + 1))
            ])  # fmt: skip
        return results


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Longest first, so that a batch that does not fit into memory is met at once."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batch[0]] if batch else lengths[index]
        rows = len(batch) + 1
        if batch and (rows * longest > _BATCH_TOKENS or rows * longest * longest > _BATCH_SCORES):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _pack(rows: Sequence[_Row], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and positions ``(B, T)`` and the additive mask ``(B, 1, T, T)`` that keeps branches apart."""
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    segments = torch.full((len(rows), length), -1, dtype=torch.long)
    for r, row in enumerate(rows):
        ids[r, : len(row.ids)] = torch.tensor(row.ids)
        positions[r, : len(row.ids)] = torch.tensor(row.positions)
        segments[r, : len(row.ids)] = torch.tensor(row.segments)
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    mine = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])  # (B, T, T)
    seen = earlier & mine | torch.eye(length, dtype=torch.bool)  # padding looks at itself
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)
    return ids, positions, mask[:, None]


class GuessingModel:
    """The control that knows nothing: every branch has a random log-probability, nothing is ever greedy.

    Args:
        like: Whose tokens and context to use, so that prompts are built alike.
        seed: Of the guesses.
    """

    def __init__(self, like: LanguageModel, seed: int = 0) -> None:
        self.name, self.context, self.lead, self._like, self._seed = "guessing", like.context, like.lead, like, seed

    def encode(self, text: str) -> list[int]:
        """As the model it stands beside."""
        return self._like.encode(text)

    def start(self) -> list[int]:
        """As the model it stands beside."""
        return self._like.start()

    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """A draw a branch, seeded by its tokens, as if it had one token."""
        return [
            [Scored(-self._draw(g.prefix, number, b.ids), 1, False) for number, b in enumerate(g.branches)]
            for g in groups
        ]

    def chat(self, text: str) -> list[int]:
        """As the model it stands beside."""
        return self._like.chat(text)

    def generate(self, prompts: Sequence[str], max_new: int) -> list[str]:
        """Nothing."""
        return [""] * len(prompts)

    def generate_ids(self, prompts: Sequence[Sequence[int]], max_new: int, tool: Tool | None) -> list[str]:
        """Nothing."""
        return [""] * len(prompts)

    def _draw(self, *what: Any) -> float:
        digest = hashlib.blake2b(repr((self._seed, what)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2.0**64
