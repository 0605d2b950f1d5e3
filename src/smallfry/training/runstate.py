"""Run states: the last two saves of a training, written so that nothing that happens meanwhile costs more than one.

A save is ``state-<step>.safetensors`` (weights, optimizer) and ``state-<step>.json`` (position, curve, settings; the
first file's size and SHA-256, and its own). Both are written under other names, brought onto the disk, and renamed, the
JSON file last: a save is there when its JSON file is. Reading trusts nothing that does not match its checksum and takes
the older save where the newer one is damaged.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from smallfry.errors import SmallfryError
from smallfry.tensorfiles import digest_of, sync_directory, write_tensors

FORMAT = "smallfry-run/1"
KEPT = 2
_LARGEST_IN_MEMORY = 1 << 29  # bytes of a snapshot: what about 40M parameters need, times two snapshots
_NAME = re.compile(r"state-(\d{1,15})\.(?:json|safetensors)(?:\.part)?")


@dataclass(frozen=True, slots=True)
class RunState:
    """A save that was read.

    Args:
        tensors: Weights and optimizer.
        plain: Position, curve and settings.
        note: One line where this is not the newest save that was begun, else empty.
    """

    tensors: dict[str, Tensor]
    plain: dict[str, Any]
    note: str = ""


class Saves(Protocol):
    """Where a training keeps its last two saves."""

    def save(self, tensors: Mapping[str, Tensor], plain: dict[str, Any]) -> None:
        """Keep a save; see `save_state`."""

    def load(self, before: int | None = None) -> RunState | None:
        """Read a save; see `load_state`."""


class DiskSaves:
    """Saves in a directory, which survive the process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def save(self, tensors: Mapping[str, Tensor], plain: dict[str, Any]) -> None:
        """See `save_state`."""
        save_state(self.path, tensors, plain)

    def load(self, before: int | None = None) -> RunState | None:
        """See `load_state`."""
        return load_state(self.path, before)


class MemorySaves:
    """Saves in memory, for going back to where a run has no directory; those of large models are not kept."""

    def __init__(self) -> None:
        self._held: dict[int, RunState] = {}

    def save(self, tensors: Mapping[str, Tensor], plain: dict[str, Any]) -> None:
        """Copy a save, if it is not too large."""
        if sum(t.numel() * t.element_size() for t in tensors.values()) > _LARGEST_IN_MEMORY:
            return
        step = int(plain["step"])
        state = RunState({name: t.detach().clone() for name, t in tensors.items()}, copy.deepcopy(plain))
        steps = [s for s in sorted(self._held) if s < step][1 - KEPT :]
        self._held = {s: self._held[s] for s in steps} | {step: state}

    def load(self, before: int | None = None) -> RunState | None:
        """The newest save, or the newest one whose step is not above ``before``, or the oldest there is."""
        steps = _order(list(self._held), before)
        if not steps:
            return None
        held = self._held[steps[0]]
        return RunState({name: t.clone() for name, t in held.tensors.items()}, copy.deepcopy(held.plain))


