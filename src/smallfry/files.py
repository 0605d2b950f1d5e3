"""Files that are written whole or not at all, and read with an error a person can use."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smallfry.errors import SmallfryError


@contextlib.contextmanager
def whole_file(path: Path, advice: str = "free some space or choose another --out") -> Iterator[Path]:
    """A file beside ``path`` to write into, which takes its place when all went well; else the old one is still there.

    Args:
        path: Where it goes; its directory is made when absent.
        advice: What to do where it cannot be written, for the message.

    Raises:
        SmallfryError: When the disk is full or the place cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise SmallfryError(f"{path}: cannot write ({error.strerror or error}); {advice}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part; its directory is made when absent.

    Args:
        path: Where it goes.
        data: Bytes, or text without lone surrogates, which is written as UTF-8.

    Raises:
        SmallfryError: When the disk is full or the place cannot be written; the old file is still there.
    """
    with whole_file(path) as part:
        part.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def check_replaceable(out: Path, source: Path, mark: str, what: str, force: bool) -> None:
    """Refuse to put a folder where something else stands: ``--force`` replaces what smallfry made, and nothing else.

    Args:
        out: Where the folder goes.
        source: What it is made of, which must not be lost.
        mark: A file that every folder of this kind has.
        what: What such a folder is called.
        force: Whether one that is there may be replaced.

    Raises:
        SmallfryError: It must not.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise SmallfryError(f"{out}: exists and is no directory; choose another --out")
    place, made_of = out.resolve(), source.resolve()
    if place == made_of or place in made_of.parents:
        raise SmallfryError(f"{out}: is the model itself, or holds it; choose another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        raise SmallfryError(f"{out}: exists and is not empty; choose another --out, or replace it with --force")
    if not (out / mark).exists():
        raise SmallfryError(f"{out}: is no {what}, so --force leaves it alone; choose another --out")


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
