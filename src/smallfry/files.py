"""Files that are written whole or not at all, and read with an error a person can use."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from smallfry.errors import SmallfryError


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part; its directory is made when absent.

    Args:
        path: Where it goes.
        data: Bytes, or text without lone surrogates, which is written as UTF-8.

    Raises:
        SmallfryError: When the disk is full or the place cannot be written; the old file is still there.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise SmallfryError(
            f"{path}: cannot write ({error.strerror}); free some space or choose another --out"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        SmallfryError: When it is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SmallfryError(f"{path}: no such file; expected a directory written by smallfry") from None
    except (ValueError, OSError, RecursionError) as error:
        raise SmallfryError(f"{path}: not readable as JSON ({error}); make the directory again") from None
