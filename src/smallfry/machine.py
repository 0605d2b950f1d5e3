"""The machine underneath: what it is, and how this process uses its memory and its cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST = 2**31 - 1
_TOP_PAD = 64 << 20
_WORKERS_A_DEVICE = 4
_STEPS_TRIED, _STEPS_SEEN = 10, 40  # steps that say how fast threads are, at least and at most
_WORTH = 1.1  # times the speed of one thread, below which several are given up ...
_FIRST_WAIT = 200  # ... for so many steps, then for twice as many


def keep_freed_memory() -> bool:
    """Let the C library keep memory that was freed, for the next step's tensors.

    By default glibc returns every large block to the kernel, and a training step then spends a sixth of its time on
    fresh, zeroed pages: the logits of a thousand positions alone are thousands of page faults.

    Returns:
        Whether this process now keeps it; False where the C library is not glibc.
    """
    if sys.platform != "linux" or "MALLOC_TRIM_THRESHOLD_" in os.environ:  # whoever sets it knows better
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST), (_M_TOP_PAD, _TOP_PAD))
    return all(mallopt(name, value) == 1 for name, value in settings)


def limit_threads() -> None:
    """One thread a process: repeatable to the bit, and processes fill the cores better than threads."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    use_threads(1)


@contextlib.contextmanager
def one_thread_children() -> Iterator[None]:
    """Processes started inside have one thread each: libraries read it from the environment when they are imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names[:3], "1"), TOKENIZERS_PARALLELISM="false")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def use_threads(count: int) -> int:
    """Let PyTorch's products and libfry's kernels share as many threads.

    Returns:
        How many share the kernels' work: 1 where PyTorch's threads cannot be shared.
    """
    import torch

    from smallfry.engine import training

    torch.set_num_threads(count)
    return training.set_threads(count)


@contextlib.contextmanager
def threads_used(count: int) -> Iterator[int]:
    """As many threads inside; gives how many share the kernels' work."""
    import torch

    before = torch.get_num_threads()
    try:
        yield use_threads(count)
    finally:
        use_threads(before)


def own_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CoreShare:
    """The cores of one process among several that train: its own, and those that nobody uses, where that is faster.

    One core and one thread while all are busy: a process then keeps its caches, and processes fill the cores better
    than threads. Where tasks are fewer than cores, those that run try the idle ones: what a step gives with several
    threads is held against what it gives with one, because on a machine where other programs compute too, threads that
    wait for each other can be many times slower. Numbers stay the same to the bit (test_bench).

    Args:
        index: Which process this is, from 0.
        workers: How many there are.
    """

    def __init__(self, index: int, workers: int) -> None:
        self._all = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.cores = min(workers, len(self._all) or os.cpu_count() or 1)  # who asks for fewer workers wants the rest
        # Where there are fewer workers than cores nothing is bound: another program would choose the same cores.
        self._own = {self._all[index % len(self._all)]} if workers >= len(self._all) > 1 else set(self._all)
        self.threads = 0
        self._wait = _FIRST_WAIT
        self.begin()

    def begin(self) -> None:
        """A task begins or has ended: one core."""
        self._single: deque[tuple[float, float]] = deque(maxlen=_STEPS_SEEN)
        self._several: deque[tuple[float, float]] = deque(maxlen=_STEPS_SEEN)
        self._rest = 0
        self._use(1)

    def after_step(self, busy: int, tokens: float, seconds: float) -> None:
        """Note what a step took, and decide how the next is computed.

        Args:
            busy: Tasks that are computing now, this process's included.
            tokens: Of the step.
            seconds: It took.
        """
        (self._single if self.threads == 1 else self._several).append((tokens, seconds))
        share = self.cores // max(1, busy)
        if share < 2:
            self._use(1)
        elif self._rest > 0:
            self._rest -= 1
        elif self.threads == 1:
            if len(self._single) >= _STEPS_TRIED:
                self._several.clear()
                self._use(share)
        elif len(self._several) >= _STEPS_TRIED and _rate(self._several) < _WORTH * _rate(self._single):
            self._rest, self._wait = self._wait, 2 * self._wait
            self._use(1)
        else:
            self._use(share)

    def _use(self, threads: int) -> None:
        if threads != self.threads:
            self.threads = threads
            if self._all:
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(0, self._own if threads == 1 else set(self._all))
            use_threads(threads)


def _rate(steps: Iterable[tuple[float, float]]) -> float:
    """Tokens a second of steps."""
    tokens, seconds = map(sum, zip(*steps, strict=True))
    return tokens / max(seconds, 1e-9)


def default_device() -> torch.device:
    """CUDA, then Apple's MPS, then the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def compute_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device multiplies it natively, else fp32."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu":
        fast = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.float32


def default_workers() -> int:
    """Trainings worth running side by side: one a core, or a few that share an accelerator and its memory."""
    cores = own_cores()
    return cores if default_device().type == "cpu" else min(cores, _WORKERS_A_DEVICE)


def matmul_flops(size: int = 768, repeats: int = 20) -> float:
    """FLOP/s of one core multiplying square matrices in the precision that trainings use; about a quarter of a second.

    Args:
        size: Rows and columns.
        repeats: Products; the fastest counts.

    Raises:
        ModuleNotFoundError: When torch is not installed.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a = torch.ones(size, size, dtype=compute_dtype(torch.device("cpu")))
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            a @ a
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return 2 * size**3 / min(seconds)


def versions() -> dict[str, str]:
    """Versions of what is used."""
    found = {"python": platform.python_version()}
    for name in ("smallfry", "torch", "numpy", "tokenizers", "scikit-learn", "sklearn-crfsuite", "llguidance"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What it runs on, as far as that decides speed; no host name."""
    device = default_device()
    cpu = platform.processor() or platform.machine()
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), cpu)
    return {
        "cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "device": device.type,
        "compute": str(compute_dtype(device))[6:],
    }  # fmt: skip
