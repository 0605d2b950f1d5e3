"""Where a corpus comes from: files, folders and hub data sets, each with its weight in the mixture."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smallfry.corpus.hub import HubName, hub_commit
from smallfry.corpus.readers import ACCEPTED, Reading, Section, file_documents, hub_documents, kind_of
from smallfry.errors import SmallfryError
from smallfry.loading.mixtures import weighted

_PRINT_BYTES = 2**20  # read at either end of a file to know it again
_KINDS_SHOWN = 8
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
        skipped: Files of a folder that are of no kind that is read: how many of each kind.
        revision: Of a hub data set, the commit that is read.
    """

    name: str
    weight: float | None = None
    files: tuple[Path, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    revision: str | None = None

    @property
    def size(self) -> int | None:
        """Bytes on disk; None where they are not known beforehand."""
        return sum(file.stat().st_size for file in self.files) if self.files else None

    def documents(self, reading: Reading, tally: Counter[str]) -> Iterator[Section]:
        """Its documents in order, long ones in sections."""
        if not self.files:
            yield from hub_documents(self.name, reading, tally, self.revision)
        for file in self.files:
            yield from file_documents(file, reading, tally)

    def identity(self) -> dict[str, Any]:
        """What tells whether it is still the same: a commit, or names, sizes and a hash of both ends of every file."""
        pinned = {} if self.revision is None else {"revision": self.revision}
        return {"name": self.name, "files": [_identity(file) for file in self.files]} | pinned


def parse_sources(given: Sequence[str]) -> list[Source]:
    """``A.txt:3``, ``folder``, ``hf:owner/name:config@split#revision:0.5`` as sources.

    Raises:
        SmallfryError: Nothing is there, it is of no kind that can be read, or a weight is 0.
    """
    return [_parse(text) for text in given]


def pin(sources: Sequence[Source], stored: Sequence[Mapping[str, Any]], resumed: bool, begun: bool) -> list[Source]:
    """Hub data sets with the commit that is read of each; the hub is asked where none is known.

    Args:
        sources: In order.
        stored: The identities of a corpus that is there already, or nothing.
        resumed: Whether that corpus is kept as it is, also where it knows no commit.
        begun: Whether it is unfinished, so that more of the data sets will be read.

    Raises:
        SmallfryError: The hub cannot be asked, or a named revision is not the commit that the corpus was begun with.
    """
    same = [row.get("name") for row in stored] == [source.name for source in sources]
    found = []
    for number, source in enumerate(sources):
        known = stored[number].get("revision") if same else None
        if source.files or (same and known is None and resumed):
            found.append(source)
            continue
        commit = known
        if known is None or (begun and HubName.parse(source.name).revision):
            commit = hub_commit(source.name)
        if known is not None and commit != known and resumed:
            raise SmallfryError(
                f"{source.name}: is another commit than {known}, with which the corpus was begun; use --force to begin "
                "anew"
            )
        found.append(replace(source, revision=commit))
    return found


def _parse(text: str) -> Source:
    name, weight = weighted(text)
    if name.startswith("hf:"):
        return Source(name, weight)
    path = Path(name)
    if path.is_dir():
        files, skipped = _files(path)
        if not files:
            others = f" (only {listed(skipped)})" if skipped else ""
            raise SmallfryError(f"{path}: holds no text{others}; expected {ACCEPTED}")
        return Source(name, weight, files, skipped)
    if not path.exists():
        raise SmallfryError(
            f"{name}: no such file or folder; expected {ACCEPTED}, each with :WEIGHT behind it if wanted"
        )
    if kind_of(path) is None:
        raise SmallfryError(f"{name}: is of no kind that can be read; accepted are {ACCEPTED}: convert or rename it")
    return Source(name, weight, (path,))


def _files(folder: Path) -> tuple[tuple[Path, ...], dict[str, int]]:
    """The texts below a folder in order, without hidden ones and those in directories that smallfry made.

    Returns:
        The files, and how many others there are of each kind.
    """
    found: list[Path] = []
    others: Counter[str] = Counter()
    for base, folders, names in os.walk(folder):
        here = Path(base)
        if here != folder and _MADE.intersection(names):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [here / name for name in names if not name.startswith(".") and (here / name).is_file()]
        found += [file for file in files if kind_of(file)]
        others.update(_ending(file) for file in files if not kind_of(file))
    return tuple(sorted(found)), dict(sorted(others.items(), key=lambda each: (-each[1], each[0])))


def _ending(file: Path) -> str:
    """``.csv``, ``.csv.gz`` or ``no ending``."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:]) or "no ending"


def listed(counts: Mapping[str, int]) -> str:
    """``.csv 12, .zst 3``; of many kinds the most frequent."""
    most = sorted(counts.items(), key=lambda each: -each[1])
    rest = sum(n for _, n in most[_KINDS_SHOWN:])
    return ", ".join([f"{kind} {n:,}" for kind, n in most[:_KINDS_SHOWN]] + ([f"others {rest:,}"] if rest else []))


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
