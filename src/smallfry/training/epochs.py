"""What a training reads: epochs of batches, made when they are wanted, and counted without making them if possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, overload, runtime_checkable

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


class MadeBatches(Sequence[Batch]):
    """Batches that are made when they are asked for.

    Args:
        count: How many there are.
        make: Makes the one of a number from 0 on, the same each time.
    """

    def __init__(self, count: int, make: Callable[[int], Batch]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...

    def __getitem__(self, index: int | slice) -> Batch | Sequence[Batch]:
        if isinstance(index, slice):
            chosen = range(*index.indices(self._count))
            return MadeBatches(len(chosen), lambda at: self._make(chosen[at]))
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._make(index % self._count)


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
