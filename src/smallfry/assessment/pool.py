"""Worker processes, one a core: they fit and ask candidates, report every step, and save when told to stop."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from smallfry.assessment.lock import hold_as_worker
from smallfry.assessment.work import BaselineTask, Outcome, RungTask, run_baseline, run_rung
from smallfry.candidates import Predictor
from smallfry.errors import CandidateError, SmallfryError
from smallfry.frames import FrameCodec
from smallfry.job import Job
from smallfry.machine import CoreShare, keep_freed_memory, limit_threads, one_thread_children
from smallfry.train import Progress
from smallfry.training.runstate import remove_states

Task = RungTask | BaselineTask
_REPORT_SECONDS = 0.3
_STOP_SECONDS = 30.0


@dataclass(slots=True)
class Result:
    """A finished task; ``predictor`` only for baselines."""

    task: Task
    outcome: Outcome
    predictor: Predictor | None = None


class StoppedError(Exception):
    """Ctrl-C or SIGTERM arrived; workers have saved."""


@dataclass(slots=True)
class _Context:
    """What every worker knows; set once when it starts."""

    job: Job
    codec: FrameCodec | None
    out: Path
    resume: bool
    reports: Any
    stop: Any
    lock: IO[bytes] | None
    busy: Any  # tasks that compute now, counted over all workers
    cores: CoreShare


_context: _Context | None = None


def _start_worker(
    job: Job, codec: FrameCodec | None, out: Path, resume: bool, reports: Any, stop: Any, turns: Any, busy: Any,
    workers: int,
) -> None:  # fmt: skip
    """Signals are the parent's business: it hears Ctrl-C too, and tells all workers through one event."""
    global _context
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    with turns.get_lock():
        index, turns.value = turns.value, turns.value + 1
    limit_threads()
    keep_freed_memory()
    lock = hold_as_worker(out / "work")
    _context = _Context(job, codec, out, resume, reports, stop, lock, busy, CoreShare(index, workers))
    threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()


def _end_with_parent(stop: Any) -> None:
    """A parent that was killed cannot tell its workers: they notice, save and end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        stop.set()
        time.sleep(_STOP_SECONDS)
        os._exit(1)


def _run(task: Task) -> Result:
    assert _context is not None
    c = _context
    baseline = isinstance(task, BaselineTask)
    _count(c, 1)
    try:
        return _fit(c, task)
    except SmallfryError as error:
        if not baseline and not isinstance(error, CandidateError):
            raise  # a full disk, not this rung's fault
        return Result(task, Outcome.failure(task.name if isinstance(task, BaselineTask) else task.rung, str(error)))
    except Exception as error:
        if not isinstance(task, BaselineTask):
            raise
        why = " ".join(str(error).split())[:200]  # a library's complaint about odd data must not cost the others' hours
        return Result(task, Outcome.failure(task.name, f"{type(error).__name__}: {why}"))
    finally:
        _count(c, -1)
        c.cores.begin()


def _count(c: _Context, change: int) -> None:
    with c.busy.get_lock():
        c.busy.value += change


def _fit(c: _Context, task: Task) -> Result:
    path = c.out / "work" / task.key / "outcome.json"
    if isinstance(task, BaselineTask):
        outcome, predictor = run_baseline(c.job, task)
        return Result(task, outcome, predictor)
    if c.resume and (found := Outcome.load(path)) is not None:
        return Result(task, found)
    last = 0.0
    before = (0.0, 0.0)

    def watch(progress: Progress) -> None:
        nonlocal last, before
        tokens = progress.tokens_per_second * progress.seconds
        c.cores.after_step(c.busy.value, tokens - before[0], progress.seconds - before[1])
        before = (tokens, progress.seconds)
        now = time.perf_counter()
        if now - last > _REPORT_SECONDS:
            last = now
            c.reports.put((task.key, progress))

    def say(text: str) -> None:
        c.reports.put((task.key, text))

    outcome = run_rung(c.job, task, c.out, c.codec, c.resume, watch, c.stop.is_set, say)
    outcome.save(path)
    if outcome.finished:
        remove_states(path.parent)
    return Result(task, outcome)


class Pool:
    """Runs tasks in worker processes.

    Args:
        job: Given to each worker once.
        codec: The job's frame codec.
        out: The assessment's directory.
        resume: Whether finished outcomes and saved states in ``out`` are used.
        workers: Processes.
        watch: Told a task's key and progress.
        say: Told a task's key and one line on what went wrong with it and was mended.
    """

    def __init__(
        self, job: Job, codec: FrameCodec | None, out: Path, resume: bool, workers: int,
        watch: Callable[[str, Progress], None], say: Callable[[str, str], None] | None = None,
    ) -> None:  # fmt: skip
        context = multiprocessing.get_context("spawn")
        self._reports = context.Queue()
        self._stop = context.Event()
        self._watch, self._say = watch, say
        self.workers = workers
        with one_thread_children():
            self._pool = ProcessPoolExecutor(
                workers,
                context,
                initializer=_start_worker,
                initargs=(
                    job,
                    codec,
                    out,
                    resume,
                    self._reports,
                    self._stop,
                    context.Value("i", 0),
                    context.Value("i", 0),
                    workers,
                ),
            )
        self._futures: dict[Future[Result], Task] = {}

    @property
    def running(self) -> int:
        """Tasks submitted and not yet handed back."""
        return len(self._futures)

    def submit(self, task: Task) -> None:
        """Queue a task."""
        with one_thread_children():
            self._futures[self._pool.submit(_run, task)] = task

    def call(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run any picklable function in a worker (for work that is not a task)."""
        return self._pool.submit(function, *args)

    def next(self) -> Result:
        """Wait for the next task to finish.

        Raises:
            StoppedError: When a training was interrupted.
        """
        while True:
            done, _ = wait(self._futures, timeout=0.1, return_when=FIRST_COMPLETED)
            self._drain()
            for future in done:
                del self._futures[future]
                result = future.result()
                if not result.outcome.finished:
                    raise StoppedError
                return result

    def stop(self) -> None:
        """Ask trainings to save, wait for them, and end what has nothing to save."""
        processes = list((self._pool._processes or {}).values())
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()

    def close(self) -> None:
        """End the workers."""
        self._stop.set()  # only matters when an error leaves trainings behind: their work is saved
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._reports.close()

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                key, report = self._reports.get_nowait()
                if isinstance(report, Progress):
                    self._watch(key, report)
                elif self._say is not None:
                    self._say(key, report)
