"""What a training reads: epochs of batches, made when they are wanted, and counted without making them if possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from smallfry.data import Batch
from smallfry.errors import CandidateError


class Data(Protocol):
    """What the loop trains on: epochs of batches, each a pure function of its number.

    The loop asks an epoch for its length and for single batches by index, in order, each once as long as nothing goes
    wrong, so a sequence may make its batches when asked. It must make the same ones again: a resumed run asks for them.
    """

    def epoch(self, epoch: int) -> Sequence[Batch]:
        """All batches of one epoch in order."""


@runtime_checkable
class CountedData(Data, Protocol):
    """Data that knows how many batches an epoch has without making them."""

    def steps_per_epoch(self, epoch: int) -> int:
        """Batches in one epoch."""


class Epochs:
    """Data as the loop reads it: one epoch held at a time, none made twice in a row.

    Args:
        data: The data.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self._held: tuple[int, Sequence[Batch]] | None = None

    def batches(self, epoch: int) -> Sequence[Batch]:
        """The batches of an epoch."""
        if self._held is None or self._held[0] != epoch:
            self._held = None  # two epochs need not be in memory at once
            self._held = (epoch, self._data.epoch(epoch))
        return self._held[1]

    def first_steps(self) -> int:
        """Batches in the first epoch.

        Raises:
            CandidateError: When there is none.
        """
        steps = self._data.steps_per_epoch(0) if isinstance(self._data, CountedData) else len(self.batches(0))
        if steps < 1:
            raise CandidateError("training: the data gives no batches; expected at least one row that can be expressed")
        return steps
