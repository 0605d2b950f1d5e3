"""Data whose epochs are cut anew: into stretches of a fixed number of batches, at whose ends the loop measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from smallfry.data import Batch
from smallfry.training.epochs import Data, Epochs


class Stretches:
    """Batches of other data, epoch after epoch, in stretches that do not end where its epochs do.

    Args:
        data: Its epochs must be cheap to count: batches are made when they are asked for.
        stretch: Batches of a stretch.
    """

    def __init__(self, data: Data, stretch: int) -> None:
        self.stretch = stretch
        self._epochs = Epochs(data)
        self._ends: list[int] = []  # batches up to the end of each epoch that was looked at

    def epoch(self, epoch: int) -> Sequence[Batch]:
        """A stretch."""
        return _Stretch(self, epoch * self.stretch)

    def steps_per_epoch(self, epoch: int) -> int:
        """Batches of a stretch."""
        return self.stretch

    def batch(self, number: int) -> Batch:
        """Batch ``number`` of all epochs."""
        while not self._ends or self._ends[-1] <= number:
            count = len(self._epochs.batches(len(self._ends)))
            self._ends.append((self._ends[-1] if self._ends else 0) + count)
        epoch = next(i for i, end in enumerate(self._ends) if number < end)
        first = self._ends[epoch - 1] if epoch else 0
        return self._epochs.batches(epoch)[number - first]


class _Stretch(Sequence[Batch]):
    def __init__(self, data: Stretches, first: int) -> None:
        self._data, self._first = data, first

    def __len__(self) -> int:
        return self._data.stretch

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...

    def __getitem__(self, index: int | slice) -> Batch | Sequence[Batch]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._data.batch(self._first + index)
