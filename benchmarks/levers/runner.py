"""Runs units that are not finished yet, the cheapest first, one process a core; a finished unit is a JSON file."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from smallfry.errors import SmallfryError
from smallfry.files import write_atomic
from smallfry.machine import keep_freed_memory, limit_threads, one_thread_children
from smallfry.sizes import parse_size

from .arms import Settings, Unit

Result = dict[str, Any]
Work = Callable[[Unit, Settings], Result]
_TOKENS_A_SECOND = 33_000.0  # of one core at 1m, until units have shown better
_ASK_SECONDS = 25.0


def stored(out: Path, settings: Settings) -> dict[str, Result]:
    """Finished units by key; those of other definitions or another budget do not count.

    Raises:
        SmallfryError: A file is damaged.
    """
    found = {}
    for path in sorted(out.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            unit = Unit(result["task"], result["size"], result["arm"], result["seed"])
            if result["identity"] == _identity(unit, settings):
                found[unit.key] = result
        except (ValueError, KeyError, TypeError) as error:
            raise SmallfryError(f"{path}: not a finished unit ({error!r}); remove it to run the unit again") from None
    return found


def _identity(unit: Unit, settings: Settings) -> dict[str, Any] | None:
    try:
        return unit.identity(settings)
    except SmallfryError:  # of a size that is not asked for now and has no budget
        return None


def estimate(unit: Unit, settings: Settings, finished: dict[str, Result]) -> float:
    """Seconds that a unit will take: as other seeds, else as other arms of its task and size did, else a rule."""
    same = [r for r in finished.values() if (r["task"], r["size"]) == (unit.task, unit.size)]
    twins = [r["seconds"] for r in same if r["arm"] == unit.arm]
    if twins:
        return float(statistics.median(twins))
    tokens = unit.tokens(settings)
    if same:
        rest = statistics.median(r["seconds"] - r["train_seconds"] for r in same)
        return float(rest + tokens * statistics.median(r["train_seconds"] / r["tokens"] for r in same))
    # Twice as large is not quite half as fast: larger products use more of the machine.
    return _ASK_SECONDS + tokens / _TOKENS_A_SECOND * math.pow(parse_size(unit.size) / 1e6, 0.75)


def missing(units: Sequence[Unit], settings: Settings, finished: dict[str, Result]) -> list[tuple[float, Unit]]:
    """Units that are still to be run with their seconds, the cheapest first, early seeds before later ones."""
    left = [(estimate(unit, settings, finished), unit) for unit in units if unit.key not in finished]
    return sorted(left, key=lambda item: (item[0], item[1].seed))


def plan(left: Sequence[tuple[float, Unit]], workers: int) -> str:
    """What is left, in words."""
    minutes = sum(seconds for seconds, _ in left) / 60
    return f"{len(left)} units left, about {minutes:.0f} core-minutes, {minutes / max(1, workers):.0f} minutes"


def run(
    units: Sequence[Unit], settings: Settings, out: Path, *, workers: int, minutes: float | None = None,
    say: Callable[[str], None] = print, work: Work | None = None,
) -> dict[str, Result]:  # fmt: skip
    """Run what is not finished.

    Args:
        units: What is wanted.
        settings: What decides the results besides.
        out: Directory of the units' files.
        workers: Processes, each on a core of its own; 0 works in this one.
        minutes: After which no unit is begun that is not expected to end by then.
        say: Told of each unit in a line.
        work: What runs a unit; `measure.run_unit` by default; processes need one that can be pickled.

    Returns:
        All finished units, earlier ones included.

    Raises:
        SmallfryError: Units could not be run; the others are kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    finished = stored(out, settings)
    queue = [unit for _, unit in missing(units, settings, finished)]
    say(plan(missing(units, settings, finished), workers))
    end = None if minutes is None else time.monotonic() + 60 * minutes

    def fitting() -> Iterator[Unit]:
        """The next units, as they are asked for; ends when the next would not end in time."""
        while queue:
            if end is not None and time.monotonic() + estimate(queue[0], settings, finished) > end:
                say(f"no time for {queue[0].key}")
                return
            yield queue.pop(0)

    failed: list[str] = []
    for unit, done in _each(fitting(), settings, workers, work or _run_unit):
        if isinstance(done, Exception):
            failed.append(f"{unit.key}: {done}")
            say(failed[-1])
            continue
        write_atomic(out / f"{unit.key}.json", json.dumps(done) + "\n")
        finished[unit.key] = done
        scores = ", ".join(f"{name} {m['score']:.4f}" for name, m in done["measures"].items())
        left = missing(units, settings, finished)
        say(f"{unit.key}: {scores}; {done['seconds']:.0f} s; {plan(left, workers)}")
    if failed:
        raise SmallfryError(f"{len(failed)} units failed, the first: {failed[0]}; the others are kept")
    return finished


def _run_unit(unit: Unit, settings: Settings) -> Result:
    from .measure import run_unit  # two seconds to import, in workers only

    return run_unit(unit, settings)


def _each(
    units: Iterator[Unit], settings: Settings, workers: int, work: Work
) -> Iterator[tuple[Unit, Result | Exception]]:
    """Every unit with its result, as they end."""
    if workers == 0:
        for unit in units:
            try:
                yield unit, work(unit, settings)
            except SmallfryError as error:
                yield unit, error
        return
    context = multiprocessing.get_context("spawn")
    with one_thread_children():
        pool = ProcessPoolExecutor(workers, context, _start, (context.Value("i", 0), workers))
        running: dict[Future[Result], Unit] = {}
        try:
            while True:
                for fresh in itertools.islice(units, workers - len(running)):
                    running[pool.submit(work, fresh, settings)] = fresh
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    trouble = future.exception()
                    if trouble is not None and not isinstance(trouble, Exception):
                        raise trouble
                    yield running.pop(future), trouble or future.result()
            pool.shutdown()
        except BaseException:
            for process in (pool._processes or {}).values():
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(turns: Any, workers: int) -> None:
    """A worker keeps to a core, has one thread, and ends when its parent tells it to."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the workers
    with turns.get_lock():
        index, turns.value = turns.value, turns.value + 1
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if workers >= len(cores) > 1:
            os.sched_setaffinity(0, {cores[index % len(cores)]})
    limit_threads()
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
