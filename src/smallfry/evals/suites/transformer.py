"""The transformer as a language model for suites: prefixes read once, branches beside each other in one row.

A group is read once: its prefix, then all its branches in the same row, each of which sees the prefix and itself only.
With ten examples before a question and four short answers after it that saves three quarters of the work.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smallfry.checkpoint import to_hf_state
from smallfry.engine.constraints import WatchConstraint, cut_at
from smallfry.engine.decoding import Engine, batches_of
from smallfry.engine.native import NativeModel, Rows, kernel_sets
from smallfry.engine.torch_engine import TorchModel
from smallfry.engine.weights import Kind, Weights
from smallfry.evals.suites.scoring import Branch, Group, Scored, Writing, in_threads
from smallfry.evals.suites.texts import Texts
from smallfry.machine import default_workers
from smallfry.model import Transformer

_BATCH_TOKENS = 4096  # padded: what a core's caches hold of a small model's activations
_BATCH_SCORES = 8_000_000  # attention scores of one head in a batch: rows x length^2
_NATIVE_TOKENS = 2048  # nothing is padded there; what a core's caches hold of one batch
_ROW_TOKENS = 256  # of a row with many branches, unless its prefix alone is longer
_HEAD_ROWS = 256  # places whose logits are computed together


@dataclass(slots=True)
class _Row:
    """A group laid out in one row: prefix, then each branch without its last token."""

    prefix: int
    ids: list[int]
    positions: list[int]
    branch: list[int]  # where in the row a token's branch begins, 0 in the prefix
    ask: list[int]  # place whose logits predict a scored token
    targets: list[int]
    counts: list[int]  # scored tokens of each branch

    @staticmethod
    def of(group: Group) -> _Row:
        prefix = len(group.prefix)
        row = _Row(prefix, list(group.prefix), list(range(prefix)), [0] * prefix, [], [], [])
        for branch in group.branches:
            first, length = len(row.ids), len(branch.ids)
            row.ids += branch.ids[:-1]
            row.positions += range(prefix, prefix + length - 1)
            row.branch += [first] * (length - 1)
            at = branch.scored_from
            row.ask += [prefix - 1, *range(first, first + length - 1)][at:]
            row.targets += branch.ids[at:]
            row.counts.append(length - at)
        return row


def native_scorer(model: Transformer) -> NativeModel | None:
    """Libfry for a model on a CPU, where it was built and has kernels that are faster than PyTorch's."""
    weight = model.embed.weight
    kind: dict[torch.dtype, Kind] = {torch.bfloat16: "bf16", torch.float32: "fp32"}
    if weight.device.type != "cpu" or weight.dtype not in kind or kernel_sets()[:1] in ([], ["plain"]):
        return None
    tensors = {name: tensor.float().numpy() for name, tensor in to_hf_state(model).items()}
    try:
        return NativeModel(Weights(model.shape, model.variant, tensors), kind[weight.dtype])
    except LookupError:
        return None


