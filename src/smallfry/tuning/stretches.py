"""Data whose epochs are cut anew: into stretches of a fixed number of batches, at whose ends the loop measures."""

from __future__ import annotations

from collections.abc import Sequence

from smallfry.data import Batch
from smallfry.training.epochs import Data, Epochs, MadeBatches


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
        return MadeBatches(self.stretch, lambda at: self.batch(epoch * self.stretch + at))

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
