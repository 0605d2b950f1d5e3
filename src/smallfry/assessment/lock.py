"""One assessment at a time in a directory, also when an earlier one was killed and its workers still end."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import IO

from smallfry.errors import SmallfryError

PATIENCE = 40.0  # seconds that orphaned workers have to save and end
_MAIN, _WORKERS = "lock", "workers.lock"


def _try_lock(file: IO[bytes], shared: bool) -> bool:
    """Take an advisory lock that ends with the process; where the system has none, there is nothing to take."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: go on as if there were none
        return True
    return True


class DirectoryLock:
    """Held by the main process of an assessment.

    Args:
        folder: The run's work directory.

    Raises:
        SmallfryError: When another assessment is writing there.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / _MAIN).open("wb")
        if not _try_lock(self._file, shared=False):
            self._file.close()
            raise SmallfryError(
                f"{folder.parent}: another assessment is writing there; wait for it or choose another --out"
            )
        deadline = time.monotonic() + PATIENCE
        with (folder / _WORKERS).open("wb") as workers:
            while not _try_lock(workers, shared=False):
                if time.monotonic() > deadline:
                    self.release()
                    raise SmallfryError(
                        f"{folder.parent}: workers of an assessment that was killed are still running; end them first"
                    )
                time.sleep(0.2)

    def release(self) -> None:
        """Let others write there."""
        self._file.close()


def hold_as_worker(folder: Path) -> IO[bytes] | None:
    """Mark the directory as in use for as long as this process lives; the file must be kept.

    Args:
        folder: The run's work directory.
    """
    with contextlib.suppress(OSError):
        file = (folder / _WORKERS).open("wb")
        _try_lock(file, shared=True)
        return file
    return None
