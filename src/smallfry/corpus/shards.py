"""A tokenised corpus on disk: memory-mapped shards of token ids, written atomically, checked before they are used.

A corpus directory holds ``corpus.json``, ``tokenizer.json``, ``held-out.jsonl``, and for every shard ``00000.bin``
(ids, uint16 or uint32, little-endian: each document as ``<|bos|>``, its tokens, ``<|end|>``) beside ``00000.json``
(format, number of tokens and documents, SHA-256). While it is being made there are ``00000.held.jsonl`` and
``00000.seen.safetensors`` too: the held-out documents met meanwhile, and what duplicates are known by.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smallfry.errors import SmallfryError
from smallfry.files import read_json, write_atomic
from smallfry.tokenizer import SPECIALS, Tokenizer

FORMAT = "smallfry-corpus/1"
INDEX, TOKENIZER, HELD_OUT = "corpus.json", "tokenizer.json", "held-out.jsonl"
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_CHECK_BYTES = 1 << 24  # hashed at a time
_MOST_SHARDS = 100_000


@dataclass(slots=True)
class Shard:
    """One finished piece of a corpus.

    Args:
        number: Its place.
        source: Which source of the mixture it belongs to.
        dtype: ``uint16`` or ``uint32``.
        tokens: Ids in it, documents' ends included.
        documents: Documents in it.
        text_bytes: Bytes of UTF-8 they were.
        sha256: Of the ``.bin`` file.
        position: Documents of its source that were read up to its end.
        held_out: Held-out documents met since the shard before.
        extra: SHA-256 of the two files beside it while the corpus is being made, and the counts so far.
    """

    number: int
    source: int
    dtype: str
    tokens: int
    documents: int
    text_bytes: int
    sha256: str
    position: int
    held_out: int
    extra: dict[str, Any] = field(default_factory=dict)

    def path(self, folder: Path, suffix: str = ".bin") -> Path:
        """One of its files; the name comes from the number, never from what a file says."""
        return folder / f"{self.number:05d}{suffix}"

    def save(self, folder: Path) -> None:
        """Write its JSON file: the last one, which makes the shard count."""
        write_atomic(self.path(folder, ".json"), json.dumps({"format": FORMAT, **asdict(self)}) + "\n")

    @staticmethod
    def load(folder: Path, number: int) -> Shard:
        """Read a shard's JSON file.

        Raises:
            SmallfryError: It is missing, broken or of another format.
        """
        path = folder / f"{number:05d}.json"
        found = read_json(path)
        try:
            if found.pop("format") != FORMAT:
                raise ValueError("another format")
            shard = Shard(**found)
            counts = (shard.number, shard.source, shard.tokens, shard.documents, shard.text_bytes, shard.position)
            sane = all(type(n) is int and n >= 0 for n in (*counts, shard.held_out))
            if not sane or shard.number != number or shard.dtype not in DTYPES or not isinstance(shard.extra, dict):
                raise ValueError("values out of range")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SmallfryError(f"{path}: not a shard of {FORMAT} ({error}); {_REMEDY}") from None
        return shard

    def check(self, folder: Path, vocab_size: int) -> None:
        """Read the ids once, and compare size and checksum.

        Raises:
            SmallfryError: The file is missing, damaged, or holds ids that the tokenizer does not have.
        """
        path = self.path(folder)
        dtype = DTYPES[self.dtype]
        digest, highest, size = hashlib.sha256(), 0, 0
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHECK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    ids = np.frombuffer(chunk, dtype=dtype, count=len(chunk) // dtype.itemsize)
                    highest = max(highest, int(ids.max(initial=0)))
        except OSError as error:
            raise SmallfryError(f"{path}: cannot be read ({error.strerror or error}); {_REMEDY}") from None
        expected = self.tokens * dtype.itemsize
        if size != expected or digest.hexdigest() != self.sha256:
            what = f"{size:,} bytes, expected {expected:,}" if size != expected else "checksum differs"
            raise SmallfryError(f"{path}: damaged shard ({what}); {_REMEDY}")
        if highest >= vocab_size:
            raise SmallfryError(f"{path}: has token {highest:,}, the tokenizer only {vocab_size:,}; {_REMEDY}")

    def ids(self, folder: Path) -> np.ndarray:
        """Its ids, memory-mapped; ``(tokens,)``."""
        dtype = DTYPES[self.dtype]
        if not self.tokens:
            return np.empty(0, dtype=dtype)
        try:
            mapped: np.ndarray = np.memmap(self.path(folder), dtype=dtype, mode="r", shape=(self.tokens,))
            return mapped
        except (OSError, ValueError) as error:
            raise SmallfryError(f"{self.path(folder)}: cannot be mapped ({error}); {_REMEDY}") from None


_REMEDY = "delete the corpus directory and make it again (smallfry pretrain)"


class TokenStream:
    """The ids of a source's shards as one ring: after the last comes the first again.

    Args:
        parts: Memory-mapped ids.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = [part for part in parts if len(part)]
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self.tokens = int(self._starts[-1])

    @staticmethod
    def joined(streams: Sequence[TokenStream]) -> TokenStream:
        """Several rings as one."""
        return TokenStream([part for stream in streams for part in stream._parts])

    def read(self, start: int, length: int) -> np.ndarray:
        """``length`` ids from place ``start`` on, ``(length,)`` int64."""
        found = np.empty(length, dtype=np.int64)
        done = 0
        at = start % self.tokens
        part = int(np.searchsorted(self._starts, at, side="right")) - 1
        while done < length:
            inside = at - int(self._starts[part])
            piece = self._parts[part][inside : inside + length - done]
            found[done : done + len(piece)] = piece
            done += len(piece)
            part = (part + 1) % len(self._parts)
            at = int(self._starts[part])
        return found

    def counts(self, vocab_size: int, most: int = 50_000_000) -> np.ndarray:
        """How often each token occurs in about the first ``most``, ``(vocab_size,)``."""
        total = np.zeros(vocab_size, dtype=np.int64)
        for part in self._parts:
            total += np.bincount(part[:most], minlength=vocab_size)
            most -= len(part)
            if most <= 0:
                break
        return total