def save_state(path: Path, tensors: Mapping[str, Tensor], plain: dict[str, Any]) -> None:
    """Save a run; a crash at any moment leaves the saves that were there before.

    Two saves are kept. Those of later steps, which a run left behind that was started again or went back, are removed.

    Args:
        path: The run's directory; made if need be.
        tensors: Weights and optimizer.
        plain: Position, curve and settings; must be JSON, ``step`` an int.

    Raises:
        SmallfryError: When it cannot be written, as on a full disk; nothing of it is left, earlier saves are intact.
    """
    step = int(plain["step"])
    weights, text = path / f"state-{step}.safetensors", path / f"state-{step}.json"
    parts = [file.with_name(file.name + ".part") for file in (weights, text)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        _keep(path, _steps(path))  # not what a process left that was killed
        digest, size = write_tensors(parts[0], tensors)
        content = {"format": FORMAT, "file": weights.name, "bytes": size, "sha256": digest, "state": plain}
        content = json.loads(json.dumps(content))  # as it will be read: keys become strings, tuples lists
        _write(parts[1], json.dumps({"content": content, "sha256": _digest_of_json(content)}))
        _keep(path, [s for s in _steps(path) if s <= step], but=parts)
        if weights.exists() and digest_of(weights) != digest:
            text.unlink(missing_ok=True)  # another run's save of this step: never one's weights with the other's text
        parts[0].replace(weights)
        parts[1].replace(text)
        sync_directory(path)
        _keep(path, _steps(path)[:KEPT])
    except OSError as error:
        raise SmallfryError(_cannot_save(path, step, error)) from None
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def load_state(path: Path, before: int | None = None) -> RunState | None:
    """The last complete save in a run's directory, or None when there is none.

    Args:
        path: The run's directory.
        before: Prefer a save whose step is not above this one; the oldest where there is none.

    Raises:
        SmallfryError: When there are saves and all are damaged, or another version of smallfry wrote them.
    """
    wrong = _cut_short(path)
    for step in _order(_steps(path), before):
        try:
            tensors, plain = _read(path, step)
        except _DamagedError as error:
            wrong.append(str(error))
            continue
        told = wrong and before is None  # going back to an older save on purpose is not worth a note
        return RunState(tensors, plain, f"{path}: {'; '.join(wrong)}; going on from step {step:,}" if told else "")
    if _steps(path):
        raise SmallfryError(f"{path}: no save is whole ({'; '.join(wrong)}); remove it or use --force to start again")
    if (path / "state.json").exists():
        raise SmallfryError(f"{path}: holds a save of an older smallfry; remove it or use --force to start again")
    return None


def remove_states(path: Path) -> None:
    """Remove all saves of a run that is over and will not be resumed."""
    with contextlib.suppress(OSError):
        _keep(path, [])


class _DamagedError(Exception):
    """A save that cannot be used; the message says which file and why."""


def _read(path: Path, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One save, checked against its checksums."""
    text = path / f"state-{step}.json"
    try:
        outer = json.loads(text.read_bytes())
        content = outer["content"]
        whole = outer["sha256"] == _digest_of_json(content)
    except OSError as error:
        raise _DamagedError(f"{text.name}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _DamagedError(f"{text.name}: not a save") from None
    if not whole:
        raise _DamagedError(f"{text.name}: checksum differs")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SmallfryError(
            f"{text}: written by another version of smallfry (expected format {FORMAT}); use that one, or --force to "
            "start again"
        )
    file = path / f"state-{step}.safetensors"
    plain = content.get("state")
    if content.get("file") != file.name or not isinstance(plain, dict) or plain.get("step") != step:
        raise _DamagedError(f"{text.name}: another save's file")
    try:
        if file.stat().st_size != content.get("bytes") or digest_of(file) != content.get("sha256"):
            raise _DamagedError(f"{file.name}: checksum differs")
        return load_file(file), plain
    except FileNotFoundError:
        raise _DamagedError(f"{file.name}: missing") from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise _DamagedError(f"{file.name}: {error}") from None


def _order(steps: list[int], before: int | None) -> list[int]:
    """Steps in the order in which their saves are wanted."""
    newest_first = sorted(steps, reverse=True)
    if before is None:
        return newest_first
    good = [s for s in newest_first if s <= before]
    return good + [s for s in reversed(newest_first) if s > before]


def _steps(path: Path) -> list[int]:
    """Steps of the saves in a directory, whole or not, the newest first."""
    return sorted((step for step, file in _files(path) if file.suffix == ".json"), reverse=True)


def _files(path: Path) -> list[tuple[int, Path]]:
    """Everything in a directory that belongs to a save, with its step; JSON files first."""
    found = [(match, file) for file in path.glob("state-*") if (match := _NAME.fullmatch(file.name))]
    return sorted(((int(match[1]), file) for match, file in found), key=lambda f: (f[1].suffix != ".json", f))


def _cut_short(path: Path) -> list[str]:
    """What there is to say of a save that was begun after the newest and never finished."""
    newest = max(_steps(path), default=-1)
    return [f"the save of step {step:,} was cut short" for step in sorted({s for s, _ in _files(path) if s > newest})]


def _keep(path: Path, steps: list[int], but: list[Path] | None = None) -> None:
    """Remove all saves but those of some steps, and what is left of unfinished ones; nothing of ``but``."""
    for step, file in _files(path):  # JSON files first: what is left without one is no save
        if (step not in steps or file.suffix == ".part") and file not in (but or []):
            file.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    with path.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _digest_of_json(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _cannot_save(path: Path, step: int, error: OSError) -> str:
    why = f"{path}: cannot save step {step:,} ({error.strerror or error})"
    if not (steps := _steps(path)):
        return f"{why}; nothing was saved before: free some space or choose another --out"
    return f"{why}; the save of step {steps[0]:,} is intact: free some space and go on with --resume"
