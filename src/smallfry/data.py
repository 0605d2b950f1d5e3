"""Examples to padded token batches with loss weights; nothing is discarded, nothing depends on anything but the seed.

Every epoch is a pure function of ``(seed, epoch)``: order, segmentation, masking and value swapping are drawn from
generators made from these two numbers, so a run that was killed continues with exactly the batches it would have had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smallfry.forms import Encoded, Form, Item, swap_values, value_lexicon
from smallfry.job import Example
from smallfry.tokenizer import MASK, PAD, SPECIALS

Segmenter = Callable[[str], list[int]]  # a word in byte-level spelling to its ids

_END_WEIGHT = 0.05
_LENGTH_STEP = 4
# Segmentations drawn per word and epoch under BPE-dropout, at most one an occurrence. With a few for words that occur
# thousands of times (bAbI has 177 words) a model learns those few by heart, and the next epoch's are new to it.
_VARIANTS = 64


@dataclass(frozen=True, slots=True)
class Noise:
    """Input noise that keeps a small model from learning its few examples by heart.

    Args:
        token_mask: Probability of replacing a prompt token by ``<|mask|>``.
        bpe_dropout: Probability of skipping a merge when a word is cut into pieces.
        swap: Probability of replacing a copied value by another one (inline form only).
        answer_mask: Probability of masking the input's words where they are repeated in an inline answer.
    """

    token_mask: float = 0.0
    bpe_dropout: float = 0.0
    swap: float = 0.0
    answer_mask: float = 0.0


@dataclass(frozen=True, slots=True)
class Soft:
    """A teacher's distribution over the next token, its K likeliest kept (Hinton et al. 2015).

    Args:
        ids: The K likeliest tokens at each place, ``(B, T, K)`` int32.
        probs: Their probabilities at ``temperature``, ``(B, T, K)`` float32; what they lack to 1 is not learned from.
        share: Of the loss that is the teacher's; the rest is the true target's.
        temperature: What the teacher's and the student's logits are divided by.
    """

    ids: np.ndarray
    probs: np.ndarray
    share: float
    temperature: float

    def take(self, rows: slice | np.ndarray) -> Soft:
        """The same for some of the batch's rows."""
        return Soft(self.ids[rows], self.probs[rows], self.share, self.temperature)


@dataclass(frozen=True, slots=True)
class Batch:
    """One padded batch.

    Args:
        ids: Inputs, ``(B, T)`` int64.
        targets: The token after each input, ``(B, T)`` int64.
        weights: Loss weight of each target, ``(B, T)`` float32; 0 on padding. Where they may be negative, as rewards
            are, ``total`` must be given.
        rows: Which rows of the data set these are, ``(B,)``.
        total: What the weighted loss is divided by; None for the sum of the weights.
        soft: What a teacher says beside the targets.
    """

    ids: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    rows: np.ndarray
    total: float | None = None
    soft: Soft | None = None

    @property
    def num_tokens(self) -> int:
        """Positions computed, padding included."""
        return int(self.ids.size)

    @property
    def divisor(self) -> float:
        """What the weighted loss is divided by."""
        return float(self.weights.sum()) if self.total is None else self.total

    def take(self, rows: slice | np.ndarray) -> Batch:
        """Some of the rows; a given ``total`` stays that of the whole batch."""
        return replace(
            self, ids=self.ids[rows], targets=self.targets[rows], weights=self.weights[rows], rows=self.rows[rows],
            soft=self.soft and self.soft.take(rows),
        )  # fmt: skip


