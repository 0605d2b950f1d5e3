"""A directory that one run writes at a time, in stages, and that a later command can go on with.

It holds the run's record (a JSON file: settings, plan, result), its ``.lock``, what the stages make, and in the end the
model's files. A finished or foreign directory is never overwritten unasked.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from smallfry.errors import SmallfryError
from smallfry.files import read_json, write_atomic
from smallfry.training.parallel import World

_BEFORE = ".before"  # holds an earlier run until the one that replaces it has begun
MODEL_FILES = (
    "model.safetensors", "config.json", "smallfry.json", "tokenizer.json", "tokenizer_config.json",
    "generation_config.json",
)  # fmt: skip


@dataclass
class RunDirectory:
    """One run's directory.

    Args:
        out: Where it is.
        world: The processes that share the run; only the main one writes.
        record: Name of the record's file.
        form: What the record's ``format`` must say.
        what: What a run of this kind is called in messages, such as ``tuning``.
        kept: Names in the directory that are no sign of something else being there, beside the lock.
        fresh: Whether it holds no run yet.
    """

    out: Path
    world: World
    record: str
    form: str
    what: str
    kept: tuple[str, ...] = ()
    fresh: bool = field(init=False)

    def __post_init__(self) -> None:
        self.fresh = not self.path.exists()

    @property
    def path(self) -> Path:
        """The record's file."""
        return self.out / self.record

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other runs out of the directory, which is there for all processes inside.

        Raises:
            SmallfryError: It cannot be written, or another run is writing there.
        """
        if not self.world.main:
            self.world.barrier()
            yield
            return
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            lock = (self.out / ".lock").open("wb")
        except OSError as error:
            raise SmallfryError(f"{self.out}: cannot be written ({error.strerror}); choose another --out") from None
        with lock:
            if not locked(lock):
                raise SmallfryError(f"{self.out}: another run is writing there; wait for it or choose another --out")
            self.world.barrier()
            yield

    def open(self, resume: bool, force: bool, begins: bool, missing: str) -> dict[str, Any] | None:
        """The record of the run to go on with; None where one is to begin.

        Args:
            resume: Go on with what is there.
            force: Replace what is there.
            begins: The command says enough to begin a run.
            missing: What to do where it does not, for a message.

        Raises:
            SmallfryError: Something else is there, a run that nobody asked to replace, or no run to go on with.
        """
        found = None
        if self.path.exists():
            found = read_json(self.path)
            if not isinstance(found, dict) or found.get("format") != self.form:
                raise SmallfryError(f"{self.path}: not a record of {self.form}; choose another --out")
        elif resume and not begins:
            raise SmallfryError(f"{self.out}: nothing to resume: no {self.record} in it; {missing}")
        elif any(item.name not in (".lock", *self.kept) for item in self.out.iterdir()):
            raise SmallfryError(f"{self.out}: is not empty and no {self.what}; choose another --out")
        if found is not None and not resume and not force:
            state = "a finished run" if found.get("result") else "an unfinished run"
            raise SmallfryError(
                f"{self.out}: holds {state}; use --resume to go on, --force to replace it, or another --out"
            )
        return found if resume else None

    def same(self, asked: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
        """Check that what is asked of a resumed run is what it was begun with.

        Args:
            asked: The settings that the user gave, by name.
            stored: Those of the record.

        Raises:
            SmallfryError: One differs.
        """
        for name, mine in asked.items():
            if mine != stored[name]:
                raise SmallfryError(
                    f"{self.out}: was begun with {name} {_shown(stored[name])}, not {_shown(mine)}; leave it out to go "
                    "on, or use --force to start again"
                )

    def clear(self) -> None:
        """Put an earlier run away; called by all processes, done by the main one.

        It is gone when the new run has begun, and comes back where that cannot: a mistake costs no model.
        """
        self.world.barrier()  # all have seen what was there before
        if not self.world.main:
            return
        before = self.out / _BEFORE
        there = [name for name in (*MODEL_FILES, "run", self.record) if (self.out / name).exists()]
        if there and not before.exists():
            before.mkdir()
            for name in there:  # the record last: until then it is the earlier run's directory
                (self.out / name).replace(before / name)
        self._remove()

    def _remove(self) -> None:
        for name in (self.record, *MODEL_FILES):
            (self.out / name).unlink(missing_ok=True)
        shutil.rmtree(self.out / "run", ignore_errors=True)

    def write(self, data: dict[str, Any], begun: bool) -> None:
        """Replace the record by the main process.

        Args:
            data: What it says.
            begun: Everything that could be wrong with the command was looked at; an earlier run is let go.
        """
        if self.world.main:
            write_atomic(self.path, json.dumps({"format": self.form, **data}, indent=1, ensure_ascii=False) + "\n")
            if begun:
                shutil.rmtree(self.out / _BEFORE, ignore_errors=True)

    def withdraw(self, began: bool) -> None:
        """Leave nothing behind of a run that could not even begin, so that a corrected command can."""
        if not self.world.main:
            return
        before = self.out / _BEFORE
        if before.is_dir():
            self._remove()
            for name in (*MODEL_FILES, "run", self.record):
                if (before / name).exists():
                    (before / name).replace(self.out / name)
            shutil.rmtree(before, ignore_errors=True)
        elif self.fresh and not began:
            self.path.unlink(missing_ok=True)
            (self.out / ".lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it was there before, with something in it
                self.out.rmdir()


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def locked(file: IO[bytes]) -> bool:
    """Take a lock that ends with the process; where the system has none, there is nothing to take."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM as Ctrl-C, while nothing better handles it."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
