"""Where a corpus comes from: files, folders and hub data sets, each with its weight in the mixture."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallfry.corpus.readers import ACCEPTED, Reading, Section, file_documents, hub_documents, kind_of
from smallfry.errors import SmallfryError
from smallfry.loading.mixtures import weighted

_PRINT_BYTES = 2**20  # read at either end of a file to know it again
# What marks a directory that smallfry made: a corpus, runs, models. Their texts (held-out documents, reports) are no
# source, or the second look at a folder that holds its own run would find another corpus than the first.
_MADE = {"corpus.json", "pretrain.json", "tune.json", "reinforce.json", "assessment.json", "smallfry.json"}


@dataclass(frozen=True, slots=True)
class Source:
    """One corpus of a mixture.

    Args:
        name: As the user wrote it, without the weight.
        weight: Its share of the tokens, relative to the others'; None where the user gave none.
        files: What is read, in this order; empty for a hub data set.
    """

    name: str
    weight: float | None = None
    files: tuple[Path, ...] = ()

    @property
    def size(self) -> int | None:
        """Bytes on disk; None where they are not known beforehand."""
        return sum(file.stat().st_size for file in self.files) if self.files else None

    def documents(self, reading: Reading, tally: Counter[str]) -> Iterator[Section]:
        """Its documents in order, long ones in sections."""
        if not self.files:
            yield from hub_documents(self.name, reading, tally)
        for file in self.files:
            yield from file_documents(file, reading, tally)

    def identity(self) -> dict[str, Any]:
        """What tells whether it is still the same: names, sizes, and a hash of both ends of every file."""
        return {"name": self.name, "files": [_identity(file) for file in self.files]}


def parse_sources(given: Sequence[str]) -> list[Source]:
    """``A.txt:3``, ``folder``, ``hf:owner/name:config@split:0.5`` as sources.

    Raises:
        SmallfryError: Nothing is there, it is of no kind that can be read, or a weight is 0.
    """
    return [_parse(text) for text in given]


def _parse(text: str) -> Source:
    name, weight = weighted(text)
    if name.startswith("hf:"):
        return Source(name, weight)
    path = Path(name)
    if path.is_dir():
        files = _files(path)
        if not files:
            raise SmallfryError(f"{path}: holds no text; expected {ACCEPTED}")
        return Source(name, weight, files)
    if not path.exists():
        raise SmallfryError(
            f"{name}: no such file or folder; expected {ACCEPTED}, each with :WEIGHT behind it if wanted"
        )
    if kind_of(path) is None:
        raise SmallfryError(f"{name}: is of no kind that can be read; accepted are {ACCEPTED}: convert or rename it")
    return Source(name, weight, (path,))


def _files(folder: Path) -> tuple[Path, ...]:
    """The texts below a folder in order, without hidden ones and those in directories that smallfry made."""
    found: list[Path] = []
    for base, folders, names in os.walk(folder):
        here = Path(base)
        if here != folder and _MADE.intersection(names):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [here / name for name in names if not name.startswith(".") and kind_of(here / name)]
    return tuple(sorted(file for file in found if file.is_file()))


def _identity(file: Path) -> dict[str, Any]:
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            digest = hashlib.sha256(stream.read(_PRINT_BYTES))
            stream.seek(max(0, size - _PRINT_BYTES))
            digest.update(stream.read(_PRINT_BYTES))
    except OSError as error:
        raise SmallfryError(f"{file}: cannot be read ({error.strerror or error}); check file and disk") from None
    return {"file": file.name, "bytes": size, "sha256_of_ends": digest.hexdigest()}
