"""A batch in as many parts as memory wants: found out by running out of it, not by asking the user."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TypeVar

import torch

from smallfry.data import Batch
from smallfry.errors import CandidateError

T = TypeVar("T")

# What PyTorch's CPU allocator, its GPU backends and the libraries below them say when there is no memory left; oneDNN
# names no reason.
_SIGNS = (
    "can't allocate memory", "defaultcpuallocator", "out of memory", "out_of_memory", "alloc_failed", "bad_alloc",
    "could not create a primitive", "could not create a memory", "could not execute a primitive",
)  # fmt: skip


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that there was not enough memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


@contextlib.contextmanager
def fitting_in_memory() -> Iterator[None]:
    """Turn running out of memory, where smaller batches would not help, into one line.

    Raises:
        CandidateError: When there was not enough memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise CandidateError(
            f"out of memory: the model and its optimizer do not fit ({_first_line(error)}); use a smaller model"
        ) from None


class MicroBatches:
    """Cuts batches into parts that fit into memory.

    A part is some of a batch's rows; parts need not divide anything and differ by at most one row.

    Args:
        tokens: Padded tokens computed at once, at most; a single row is the smallest part. None for no limit.
        say: Told once when memory ran out and the limit was halved.
    """

    def __init__(self, tokens: int | None = None, say: Callable[[str], None] | None = None) -> None:
        self.tokens = tokens
        self._say = say or (lambda text: None)

    def parts(self, batch: Batch) -> list[Batch]:
        """The batch itself where it fits, else its rows in parts of about the same size, in order."""
        rows, length = batch.ids.shape
        if self.tokens is None or rows * length <= self.tokens or rows < 2:
            return [batch]
        count = -(-rows // max(1, self.tokens // length))
        ends = [rows * i // count for i in range(count + 1)]
        return [batch.take(slice(begin, end)) for begin, end in pairwise(ends)]

    def run(self, compute: Callable[[list[Batch]], T], batch: Batch, forget: Callable[[], None] | None = None) -> T:
        """Compute a batch in parts; when memory runs out, in smaller ones from the beginning.

        Args:
            compute: Takes all parts of the batch.
            batch: The batch.
            forget: Throws away what an attempt that failed has left behind.

        Returns:
            What ``compute`` returns.

        Raises:
            CandidateError: When a single row does not fit.
        """
        while True:
            parts = self.parts(batch)
            try:
                return compute(parts)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                said = _first_line(error)
            # Out here the exception is gone, and with it the frames that held on to the attempt's tensors.
            if forget is not None:
                forget()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._halve(parts, said)

    def _halve(self, parts: list[Batch], said: str) -> None:
        rows, length = max(part.ids.shape for part in parts)
        if rows < 2:
            raise CandidateError(
                f"out of memory: a single row of {length:,} tokens does not fit ({said}); use a smaller model or "
                "shorter rows"
            )
        self.tokens = rows * length // 2
        self._say(f"out of memory: batches are computed at most {self.tokens:,} tokens at a time from here on")


def _first_line(error: BaseException) -> str:
    """The beginning of an exception's message, or its name."""
    return next(iter(str(error).splitlines()), "")[:120] or type(error).__name__
