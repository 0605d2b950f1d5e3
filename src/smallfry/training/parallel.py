"""Training in several processes that behave like one: replicas whose gradients are summed after every step.

``torchrun --nproc-per-node N -m smallfry ...`` starts N processes. Each makes the same batch, computes its own rows of
it, and divides its weighted loss by the weight of the WHOLE batch: the sum of the processes' gradients is then the
gradient that one process would have computed, whatever N is. Nothing here averages, so nothing depends on N.

One process without torchrun gets a `World` of size 1, whose methods do nothing. For models whose optimizer does not
fit one process see `smallfry.training.sharding`.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from smallfry.data import Batch
from smallfry.errors import SmallfryError
from smallfry.machine import default_device, use_threads

LARGE_PARAMS = 200_000_000
"""From this size on a model is split instead of copied: with its optimizer a copy would need 3 GB in every process."""

_PATIENCE = timedelta(days=7)  # the main process may make a corpus or ask an endpoint while the others wait
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train one model together, as one of them sees them.

    Every method but `share` is an agreement: all processes call the same ones in the same order.

    Args:
        rank: This process, from 0.
        size: Processes.
        local_rank: This process among those on its machine.
        local_size: Processes on its machine.
        device: Where this process computes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = field(default_factory=default_device)

    @property
    def main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch: every ``size``-th, from ``rank`` on.

        Every process gets the same number of rows, so that all compute the same shapes and as many micro-batches:
        where the rows do not divide, some repeat their first row (or the batch's) without weight. The longest share
        decides when a step ends, so this costs no time.

        Args:
            batch: The whole batch, ``(B, T)``, the same in every process.

        Returns:
            ``(ceil(B / size), T)``. The caller divides weighted sums by the weight of the whole ``batch``.
        """
        if self.size == 1:
            return batch
        count = -(-len(batch.ids) // self.size)
        rows = np.arange(self.rank, len(batch.ids), self.size)
        spare = np.full(count - len(rows), rows[0] if len(rows) else 0)
        chosen = np.concatenate([rows, spare])
        mine = batch.take(chosen)  # a copy
        mine.weights[len(rows) :] = 0.0
        return mine

    def add(self, flat: Tensor) -> Tensor:
        """Replace a tensor by the sum of all processes' ones, the same bits in each.

        Args:
            flat: Contiguous; changed in place. Gradients in fp32: gloo rounds bf16 after each addition, and is hardly
                faster with it.

        Returns:
            ``flat``.
        """
        if self.size == 1:
            return flat
        with self.in_touch():
            dist.all_reduce(flat)
        return flat

    def sums(self, *values: float) -> list[float]:
        """The sums of some numbers over the processes, in one exchange of about 0.1 ms."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def sum(self, value: float) -> float:
        """The sum of a number over the processes."""
        return self.sums(value)[0]

    def any(self, flag: bool) -> bool:
        """Whether any process says so: a signal that reaches one of them stops all after the same step."""
        return self.sums(float(flag))[0] > 0

    def same(self, value: float) -> bool:
        """Whether all processes have the same number, to the bit (a checksum, a step)."""
        return self._reduce((value, -value), dist.ReduceOp.MAX) == [value, -value]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            with self.in_touch():
                dist.barrier()

    def quiet(self) -> None:
        """Let only process 0 print: the others' stdout goes nowhere from here on; errors are still heard."""
        if not self.main:
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends

    def close(self) -> None:
        """Leave the group; later calls of `start` can make a new one."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _reduce(self, values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        with self.in_touch():
            held = torch.tensor(values, dtype=torch.float64, device=self.device)
            dist.all_reduce(held, op=operation)
            found: list[float] = held.tolist()
        return found

    @contextmanager
    def in_touch(self) -> Iterator[None]:
        """For code that talks to the other processes: when one of them ends, what this one sees becomes one line.

        Raises:
            SmallfryError: When a connection broke.
        """
        try:
            yield
        except RuntimeError as error:
            text = str(error).strip()
            if not isinstance(error, dist.DistError) and "gloo" not in text:
                raise
            # Gloo: "[where in its source] what happened. What the reader might do."
            reason = re.sub(r"\[[^\]]*:\d+\] +", "", text.splitlines()[0]).split(". ")[0]
            raise SmallfryError(
                f"process {self.rank} of {self.size}: lost contact with the others ({reason}); "
                "look for the first error of another process, then start again with --resume"
            ) from None


def start(pin: bool = True) -> World:
    """Join the processes that torchrun started, or be a world of one.

    Reads RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. GPUs talk through NCCL, one a
    process; CPUs through gloo, each process on its own share of this machine's cores.

    Args:
        pin: Bind each process to its cores, so that none waits for another's.

    Raises:
        SmallfryError: When the environment is incomplete, there are fewer GPUs than processes, or the processes do
            not find each other.
    """
    if _number("WORLD_SIZE", 1) == 1 or "RANK" not in os.environ:
        return World()
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if missing:
        raise SmallfryError(
            f"{', '.join(missing)} not set although WORLD_SIZE is: expected torchrun's environment; "
            "use torchrun --nproc-per-node N -m smallfry ..."
        )
    rank, size, local_rank, local_size = (_number(name, 0) for name in _ENVIRONMENT[:4])
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise SmallfryError(f"RANK {rank} of WORLD_SIZE {size} (local {local_rank} of {local_size}) is not possible")
    device = default_device()
    if device.type == "cuda":
        if torch.cuda.device_count() < local_size:
            raise SmallfryError(
                f"{local_size} processes on this machine but {torch.cuda.device_count()} GPUs: expected one each; "
                "use a smaller --nproc-per-node"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")  # no library sums between Apple's GPUs
        take_cores(local_rank, local_size, pin)
        if local_size == size:
            _stay_on_this_machine()
    _connect("nccl" if device.type == "cuda" else "gloo", device)
    return World(rank, size, local_rank, local_size, device)


def take_cores(local_rank: int, local_size: int, pin: bool = True) -> list[int]:
    """Give this process its share of the machine's cores: as many threads, and bound to them where that can be done.

    Args:
        local_rank: This process among those on its machine.
        local_size: Processes on its machine.
        pin: Bind; otherwise only the number of threads is set.

    Returns:
        The cores; more processes than cores share them.
    """
    able = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if able else list(range(os.cpu_count() or 1))
    each = max(1, len(cores) // local_size)  # the same in every process: sums over threads round alike
    first = local_rank * each % len(cores)
    mine = cores[first : first + each]
    if able and pin:
        with suppress(OSError):
            os.sched_setaffinity(0, mine)
    use_threads(each)
    return mine


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run so many processes of ``python -m smallfry`` on this machine, as torchrun does, and wait for them.

    Args:
        processes: How many.
        arguments: The command line after ``smallfry``.

    Returns:
        The exit code: 0, or that of the first process that failed, which has said why.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it retells what the processes said
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=f"smallfry-{os.getpid()}", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "smallfry", *arguments)
    except ChildFailedError as error:
        return max(1, error.get_first_failure()[1].exitcode)
    except SignalException:
        return 130
    return 0


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise SmallfryError(f"{name}={text!r}: expected a whole number; torchrun sets it") from None


def _stay_on_this_machine() -> None:
    """Gloo takes the address of the host's name, which may be a VPN's or none: loopback does for one machine."""
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)


def _connect(backend: str, device: torch.device) -> None:
    if not dist.is_available():
        raise SmallfryError("this PyTorch cannot train in several processes; use one, without torchrun")
    try:
        dist.init_process_group(backend, device_id=device if backend == "nccl" else None, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise SmallfryError(
            f"the processes do not find each other at {address} ({reason}); start them with torchrun"
        ) from None