class TransformerScorer:
    """A `Transformer` as a `LanguageModel`: on a CPU by libfry where that is built, else by PyTorch.

    Args:
        name: For tables.
        model: In evaluation mode.
        texts: How it spells.
        context: Most tokens of one text.
    """

    def __init__(self, name: str, model: Transformer, texts: Texts, context: int = 2048) -> None:
        self.name, self.model, self.texts, self.context = name, model, texts, context
        self.native = native_scorer(model)
        self.workers = default_workers() if model.embed.weight.device.type == "cpu" else 1

    def generate(self, prompts: Sequence[Sequence[int]], how: Writing) -> list[str]:
        """Continuations of token ids; what a tool writes is forced on the model."""
        max_new = min(how.max_new, self.context // 2)
        kept = [list(ids[-(self.context - max_new) :]) for ids in prompts]
        engine = Engine(self.native or TorchModel(self.model), self.texts.end, 1.0 / self.workers)

        def answer(rows: range) -> list[str]:
            watched = how.tool is not None or how.stops
            watching = [WatchConstraint(self.texts, how.tool, how.stops, engine.end) if watched else None for _ in rows]
            mine = [kept[i] for i in rows]
            answers = engine.generate(mine, watching, max_new, how.sampling and how.sampling.of(rows))
            texts = [self.texts.written(ids, a.ids) for ids, a in zip(mine, answers, strict=True)]
            return [cut_at(text, how.stops) for text in texts]

        found = [""] * len(kept)
        shares = [range(w, len(kept), self.workers) for w in range(min(self.workers, len(kept)))]
        for rows, texts in zip(shares, in_threads(answer, shares, self.workers), strict=True):
            for i, text in zip(rows, texts, strict=True):
                found[i] = text
        return found

    def score(self, groups: Sequence[Group]) -> list[list[Scored]]:
        """Every branch of every group, groups of about the same length together."""
        parts = [part for group in groups for part in _parts(group)]
        scored = iter(self._rows([_Row.of(part) for part in parts]))
        found = []
        for group in groups:
            mine: list[Scored] = []
            while len(mine) < len(group.branches):
                mine += next(scored)
            found.append(mine)
        return found

    def _rows(self, rows: Sequence[_Row]) -> list[list[Scored]]:
        found: list[list[Scored]] = [[] for _ in rows]
        lengths = [len(row.ids) for row in rows]
        for batch in _batches(lengths) if self.native is None else batches_of(lengths, _NATIVE_TOKENS):
            mine = [rows[i] for i in batch]
            values, hits = self._ask(mine) if self.native is None else self.native.score(_laid_out(mine))
            for index, scored in zip(batch, _gathered(mine, values, hits), strict=True):
                found[index] = scored
        return found

    @torch.inference_mode()
    def _ask(self, rows: Sequence[_Row]) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of every target, and whether it is the likeliest, in the rows' order."""
        device, dtype = self.model.embed.weight.device, self.model.embed.weight.dtype
        ids, positions, mask = _pack(rows, dtype)
        hidden = self.model(ids.to(device), positions=positions.to(device), mask=mask.to(device))  # (B, T, C)
        length = ids.shape[1]
        places = torch.tensor([r * length + at for r, row in enumerate(rows) for at in row.ask], device=device)
        targets = torch.tensor([t for row in rows for t in row.targets], device=device)
        return self._judge(hidden.flatten(0, 1)[places], targets)

    def _judge(self, hidden: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of each target ``(N,)`` after ``hidden`` ``(N, C)``, and whether it is the likeliest."""
        values = torch.empty(len(targets), device=targets.device)
        hits = torch.empty(len(targets), dtype=torch.bool, device=targets.device)
        for at in range(0, len(targets), _HEAD_ROWS):
            part = slice(at, at + _HEAD_ROWS)
            logits = self.model.logits(hidden[part]).float()  # (n, V)
            here = logits.gather(1, targets[part, None])
            hits[part] = hit = here[:, 0] == logits.amax(dim=-1)
            if hit.any():  # of equal logits the first is written
                hits[part][hit] = logits[hit].argmax(dim=-1) == targets[part][hit]
            values[part] = torch.log_softmax(logits, dim=-1).gather(1, targets[part, None])[:, 0]
        return values.cpu().numpy(), hits.cpu().numpy()


def _parts(group: Group) -> Iterator[Group]:
    """A group whose row would be long in parts that read the prefix again: attention grows with a row's square."""
    most = max(_ROW_TOKENS, 2 * len(group.prefix))
    branches: list[Branch] = []
    length = len(group.prefix)
    for branch in group.branches:
        if branches and length + len(branch.ids) > most:
            yield Group(group.prefix, tuple(branches))
            branches, length = [], len(group.prefix)
        branches.append(branch)
        length += len(branch.ids)
    if branches:
        yield Group(group.prefix, tuple(branches))


def _gathered(rows: Sequence[_Row], values: np.ndarray, hits: np.ndarray) -> list[list[Scored]]:
    """Targets' values to branches'."""
    counts = np.array([n for row in rows for n in row.counts])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = np.add.reduceat(values.astype(np.float64), starts).tolist()
    greedy = np.logical_and.reduceat(hits, starts).tolist()
    each = iter([Scored(*one) for one in zip(sums, counts.tolist(), greedy, strict=True)])
    return [[next(each) for _ in row.counts] for row in rows]


def _laid_out(rows: Sequence[_Row]) -> Rows:
    """Rows end to end for libfry."""
    starts = np.cumsum([0, *(len(row.ids) for row in rows)], dtype=np.int32)

    def flat(lists: Sequence[Sequence[int]]) -> np.ndarray:
        return np.fromiter(itertools.chain.from_iterable(lists), dtype=np.int32)

    shift = np.repeat(starts[:-1], [len(row.ask) for row in rows])
    return Rows(
        starts, np.array([row.prefix for row in rows], dtype=np.int32), flat([row.ids for row in rows]),
        flat([row.positions for row in rows]), flat([row.branch for row in rows]),
        flat([row.ask for row in rows]) + shift, flat([row.targets for row in rows]),
    )  # fmt: skip


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
        segments[r, : len(row.ids)] = torch.tensor(row.branch)
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    mine = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])  # (B, T, T)
    seen = earlier & mine | torch.eye(length, dtype=torch.bool)  # padding looks at itself
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)
    return ids, positions, mask[:, None]