class JobData:
    """A job's training rows, ready to be cut into epochs.

    Args:
        examples: Rows.
        form: How rows are spelled.
        noise: Input noise.
        prompt_loss: Loss weight of the prompt's own tokens (language modelling of the input beside the answer).
        copy_loss: Loss weight of the input's words where an inline answer repeats them, which teaches a model where in
            the prompt it stands.
        batch_tokens: Padded tokens a batch holds at most (a longer row is a batch of its own).
        seed: Seed of everything drawn here.
    """

    def __init__(
        self, examples: Sequence[Example], form: Form, noise: Noise, prompt_loss: float, batch_tokens: int, seed: int,
        copy_loss: float = 0.0,
    ) -> None:  # fmt: skip
        self.form, self.noise, self.prompt_loss, self.copy_loss = form, noise, prompt_loss, copy_loss
        self.batch_tokens, self.seed = batch_tokens, seed
        pairs = [(e, s) for e in examples if (s := form.sequence(e)) is not None]
        self.examples = [e for e, _ in pairs]
        self.rows = [s for _, s in pairs]
        self.skipped = len(examples) - len(pairs)
        self._lexicon = (
            value_lexicon(self.examples, form.codec) if noise.swap and form.name == "inline" and form.codec else {}
        )

    def __len__(self) -> int:
        return len(self.rows)

    def epoch(self, epoch: int) -> list[Batch]:
        """All batches of one epoch in training order."""
        rng = np.random.default_rng([self.seed, epoch])
        rows = self._swapped(rng) if self._lexicon else self.rows
        pick = self._segmenter(rows, rng)
        sequences = [self._spell(row, pick) for row in rows]
        groups = bucket([len(ids) - 1 for ids, _, _ in sequences], self.batch_tokens, rng)
        return [self._batch(group, sequences, rng) for group in groups]

    def plain(self) -> list[Batch]:
        """All rows without noise, in length order: what a validation loss is measured on."""
        rng = np.random.default_rng([self.seed, 1 << 30])
        sequences = [self._spell(row, self.form.tokenizer.word_ids) for row in self.rows]
        groups = bucket([len(ids) - 1 for ids, _, _ in sequences], self.batch_tokens, rng)
        return [self._batch(group, sequences, None) for group in groups]

    def tokens_per_epoch(self) -> int:
        """Padded tokens of one noise-free epoch."""
        lengths = [len(self.form.ids(r.prompt)) + len(self.form.ids(r.answer)) - 1 for r in self.rows]
        rng = np.random.default_rng([self.seed, 1 << 30])
        return sum(padded_length(max(lengths[i] for i in g)) * len(g) for g in bucket(lengths, self.batch_tokens, rng))

    def _swapped(self, rng: np.random.Generator) -> list[Encoded]:
        assert self.form.codec is not None
        rows = []
        for example, row in zip(self.examples, self.rows, strict=True):
            other = swap_values(example, self.form.codec, self._lexicon, rng, self.noise.swap)
            rows.append(row if other is example else self.form.sequence(other) or row)
        return rows

    def _segmenter(self, rows: Sequence[Encoded], rng: np.random.Generator) -> Segmenter:
        if not self.noise.bpe_dropout:
            return self.form.tokenizer.word_ids
        words = Counter(item for row in rows for item in (*row.prompt, *row.answer) if isinstance(item, str))
        sample, dropout = self.form.tokenizer.sample_word_ids, self.noise.bpe_dropout
        table = {w: [sample(w, rng, dropout) for _ in range(min(n, _VARIANTS))] for w, n in sorted(words.items())}
        draws = iter(rng.integers(1 << 32, size=1 << 16).tolist())

        def pick(word: str) -> list[int]:
            nonlocal draws
            index = next(draws, None)
            if index is None:
                draws = iter(rng.integers(1 << 32, size=1 << 16).tolist())
                index = next(draws)
            variants = table[word]
            return variants[index % len(variants)]

        return pick

    def _spell(self, row: Encoded, pick: Segmenter) -> tuple[list[int], list[float], int]:
        """Ids, loss weight of each id, and the length of the prompt."""
        ids: list[int] = []
        weights: list[float] = []
        _spell_items(row.prompt, pick, ids, weights, word=self.prompt_loss, choice=0.0)
        length = len(ids)
        _spell_items(row.answer, pick, ids, weights, word=self.copy_loss, choice=1.0)
        if len(row.answer) == 2:  # a label and END: what follows a label is soon known and must not dilute the label
            weights[-1] = _END_WEIGHT
        return ids, weights, length

    def _batch(
        self, group: list[int], sequences: Sequence[tuple[list[int], list[float], int]], rng: np.random.Generator | None
    ) -> Batch:
        length = padded_length(max(len(sequences[i][0]) - 1 for i in group)) + 1  # inputs and targets are one shorter
        ids = np.full((len(group), length), PAD, dtype=np.int64)
        weights = np.zeros((len(group), length), dtype=np.float32)
        prompts = np.zeros((len(group), 1), dtype=np.int64)
        for r, i in enumerate(group):
            row_ids, row_weights, prompts[r] = sequences[i]
            ids[r, : len(row_ids)] = row_ids
            weights[r, : len(row_ids)] = row_weights
        seen = ids
        if rng is not None and (self.noise.token_mask or self.noise.answer_mask):
            # A masked token is only hidden from view: as a target it stays what it was.
            in_prompt = np.arange(length)[None] < prompts
            chance = np.where(
                in_prompt, self.noise.token_mask, self.noise.answer_mask * (weights == np.float32(self.copy_loss))
            )
            hide = (rng.random(ids.shape) < chance) & (ids >= len(SPECIALS))
            seen = np.where(hide, MASK, ids)
        return Batch(seen[:, :-1], ids[:, 1:], weights[:, 1:], np.array(group))


def _spell_items(
    items: Sequence[Item], pick: Segmenter, ids: list[int], weights: list[float], word: float, choice: float
) -> None:
    for item in items:
        if isinstance(item, str):
            pieces = pick(item)
            ids += pieces
            weights += [word] * len(pieces)
        else:
            ids.append(item)
            weights.append(choice)


def bucket(lengths: Sequence[int], batch_tokens: int, rng: np.random.Generator) -> list[list[int]]:
    """Rows of about the same length into batches of at most ``batch_tokens`` padded tokens, in random order.

    Every row is in exactly one batch. A little noise on the lengths keeps the same rows from always meeting. Batches of
    one padded length have one number of rows, because a CPU's matrix library compiles a kernel for each new shape.
    """
    keys = np.asarray(lengths) + rng.random(len(lengths)) * _LENGTH_STEP
    order = np.argsort(-keys, kind="stable").tolist()  # the longest first: those after it fit its length
    groups: list[list[int]] = []
    at = 0
    while at < len(order):
        # The noise may put a slightly longer row behind: look as far as it can reach.
        size = max(1, batch_tokens // padded_length(lengths[order[at]]))
        longest = max(lengths[i] for i in order[at : at + size])
        size = max(1, batch_tokens // padded_length(longest))
        groups.append(order[at : at + size])
        at += size
    return [groups[i] for i in rng.permutation(len(groups))]


def padded_length(length: int) -> int:
    """Lengths are rounded up to a multiple of four, so that few shapes occur."""
    return -(-length // _LENGTH_STEP) * _LENGTH_STEP