@dataclass
class Corpus:
    """A finished corpus.

    Args:
        path: Its directory.
        index: What ``corpus.json`` says.
        tokenizer: Its tokenizer.
        shards: In order.
        streams: The ids, one ring a source.
    """

    path: Path
    index: dict[str, Any]
    tokenizer: Tokenizer
    shards: list[Shard]
    streams: list[TokenStream]

    @property
    def tokens(self) -> int:
        """Tokens to train on, documents' beginnings and ends included."""
        return sum(stream.tokens for stream in self.streams)

    @property
    def documents(self) -> int:
        """Documents to train on."""
        return sum(shard.documents for shard in self.shards)

    @property
    def text_bytes(self) -> int:
        """Bytes of the training text."""
        return sum(shard.text_bytes for shard in self.shards)

    @property
    def weights(self) -> list[float] | None:
        """The mixture's weights, one a source; None where it is no mixture."""
        found = [source.get("weight") for source in self.index["sources"]]
        return None if all(w is None for w in found) else [1.0 if w is None else float(w) for w in found]

    @property
    def sha256(self) -> str:
        """Of everything that is trained on: of the shards' hashes in order."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()


class HeldRow(NamedTuple):
    """A held-out document, or a section of one.

    Args:
        text: What it says.
        source: The name of its source.
        draw: By which it is held out: sections of the same draw are of the same document. None in a corpus of an
            earlier version.
    """

    text: str
    source: str
    draw: float | None


def read_held_out(path: Path, sha256: str) -> Iterator[HeldRow]:
    """What is held out, one row after another; the checksum is compared behind the last.

    Raises:
        SmallfryError: The file is missing or damaged.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for line in file:
                digest.update(line)
                row = json.loads(line)
                draw = row.get("draw")
                yield HeldRow(str(row["text"]), str(row["source"]), None if draw is None else float(draw))
    except OSError as error:
        raise SmallfryError(f"{path}: cannot be read ({error.strerror or error}); {_REMEDY}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SmallfryError(f"{path}: damaged (a line is no document); {_REMEDY}") from None
    if digest.hexdigest() != sha256:
        raise SmallfryError(f"{path}: damaged (checksum differs); {_REMEDY}")


def is_corpus(path: Path) -> bool:
    """Whether a directory is a corpus that was tokenised here."""
    return (path / INDEX).is_file()


def corpus_in(path: Path) -> Path | None:
    """The corpus that a directory is, or that a pretraining made in it; None where there is none."""
    return next((found for found in (path, path / "corpus") if is_corpus(found)), None)


def read_index(path: Path) -> dict[str, Any]:
    """A corpus directory's ``corpus.json``.

    Raises:
        SmallfryError: It is missing, broken or of another format.
    """
    index = read_json(path / INDEX)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise SmallfryError(f"{path / INDEX}: not a corpus of {FORMAT}; {_REMEDY}")
    return index


def open_corpus(path: Path, check: bool = True) -> Corpus:
    """A finished corpus directory.

    Args:
        path: The directory.
        check: Whether to read all of it once and compare checksums, about a second a gigabyte.

    Raises:
        SmallfryError: It is unfinished, something is missing, damaged, or does not fit the rest.
    """
    index = read_index(path)
    if not index.get("finished"):
        raise SmallfryError(
            f"{path}: this corpus is unfinished; go on with the command that was making it, and --resume"
        )
    try:
        _check_index(index)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SmallfryError(f"{path / INDEX}: damaged ({error!r}); {_REMEDY}") from None
    sources = index["sources"]
    tokenizer = load_tokenizer(path / TOKENIZER, index["tokenizer_sha256"])
    shards = [Shard.load(path, number) for number in range(index["shards"])]
    if any(shard.source >= len(sources) for shard in shards) or sys.byteorder != "little":
        raise SmallfryError(f"{path / INDEX}: does not fit its shards; {_REMEDY}")
    if check:
        for shard in shards:
            shard.check(path, tokenizer.vocab_size)
    rings = [
        TokenStream([shard.ids(path) for shard in shards if shard.source == number]) for number in range(len(sources))
    ]
    return Corpus(path, index, tokenizer, shards, rings)


def _check_index(index: dict[str, Any]) -> None:
    """Raise `ValueError` and the like where something is not what the rest of the program takes it for."""
    texts = [index["tokenizer_sha256"], index["held_out_sha256"], *(source["name"] for source in index["sources"])]
    weights = [source.get("weight") for source in index["sources"]]
    rows = index["contamination"] or []
    counts = [c for source in index["sources"] for name in ("read", "counts") for c in source[name].values()]
    counts += [c for source in index["sources"] for c in source.get("skipped", {}).values()]
    if not isinstance(index["settings"]["steps"], list):
        raise ValueError("no cleaning steps")
    counts += [index["shards"], *(row[name] for row in rows for name in ("n", "found", "short"))]
    counts += [row.get("whole", 0) for row in rows]
    texts += [source.get(name) or "" for source in index["sources"] for name in ("held_out_by", "revision")]
    texts += [text for row in rows for text in (row["task"], row.get("suite", ""))]
    if not all(type(text) is str for text in texts) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError("a value of another kind")
    if not 0 < index["shards"] < _MOST_SHARDS or not 0 <= index["held_out_share"] < 1:
        raise ValueError("values out of range")
    if not all(w is None or 0 < w < math.inf for w in weights) or not weights:
        raise ValueError("weights out of range")


def load_tokenizer(path: Path, sha256: str | None = None) -> Tokenizer:
    """A corpus's tokenizer.

    Raises:
        SmallfryError: It is missing, not one of smallfry's, or not the one that the corpus was tokenised with.
    """
    tokenizer = Tokenizer.load(path)
    if sha256 is not None and file_hash(path) != sha256:
        raise SmallfryError(f"{path}: not the tokenizer that the shards were made with; {_REMEDY}")
    if [tokenizer.hf.token_to_id(name) for name in SPECIALS] != list(range(len(SPECIALS))):
        raise SmallfryError(f"{path}: not a tokenizer of smallfry (its first tokens are others); train one (--vocab)")
    return tokenizer


def file_hash(path: Path) -> str:
    """SHA-256 of a small file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SmallfryError(f"{path}: cannot be read ({error.strerror or error}); check file and disk") from None
