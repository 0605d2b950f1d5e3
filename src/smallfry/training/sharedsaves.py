"""Saves that several processes make together and any number of processes can go on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from smallfry.errors import SmallfryError
from smallfry.training.parallel import World
from smallfry.training.runstate import RunState, Saves


class SharedSaves:
    """Saves that process 0 writes for all, whole, so that any number of processes can go on from them.

    Split tensors are put together one at a time, each when the writer comes to it: process 0 asks for it by number,
    and the others, which wait for such questions, send their rows. A disk that is full stops all processes alike.

    Args:
        saves: Where process 0 writes and all read; on a disk that all machines see.
        world: The processes.
    """

    def __init__(self, saves: Saves, world: World) -> None:
        self._saves, self._world = saves, world

    def __str__(self) -> str:
        return str(self._saves)

    def save(self, tensors: Mapping[str, Tensor], plain: dict[str, Any]) -> None:
        """Write a save; see `smallfry.training.runstate.save_state`.

        Raises:
            SmallfryError: In every process, when it cannot be written or copies of the model have drifted apart.
        """
        if self._world.size == 1:
            self._saves.save(tensors, plain)
            return
        copies = [t for t in tensors.values() if not _is_split(t)]
        if not self._world.same(_checksum(copies)):
            raise SmallfryError(
                "the processes' copies of the model differ: not saved; use the same version of smallfry, PyTorch and "
                "kind of CPU or GPU for all, then start again with --resume"
            )
        with self._world.in_touch():
            error = self._save(tensors, plain)
        if self._world.any(error is not None):
            raise error or SmallfryError("process 0 could not save; its message says why")

    def _save(self, tensors: Mapping[str, Tensor], plain: dict[str, Any]) -> SmallfryError | None:
        split = {name: t for name, t in sorted(tensors.items()) if _is_split(t)}
        if self._world.main:
            try:
                return self._write(tensors, plain, list(split))
            finally:
                self._tell(-1)
        while (number := self._asked()) >= 0:
            _gather(list(split.values())[number], self._world)
        return None

    def load(self, before: int | None = None) -> RunState | None:
        """Read a save in every process; see `smallfry.training.runstate.load_state`.

        Raises:
            SmallfryError: Also when the processes find different saves.
        """
        found = self._saves.load(before)
        if not self._world.same(-1.0 if found is None else float(found.plain["step"])):
            raise SmallfryError(f"{self}: the processes find different saves; use a directory that all machines share")
        return found

    def _write(self, tensors: Mapping[str, Tensor], plain: dict[str, Any], split: list[str]) -> SmallfryError | None:
        def fetch(name: str) -> Tensor:
            self._tell(split.index(name))
            return _gather(tensors[name], self._world)

        lazy = {n: _Gathered(t, partial(fetch, n)) if n in split else t for n, t in tensors.items()}
        try:
            self._saves.save(cast("Mapping[str, Tensor]", lazy), plain)
        except SmallfryError as error:
            return error
        return None

    def _tell(self, number: int) -> None:
        dist.broadcast(torch.tensor(number, device=self._world.device), src=0)

    def _asked(self) -> int:
        number = torch.zeros((), dtype=torch.int64, device=self._world.device)
        dist.broadcast(number, src=0)
        return int(number)


class _Gathered:
    """What a writer of tensors asks of one, of a split tensor: its rows come together when it is detached."""

    def __init__(self, tensor: Tensor, fetch: Callable[[], Tensor]) -> None:
        self._tensor, self._fetch = tensor, fetch
        self.dtype, self.shape = tensor.dtype, tensor.shape

    def numel(self) -> int:
        """Numbers in the whole tensor."""
        return self._tensor.numel()

    def element_size(self) -> int:
        """Bytes of a number."""
        return self._tensor.element_size()

    def detach(self) -> Tensor:
        """The whole tensor."""
        return self._fetch()


def _is_split(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, whose module takes a second to import where no model is split."""
    return hasattr(tensor, "placements")


def _gather(tensor: Tensor, world: World) -> Tensor:
    """All rows of a tensor in process 0; nothing elsewhere."""
    own: Tensor = cast(Any, tensor).to_local()
    each = -(-tensor.shape[0] // world.size)
    filled = own.new_zeros(each, *tensor.shape[1:])
    filled[: len(own)] = own
    if not world.main:
        dist.gather(filled, dst=0)
        return own.new_empty(0)
    found = own.new_empty(world.size * each, *tensor.shape[1:])
    dist.gather(filled, list(found.chunk(world.size)), dst=0)
    return found[: tensor.shape[0]]


def _checksum(tensors: list[Tensor]) -> float:
    """A number that equal tensors share, and others only by a rare chance."""
    total = 0
    for tensor in tensors:
        bits = tensor.detach().reshape(-1).contiguous().view(torch.uint8)
        words = bits[: len(bits) // 4 * 4].view(torch.int32)
        total += int(words.sum(dtype=torch.int64)) + int(bits[len(bits) // 4 * 4 :].sum())
    return float(total % (1 << 52))
