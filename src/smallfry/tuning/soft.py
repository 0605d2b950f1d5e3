"""Teachers of distributions, and data with what they say of it, made when a batch is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from smallfry.data import Batch, Soft
from smallfry.errors import SmallfryError
from smallfry.model import Transformer
from smallfry.tokenizer import PAD
from smallfry.training.epochs import CountedData, Data, MadeBatches

TOP_K = 32
CHOICES = 0.5
"""Weight above which a target is the model's own choice: the words of a job's prompt weigh less (`recipes`)."""
_PLACES = 256  # places whose whole distributions are held at once
_ROUND = 64
_LOGITS = 100_000_000  # positions x vocabulary at once where a library gives no states: 400 MB in fp32


# ---- distributions --------------------------------------------------------------------------------------------------


class Network(Protocol):
    """What a `LogitTeacher` computes with."""

    def states(self, ids: np.ndarray, places: np.ndarray) -> Tensor:
        """What the head needs of N places, counted through the rows of ids ``(B, T)``: ``(N, ...)``."""

    def logits(self, states: Tensor) -> Tensor:
        """Logits of some of those states, ``(n, V)`` fp32."""


class OwnNetwork:
    """A `Transformer`; the head is applied to the places asked for only.

    Args:
        model: In evaluation mode, in the precision it is stored in.
    """

    def __init__(self, model: Transformer) -> None:
        self.model = model.eval()
        self.rows = model.shape.vocab_size

    def states(self, ids: np.ndarray, places: np.ndarray) -> Tensor:
        """Hidden states, ``(N, C)``."""
        device = self.model.embed.weight.device
        known = np.where(ids < self.rows, ids, PAD)  # a student may have tokens that its teacher never heard of
        hidden = self.model(torch.from_numpy(known).to(device)).flatten(0, 1)
        return cast(Tensor, hidden[torch.from_numpy(places).to(device)])

    def logits(self, states: Tensor) -> Tensor:
        """Through the head."""
        return self.model.logits(states).float()


class HfNetwork:
    """A Hugging Face causal language model of any architecture; whole logits, a few rows at a time.

    Args:
        model: What transformers loaded, in evaluation mode.
        context: Most tokens it can read.
        name: For the error.
    """

    def __init__(self, model: Any, context: int, name: str) -> None:
        self.model, self.context, self.name = model, context, name
        self.rows = int(model.config.vocab_size)

    def states(self, ids: np.ndarray, places: np.ndarray) -> Tensor:
        """Logits already, ``(N, V)``.

        Raises:
            SmallfryError: The rows are longer than the model's context.
        """
        length = ids.shape[1]
        if length > self.context:
            raise SmallfryError(
                f"--teacher {self.name}: reads {self.context:,} tokens at most, got rows of {length:,}; lower --seq-len"
            )
        known = torch.from_numpy(np.where(ids < self.rows, ids, 0))
        count = max(1, _LOGITS // (length * self.rows))
        found = torch.zeros(len(places), self.rows)
        for at in range(0, len(ids), count):
            mine = np.flatnonzero((places >= at * length) & (places < (at + count) * length))
            if len(mine):  # rows without weight are not read
                logits = self.model(known[at : at + count]).logits.flatten(0, 1)
                found[torch.from_numpy(mine)] = logits[torch.from_numpy(places[mine] - at * length)].float()
        return found

    def logits(self, states: Tensor) -> Tensor:
        """They are logits."""
        return states


class LogitTeacher:
    """A model that says how likely each next token is.

    Args:
        name: For records.
        network: What computes it.
        vocab_size: Tokens of its tokenizer; further rows of its table are padding and say nothing.
    """

    def __init__(self, name: str, network: Network, vocab_size: int) -> None:
        self.name, self.network, self.vocab_size = name, network, vocab_size

    def soft(self, batch: Batch, share: float, temperature: float, top_k: int) -> Soft:
        """What it says of a batch; see `soft_targets`."""
        return soft_targets([self], batch, share, temperature, top_k)


@torch.inference_mode()
def soft_targets(
    teachers: Sequence[LogitTeacher], batch: Batch, share: float, temperature: float, top_k: int, least: float = 0.0,
) -> Soft:  # fmt: skip
    """The mean of the teachers' distributions after softening, its likeliest tokens kept (Hinton et al. 2015).

    Only places that carry more weight than ``least`` are asked about; the others hold zeros and are not taught. Where
    the target is a token that the teachers do not have (a label that only the student knows), the target itself is all
    that is taught.

    Args:
        teachers: Of one tokenizer.
        batch: What the student reads, ``(B, T)``.
        share: Of the student's loss.
        temperature: What logits are divided by.
        top_k: Tokens kept at each place.
        least: Weight of a place from which it is not taught.

    Returns:
        ``(B, T, K)`` ids and probabilities, K being at most the teachers' vocabulary.
    """
    vocab_size = teachers[0].vocab_size
    kept = min(top_k, vocab_size)
    places = np.flatnonzero(batch.weights > least)
    ids = np.zeros((batch.ids.size, kept), dtype=np.int32)
    probs = np.zeros((batch.ids.size, kept), dtype=np.float32)
    # Rounded up with repeats: a CPU's matrix library compiles, and keeps, a kernel for each new number of rows.
    asked = np.concatenate([places, np.zeros(-len(places) % _ROUND, dtype=places.dtype)])
    states = [teacher.network.states(np.ascontiguousarray(batch.ids), asked) for teacher in teachers]
    for at in range(0, len(places), _PLACES):
        part = slice(at, at + _PLACES)
        mean: Tensor | None = None
        for teacher, state in zip(teachers, states, strict=True):
            logits = teacher.network.logits(state[part])[:, :vocab_size]
            softened = torch.softmax(logits / temperature, dim=-1)  # (n, V)
            mean = softened if mean is None else mean.add_(softened)
        assert mean is not None
        top = (mean / len(teachers)).topk(kept, dim=-1)
        count = len(places[part])
        ids[places[part]] = top.indices[:count].cpu().numpy()
        probs[places[part]] = top.values[:count].cpu().numpy()
    targets = batch.targets.ravel()
    alien = places[targets[places] >= vocab_size]
    ids[alien], probs[alien] = 0, 0.0
    ids[alien, 0], probs[alien, 0] = targets[alien], 1.0
    shape = (*batch.ids.shape, kept)
    return Soft(ids.reshape(shape), probs.reshape(shape), share, temperature)


# ---- data -----------------------------------------------------------------------------------------------------------


def distilled(
    data: Data, teachers: Sequence[LogitTeacher], share: float, temperature: float, top_k: int = TOP_K, *,
    least: float = 0.0,
) -> Data:  # fmt: skip
    """The same batches, each with the teachers' distributions beside its targets.

    A batch stays a pure function of its number. The teachers cost a forward pass of theirs at every step.

    Args:
        data: What the student learns from.
        teachers: Models with the student's tokenizer; of several, the mean of their distributions is taught.
        share: Of the loss that is the teachers', 0 to 1.
        temperature: Softens the distributions, above 0; 1 leaves them as they are.
        top_k: Likeliest tokens kept at each place.
        least: Places whose targets weigh no more than this are not taught: what a label costs is little where the
            words of the prompt, which weigh less, are not asked about.

    Raises:
        SmallfryError: A setting is out of range, or the teachers have different vocabularies.
    """
    if not 0.0 <= share <= 1.0 or temperature <= 0.0 or top_k < 1:
        raise SmallfryError(
            f"distillation: share {share:g}, temperature {temperature:g}, top {top_k}; expected a share from 0 to 1, a "
            "temperature above 0 and at least 1 token"
        )
    if not teachers or len({teacher.vocab_size for teacher in teachers}) != 1:
        sizes = ", ".join(f"{t.name} {t.vocab_size:,}" for t in teachers) or "none"
        raise SmallfryError(f"distillation: expected teachers of one vocabulary, got {sizes}")
    lesson = _Lesson(list(teachers), share, temperature, top_k, least)
    return _Counted(data, lesson) if isinstance(data, CountedData) else _Distilled(data, lesson)


class _Lesson:
    """Teachers and settings."""

    def __init__(
        self, teachers: list[LogitTeacher], share: float, temperature: float, top_k: int, least: float
    ) -> None:  # fmt: skip
        self.teachers, self.share, self.temperature, self.least = teachers, share, temperature, least
        self.top_k = min(top_k, teachers[0].vocab_size)

    def soft(self, batch: Batch) -> Soft:
        return soft_targets(self.teachers, batch, self.share, self.temperature, self.top_k, self.least)


class _Distilled:
    def __init__(self, data: Data, lesson: _Lesson) -> None:
        self.data, self.lesson = data, lesson

    def epoch(self, epoch: int) -> Sequence[Batch]:
        batches = self.data.epoch(epoch)

        def make(at: int) -> Batch:
            batch = batches[at]
            return replace(batch, soft=self.lesson.soft(batch))

        return MadeBatches(len(batches), make)


class _Counted(_Distilled):
    data: CountedData

    def steps_per_epoch(self, epoch: int) -> int:
        return self.data.steps_per_epoch(epoch)
