"""Conversations as batches: spelled as the chat template spells them, with loss on what the assistant says.

``<|user|> text<|assistant|> text<|end|><|user|> ...``: loss is on an answer's tokens and its ``<|end|>``, on nothing
else: not on what the user says, not on a system message (which stands at the head of the user's first words), not on
``<|assistant|>``, which is given. Conversations are not packed into rows: rows of about the same length go together, so
that nothing is cut and no conversation sees another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from smallfry.corpus import CorpusData
from smallfry.data import Batch, bucket, padded_length
from smallfry.model import Transformer
from smallfry.tokenizer import ASSISTANT, END, PAD, USER, Tokenizer
from smallfry.training.epochs import Data, MadeBatches
from smallfry.tuning.conversations import Conversation, Message

Spelled = tuple[list[int], list[float]]
"""Ids, and the loss weight of each as a target."""

_HEAD_PLACES = 1024  # logits that exist at once while measuring


def spell(conversation: Conversation, tokenizer: Tokenizer) -> Spelled:
    """A conversation as ids, and the loss weight of each id: 1 where the assistant chooses it, else 0.

    What spells a special token in a text stays text. A conversation that ends with the user's words ends there: with
    ``<|assistant|>`` behind it, it is a prompt.

    Args:
        conversation: Turns; a first system message joins the user's first words, two line breaks between.
        tokenizer: smallfry's.
    """
    ids: list[int] = []
    weights: list[float] = []
    head = ""
    for message in conversation:
        if message.role == "system":
            head += message.content + "\n\n"
            continue
        words = tokenizer.encode(f" {head}{message.content}")
        head = ""
        if message.role == "user":
            ids += [USER, *words]
            weights += [0.0] * (1 + len(words))
        else:
            ids += [ASSISTANT, *words, END]
            weights += [0.0, *[1.0] * (len(words) + 1)]
    return ids, weights


def rows_of(conversation: Conversation, tokenizer: Tokenizer, seq_len: int, tally: Counter[str]) -> Iterator[Spelled]:
    """A conversation as rows of at most ``seq_len`` tokens, cut between an answer and the next question.

    A row that goes on with a conversation begins with its system message. Only an exchange that is longer than a row by
    itself is left out.

    Args:
        conversation: Turns that end with the assistant.
        tokenizer: smallfry's.
        seq_len: Inputs a row; its targets are as many.
        tally: Counts ``cuts in long conversations`` and ``exchanges longer than a row``.
    """
    head = conversation[:1] if conversation[:1] and conversation[0].role == "system" else ()
    held: Spelled = ([], [])
    for ask, answer in _exchanges(conversation[len(head) :]):
        begins = not held[0]
        part = spell((*(head if begins else ()), ask, answer), tokenizer)
        if not begins and len(held[0]) + len(part[0]) - 1 > seq_len:
            tally["cuts in long conversations"] += 1
            yield held
            held, part = ([], []), spell((*head, ask, answer), tokenizer)
        if not held[0] and len(part[0]) - 1 > seq_len:
            tally["exchanges longer than a row"] += 1
            continue
        held = (held[0] + part[0], held[1] + part[1])
    if held[0]:
        yield held


def _exchanges(turns: Sequence[Message]) -> Iterator[tuple[Message, Message]]:
    for at in range(0, len(turns) - 1, 2):
        yield turns[at], turns[at + 1]


class ChatData:
    """Conversations, ready to be cut into epochs.

    Every epoch is a pure function of the seed and its number. With weights, an epoch has about as many tokens as all
    conversations have, each source its share of them; a source's conversations then come in passes of their own.

    Args:
        conversations: What to learn from.
        tokenizer: smallfry's.
        seq_len: Longest row.
        batch_tokens: Padded tokens of a batch at most.
        seed: Of order and of what a mixture takes.
        source_of: Which source each conversation is from; all from one by default.
        weights: Shares of the sources; None takes everything once an epoch.
    """

    def __init__(
        self, conversations: Sequence[Conversation], tokenizer: Tokenizer, seq_len: int, batch_tokens: int, seed: int,
        source_of: Sequence[int] | None = None, weights: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        self.seq_len, self.batch_tokens, self.seed = seq_len, batch_tokens, seed
        self.tally: Counter[str] = Counter()
        self.rows: list[tuple[np.ndarray, np.ndarray]] = []  # ids and weights: lists would take ten times the memory
        self.conversation_of: list[int] = []  # which conversation a row is of
        owners: list[int] = []
        for number, conversation in enumerate(conversations):
            for ids, row_weights in rows_of(conversation, tokenizer, seq_len, self.tally):
                self.rows.append((np.array(ids, dtype=np.int32), np.array(row_weights, dtype=np.float32)))
                self.conversation_of.append(number)
                owners.append(source_of[number] if source_of is not None else 0)
        self._sources = [np.flatnonzero(np.array(owners) == s) for s in range(len(weights or [1.0]))]
        self._passes = self._passes_by_weight(weights) if weights is not None else None

    def _passes_by_weight(self, weights: Sequence[float]) -> list[float]:
        """How often each source is read in an epoch."""
        tokens = [sum(len(self.rows[i][0]) for i in rows) for rows in self._sources]
        return [w / sum(weights) * sum(tokens) / max(1, n) for w, n in zip(weights, tokens, strict=True)]

    @property
    def passes(self) -> list[float]:
        """How often each source is read in an epoch."""
        return self._passes or [1.0] * len(self._sources)

    @property
    def tokens(self) -> int:
        """Tokens of all conversations, padding left out."""
        return sum(len(ids) - 1 for ids, _ in self.rows)

    @property
    def answer_tokens(self) -> int:
        """Tokens of theirs that are learned."""
        return round(sum(float(weights.sum()) for _, weights in self.rows))

    def epoch(self, epoch: int) -> Sequence[Batch]:
        """The batches of an epoch in training order, made when they are asked for."""
        rng = np.random.default_rng([self.seed, epoch])
        chosen = self._chosen(epoch)
        groups = bucket([len(self.rows[i][0]) - 1 for i in chosen], self.batch_tokens, rng)
        return self._made([[chosen[i] for i in group] for group in groups])

    def _chosen(self, epoch: int) -> list[int]:
        if self._passes is None:
            return list(range(len(self.rows)))
        chosen: list[int] = []
        for source, (rows, passes) in enumerate(zip(self._sources, self._passes, strict=True)):
            begin, end = (round(passes * len(rows) * (epoch + i)) for i in (0, 1))
            for turn in range(begin // max(1, len(rows)), math.ceil(end / max(1, len(rows)))):
                order = np.random.default_rng([self.seed, source, turn, 1]).permutation(rows)
                at = turn * len(rows)
                chosen += order[max(0, begin - at) : end - at].tolist()
        return chosen

    def plain(self) -> Sequence[Batch]:
        """Every row once, the same ones together every time: what a loss is measured on."""
        lengths = [len(ids) - 1 for ids, _ in self.rows]
        return self._made(bucket(lengths, self.batch_tokens, np.random.default_rng([self.seed, 1 << 30])))

    def _made(self, groups: list[list[int]]) -> Sequence[Batch]:
        return MadeBatches(len(groups), lambda at: self.batch(groups[at]))

    def tokens_per_epoch(self) -> int:
        """Padded tokens of the first epoch."""
        return sum(batch.num_tokens for batch in self.epoch(0))

    def batch(self, group: Sequence[int]) -> Batch:
        """Rows as a batch, ``(B, T)``."""
        length = padded_length(max(len(self.rows[i][0]) - 1 for i in group)) + 1  # inputs and targets are one shorter
        ids = np.full((len(group), length), PAD, dtype=np.int64)
        weights = np.zeros((len(group), length), dtype=np.float32)
        for r, i in enumerate(group):
            row_ids, row_weights = self.rows[i]
            ids[r, : len(row_ids)] = row_ids
            weights[r, : len(row_ids)] = row_weights
        return Batch(ids[:, :-1], ids[:, 1:], weights[:, 1:], np.array(group))


class MixedData:
    """Other data with batches of pretraining text strewn among its own, evenly, so that the text is not forgotten.

    Args:
        data: What is tuned on.
        corpus: The text.
        share: Of all tokens, the text's; between 0 and 1.
        tokens: Padded tokens of the data's first epoch: to make its batches only to count them may take a teacher.
    """

    def __init__(self, data: Data, corpus: CorpusData, share: float, tokens: int) -> None:
        self.data, self.corpus = data, corpus
        self.extra = max(1, round(tokens * share / (1.0 - share) / corpus.batch_tokens))  # batches of text an epoch
        self.text_tokens = self.extra * corpus.batch(0).num_tokens  # an epoch

    def epoch(self, epoch: int) -> Sequence[Batch]:
        """The batches of an epoch in training order, made when they are asked for."""
        own, first = self.data.epoch(epoch), epoch * self.extra
        places = np.concatenate([(np.arange(n) + 0.5) / n for n in (len(own), self.extra)])
        numbers = np.concatenate([np.arange(len(own)), -1 - np.arange(self.extra)])  # the text's are negative
        order = numbers[np.argsort(places, kind="stable")].tolist()

        def make(at: int) -> Batch:
            number = order[at]
            return own[number] if number >= 0 else self.corpus.batch(first - 1 - number)

        return MadeBatches(len(order), make)


@torch.no_grad()
def answer_sums(model: Transformer, batches: Sequence[Batch], owners: Sequence[int]) -> np.ndarray:
    """How well a model knows answers: ``(n, 2)``, weighted nats and weights of each conversation's or row's answers.

    Args:
        model: On its device; left in the mode it was in.
        batches: What is measured.
        owners: Which conversation each row is of; those without any weight are left out.
    """
    sums = np.zeros((max(owners, default=-1) + 1, 2))
    was_training = model.training
    model.eval()
    device = model.embed.weight.device
    for batch in batches:
        hidden = model(torch.from_numpy(np.ascontiguousarray(batch.ids)).to(device)).flatten(0, 1)  # (B T, C)
        places = np.flatnonzero(batch.weights)
        weights = batch.weights.ravel()[places]
        mine = np.array([owners[i] for i in batch.rows])[places // batch.ids.shape[1]]
        for at in range(0, len(places), _HEAD_PLACES):
            part = slice(at, at + _HEAD_PLACES)
            targets = torch.from_numpy(batch.targets.ravel()[places[part]]).to(device)
            logits = model.logits(hidden[torch.from_numpy(places[part]).to(device)]).float()  # (N, V)
            nats = F.cross_entropy(logits, targets, reduction="none").cpu().numpy()
            np.add.at(sums, (mine[part], 0), nats * weights[part])
            np.add.at(sums, (mine[part], 1), weights[part])
    model.train(was_training)
    return sums[sums[:, 1] > 0]
