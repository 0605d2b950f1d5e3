"""Making a corpus: a tokenizer from a sample, then every document through cleaning into shards, resumable at each.

A shard counts once its JSON file stands. Who is killed goes on behind the last one: what stood before is read again to
its place, not tokenised again, and duplicates are known by what the shards kept of the documents.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from smallfry.corpus.cleaning import STEPS, NearDuplicates, Signer, fingerprint
from smallfry.corpus.readers import Reading, Section
from smallfry.corpus.sample import Sample, take_sample
from smallfry.corpus.shards import (
    DTYPES,
    FORMAT,
    HELD_OUT,
    INDEX,
    TOKENIZER,
    Corpus,
    Shard,
    file_hash,
    load_tokenizer,
    open_corpus,
    read_held_out,
    read_index,
)
from smallfry.corpus.sources import Source, parse_sources, pin
from smallfry.corpus.split import Split, decide
from smallfry.corpus.work import PARALLEL_BYTES, Done, Task, work
from smallfry.errors import SmallfryError
from smallfry.evals.suites.items import NOTHING, WHOLE, Items
from smallfry.files import whole_file, write_atomic
from smallfry.machine import own_cores
from smallfry.tokenizer import Tokenizer

SHARD_TOKENS = 1 << 23
RULES = 2
"""How settings become a corpus. Before 2 a text file of one document was held out by sections, any other document ten
sections at a time, and suites' items of fewer than 13 words were not looked for."""
_SINCE_RULES_2 = ("rules", "short_items")  # what says so in a corpus's settings
WATCH_EVERY = 1000  # documents
_GZIP_RATIO = 3


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """What decides a corpus; the same settings and files give the same shards.

    Args:
        sources: As `smallfry.corpus.sources.parse_sources` takes them.
        vocab: Vocabulary size of the tokenizer that is trained.
        reading: How files are cut into documents.
        steps: Cleaning steps that are taken.
        held_out: Share of the documents that are held out; None decides by their number.
        tokenizer: A ``tokenizer.json`` of smallfry's to use instead of training one.
        data_dir: The suites' data, whose items are kept out.
    """

    sources: tuple[str, ...]
    vocab: int
    reading: Reading = field(default_factory=Reading)
    steps: frozenset[str] = frozenset(STEPS)
    held_out: float | None = None
    tokenizer: Path | None = None
    data_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the making of a corpus is.

    Args:
        documents: Read so far, over all sources.
        text_bytes: Of the documents kept so far.
        tokens: Made so far.
        shards: Finished.
    """

    documents: int
    text_bytes: int
    tokens: int
    shards: int


Watch = Callable[[Progress], None]
Say = Callable[[str], None]


def prepare(
    folder: Path, settings: CorpusSettings, *, say: Say = lambda text: None, watch: Watch = lambda progress: None,
    workers: int = 0, force: bool = False,
) -> Corpus:  # fmt: skip
    """Make a corpus, go on with one, or take one that is finished.

    Args:
        folder: Its directory.
        settings: What it is made of and how.
        say: Told what is decided and done, one sentence each.
        watch: Told how far it is.
        workers: Processes; 0 is one a core where the text is long enough for that.
        force: Whether a corpus of other settings in ``folder`` is replaced.

    Raises:
        SmallfryError: A source cannot be read, nothing is left of one, or the folder holds another corpus.
    """
    sources = parse_sources(settings.sources)
    items = _items(settings, say)
    found = read_index(folder) if (folder / INDEX).exists() else {}
    sources = _pinned(sources, found, force)
    wanted = _identity(settings, sources, items)
    if found:
        if _stands(folder, found, wanted, force):
            return open_corpus(folder)
    elif folder.is_dir() and not force and any(p.name[0] != "." and p.name != TOKENIZER for p in folder.iterdir()):
        raise SmallfryError(f"{folder}: is not empty and no corpus; choose another --out")
    builder = _Builder(folder, settings, sources, items, wanted, say, watch)
    builder.run(workers or _workers(sources))
    return open_corpus(folder)


def _stands(folder: Path, found: dict[str, Any], wanted: dict[str, Any], force: bool) -> bool:
    """Whether the corpus that is there is finished and the one that is wanted; another one is cleared away."""
    settings, finished = found.get("settings"), bool(found.get("finished"))
    if settings == wanted:
        return finished
    if not force:
        if settings != {name: value for name, value in wanted.items() if name not in _SINCE_RULES_2}:
            raise SmallfryError(f"{folder}: holds a corpus of other files or settings; use --force to replace it")
        if finished:
            return True
        raise SmallfryError(
            f"{folder}: was begun by an earlier version, which held out by other rules; use --force to begin anew"
        )
    shutil.rmtree(folder)
    return False


def _pinned(sources: list[Source], found: dict[str, Any], force: bool) -> list[Source]:
    """Hub data sets at the commits that a corpus which is there was made from, else at those of now."""
    try:
        stored = [dict(row) for row in found["settings"]["sources"]] if found else []
    except (KeyError, TypeError, ValueError):  # damaged: none of the settings will be the same
        stored = []
    return pin(sources, stored, resumed=not force, begun=not found.get("finished"))


def _items(settings: CorpusSettings, say: Say) -> Items | None:
    if settings.data_dir is None:
        return None
    from smallfry.corpus.suites import items_of

    items = items_of(settings.data_dir)
    told = sum(bool(len(hashes)) for each in items.tasks.values() for hashes in each) + len(items.stories)
    short = sum(map(len, items.tasks.values())) + len(items.stories) - told
    unseen = f"; {short:,} of fewer than {WHOLE} words are not looked for" if short else ""
    say(f"contamination: looking for {told:,} items of {len(items.tasks) + bool(items.stories)} tasks{unseen}")
    return items


def _identity(settings: CorpusSettings, sources: list[Source], items: Items | None) -> dict[str, Any]:
    long, short = items.sha256 if items is not None else (None, None)
    return {
        "rules": RULES, "sources": [source.identity() | {"weight": source.weight} for source in sources],
        "column": settings.reading.column, "separator": settings.reading.separator,
        "steps": sorted(settings.steps), "held_out": settings.held_out,
        "vocab": None if settings.tokenizer else settings.vocab,
        "tokenizer": file_hash(settings.tokenizer) if settings.tokenizer else None,
        "items": long, "short_items": short,
    }  # fmt: skip


def _workers(sources: list[Source]) -> int:
    sizes = [source.size for source in sources]
    packed = [file for source in sources for file in source.files if file.suffix == ".gz"]
    known = sum(size or 0 for size in sizes) + sum((_GZIP_RATIO - 1) * file.stat().st_size for file in packed)
    return own_cores() if None in sizes or known > PARALLEL_BYTES else 1


# ---- the shards -----------------------------------------------------------------------------------------------------


class _Builder:
    """The state of a corpus that is being made."""

    def __init__(
        self, folder: Path, settings: CorpusSettings, sources: list[Source], items: Items | None,
        identity: dict[str, Any], say: Say, watch: Watch,
    ) -> None:  # fmt: skip
        self.folder, self.settings, self.sources, self.items = folder, settings, sources, items
        self.say, self.watch = say, watch
        self.index: dict[str, Any] = {
            "format": FORMAT, "finished": False, "settings": identity,
            "sources": [
                {"name": s.name, "weight": s.weight, "skipped": dict(s.skipped)}
                | ({} if s.files else {"revision": s.revision}) for s in sources
            ],
        }  # fmt: skip
        self.split = Split(0.0, ())
        self.shards: list[Shard] = []
        self.read = [Counter[str]() for _ in sources]  # by the readers
        self.counts = [Counter[str]() for _ in sources]  # by the cleaning
        self.met: set[int] = set()
        self.seen: set[int] = set()
        self.near = NearDuplicates() if "near-duplicates" in settings.steps else None
        self.protected_keys: set[int] = set()
        self.protected: NearDuplicates | None = None  # the suites' stories, which are never forgotten
        self.draw = 0.0  # of the document that the latest section belongs to
        self.held_draw: float | None = None  # of the latest one that is held out
        self._clear()

    def _clear(self) -> None:
        self.ids: list[np.ndarray] = []
        self.tokens, self.text_bytes, self.position = 0, 0, 0
        self.held: list[str] = []
        self.keys: list[int] = []
        self.signatures: list[np.ndarray] = []

    def run(self, workers: int) -> None:
        """Make what is not there yet."""
        self._begin()
        self._protect()
        source, position = self._resume()
        dtype = DTYPES["uint16" if self.vocab_size <= 1 << 16 else "uint32"]
        wanted = self.items.wanted if self.items is not None else NOTHING
        task = Task(self.folder / TOKENIZER, self.settings.steps, wanted, dtype)
        for number in range(source, len(self.sources)):
            sections = self.sources[number].documents(self.settings.reading, self.read[number])
            start = position if number == source else 0
            self.position = start
            with contextlib.closing(work(task, itertools.islice(sections, start, None), workers)) as results:
                for section, done in results:
                    self._take(number, section, done)
                    if self.tokens >= SHARD_TOKENS:
                        self._commit(number, dtype)
            if self.ids or self.held:
                self._commit(number, dtype)
            # Without weights sources are one text, of which some may be held out as a whole.
            if not self.counts[number]["kept"] and (self.weighted or not self.counts[number]["held out"]):
                raise SmallfryError(f"{self.sources[number].name}: nothing to train on; {self._why(number)}")
        if not any(counts["kept"] for counts in self.counts):
            raise SmallfryError(f"{self.sources[0].name}: nothing to train on; {self._why(0)}")
        self._finish()

    @property
    def weighted(self) -> bool:
        """Whether the sources are a mixture by weights."""
        return any(source.weight is not None for source in self.sources)

    # ---- beginning ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Tokenizer and split: from the index of an unfinished corpus, else from a sample."""
        path = self.folder / TOKENIZER
        if (self.folder / INDEX).exists():
            self.index = read_index(self.folder)
            try:
                self.split, known = Split.read(self.index), str(self.index["tokenizer_sha256"])
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise SmallfryError(f"{self.folder / INDEX}: damaged ({error!r}); use --force to begin anew") from None
            self.vocab_size = load_tokenizer(path, known).vocab_size
            return
        sample = take_sample(self.sources, self.settings.reading, self.settings.steps)
        if not sample.texts:
            raise SmallfryError(f"{self.sources[0].name}: holds no text that passes the filters; see --skip")
        texts = self._divide(sample)
        tokenizer = self._tokenizer(texts, sample.whole)
        self.vocab_size = tokenizer.vocab_size
        write_atomic(path, tokenizer.hf.to_str(pretty=True) + "\n")
        self.split.write(self.index)
        self.index |= {
            "tokenizer_sha256": file_hash(path), "vocab_size": self.vocab_size,
            "tokenizer_sample_chars": sum(map(len, texts)),
        }  # fmt: skip
        self._write_index()

    def _divide(self, sample: Sample) -> list[str]:
        """Decide on what is held out; the texts of the sample that are not."""
        asked = self.settings.held_out
        self.split = decide(sample, len(self.sources), self.weighted, asked)
        texts = []
        for text, source, document, section in sample.texts:
            if not self.split.held_out(section if self.split.by_section[source] else document):
                texts.append(text)
        if not texts and sample.whole and asked is None:  # so few that all of them drew the same
            self.split = replace(self.split, share=0.0)
            texts = [each.text for each in sample.texts]
        if self.split.chosen is not None:
            self.say(f"held out: no document draws below {self.split.share:g}; the one with the lowest draw is taken")
        return texts

    def _tokenizer(self, texts: list[str], whole: bool) -> Tokenizer:
        if self.settings.tokenizer is not None:
            tokenizer = load_tokenizer(self.settings.tokenizer)
            self.say(f"tokenizer: {self.settings.tokenizer}, vocabulary {tokenizer.vocab_size:,}")
            return tokenizer
        tokenizer = Tokenizer.train(texts, self.settings.vocab)
        part = f"{sum(map(len, texts)) / 1e6:.3g} MB, the beginnings of files in even shares"
        part = "all training text" if whole else part
        self.say(f"tokenizer: vocabulary {tokenizer.vocab_size:,}, trained on {part}")
        return tokenizer

    def _write_index(self) -> None:
        write_atomic(self.folder / INDEX, json.dumps(self.index, indent=1, ensure_ascii=False) + "\n")

    def _protect(self) -> None:
        """Let the suites' held-out stories count as documents that stood before."""
        if self.items is None or "contaminated" not in self.settings.steps:
            return
        self.protected_keys = {fingerprint(story)[0] for story in self.items.stories}
        if self.near is not None:
            signer, self.protected = Signer(), NearDuplicates(len(self.items.stories))
            for story in self.items.stories:
                self.protected.add(signer(story))

    def _resume(self) -> tuple[int, int]:
        """Take in the shards that stand; the source and the document to go on with."""
        while (self.folder / f"{len(self.shards):05d}.json").exists():
            try:
                shard = Shard.load(self.folder, len(self.shards))
                shard.check(self.folder, self.vocab_size)
                self._remember(shard)
            except SmallfryError as error:
                self.say(f"{error.args[0].split(';')[0]}: it and those after it are made again")
                break
            self.shards.append(shard)
        for path in (*self.folder.glob("[0-9]*.*"), *self.folder.glob(".*.part")):
            number = path.name.split(".")[0]
            if not number.isdecimal() or int(number) >= len(self.shards):
                path.unlink()
        if not self.shards:
            return 0, 0
        last = self.shards[-1]
        self.say(f"corpus: {len(self.shards)} finished shards are there, going on behind document {last.position:,}")
        try:
            read, counts = ([Counter[str](c) for c in last.extra[name]] for name in ("read", "counts"))
            read[last.source].clear()  # the reader begins this source anew and counts again
            if not len(read) == len(counts) == len(self.sources):
                raise ValueError("counts of other sources")
            self.read, self.counts, self.met = read, counts, set(last.extra["met"])
            self.draw, self.held_draw = float(last.extra["draw"]), last.extra["held_draw"]
        except (IndexError, KeyError, TypeError, ValueError) as error:
            path = last.path(self.folder, ".json")
            raise SmallfryError(f"{path}: damaged ({error!r}); use --force to begin anew") from None
        return last.source, last.position

    def _remember(self, shard: Shard) -> None:
        """Duplicates are known by what a shard kept of its documents."""
        path = shard.path(self.folder, ".seen.safetensors")
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != shard.extra["seen_sha256"]:
                raise ValueError("checksum differs")
            found = load(data)
            for _ in read_held_out(shard.path(self.folder, ".held.jsonl"), shard.extra["held_sha256"]):
                pass
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise SmallfryError(f"{path}: damaged ({error}); it is made again") from None
        self.seen.update(found["keys"].tolist())
        if self.near is not None:
            for signature in found["signatures"]:
                self.near.add(signature)

    # ---- documents ------------------------------------------------------------------------------------------------

    def _take(self, source: int, section: Section, done: Done) -> None:
        """Decide on one document, or a section of it."""
        self.draw = self.split.draw(source, section.begins, done.draw, self.draw)
        self.position += 1
        counts = self.counts[source]
        counts["documents"] += 1
        if self.position % WATCH_EVERY == 0:
            self.watch(self._progress())
        reason = done.fault or self._known(done)
        if reason is not None:
            counts[reason] += 1
            return
        if "duplicates" in self.settings.steps:
            self.seen.add(done.key)
            self.keys.append(done.key)
        if self.near is not None and done.signature is not None:
            self.near.add(done.signature)
            self.signatures.append(done.signature)
        if self.split.held_out(self.draw):
            counts["held out"] += 1
            counts["held-out documents"] += self.draw != self.held_draw
            self.held_draw = self.draw
            row = {"text": section.text, "source": self.sources[source].name, "draw": self.draw}
            self.held.append(json.dumps(row, ensure_ascii=False) + "\n")
            return
        assert done.ids is not None
        counts["kept"] += 1
        counts["text bytes"] += done.text_bytes
        counts["tokens"] += len(done.ids)
        self.ids.append(done.ids)
        self.tokens += len(done.ids)
        self.text_bytes += done.text_bytes

    def _known(self, done: Done) -> str | None:
        """Why a document that passes the filters is left out all the same."""
        steps = self.settings.steps
        self.met.update(done.met)
        if "contaminated" in steps and (done.met or done.key in self.protected_keys):
            return "contaminated"
        if "duplicates" in steps and done.key in self.seen:
            return "duplicates"
        for index, name in ((self.protected, "contaminated"), (self.near, "near-duplicates")):
            if index is not None and done.signature is not None and index.near(done.signature):
                return name
        return None

    def _progress(self) -> Progress:
        total = sum(self.counts, Counter())
        return Progress(total["documents"], total["text bytes"], total["tokens"], len(self.shards))

    def _commit(self, source: int, dtype: np.dtype[Any]) -> None:
        """Write a shard, its JSON file last."""
        ids = np.concatenate(self.ids) if self.ids else np.empty(0, dtype=dtype)
        data = ids.astype(dtype, copy=False).tobytes()
        held = "".join(self.held).encode("utf-8")
        width = len(self.signatures[0]) if self.signatures else 1
        seen = save({
            "keys": np.array(self.keys, dtype=np.uint64),
            "signatures": np.array(self.signatures, dtype=np.uint32).reshape(-1, width),
        })  # fmt: skip
        extra = {
            "held_sha256": hashlib.sha256(held).hexdigest(), "seen_sha256": hashlib.sha256(seen).hexdigest(),
            "read": [dict(read) for read in self.read], "counts": [dict(counts) for counts in self.counts],
            "met": sorted(self.met), "draw": self.draw, "held_draw": self.held_draw,
        }  # fmt: skip
        shard = Shard(
            len(self.shards), source, "uint16" if dtype.itemsize == 2 else "uint32", len(ids), len(self.ids),
            self.text_bytes, hashlib.sha256(data).hexdigest(), self.position, len(self.held), extra,
        )  # fmt: skip
        write_atomic(shard.path(self.folder), data)
        write_atomic(shard.path(self.folder, ".held.jsonl"), held)
        write_atomic(shard.path(self.folder, ".seen.safetensors"), seen)
        shard.save(self.folder)
        self.shards.append(shard)
        position = self.position
        self._clear()
        self.position = position
        self.watch(self._progress())

    # ---- end ------------------------------------------------------------------------------------------------------

    def _why(self, source: int) -> str:
        counts = self.counts[source]
        left = ", ".join(f"{name} {counts[name]:,}" for name in (*STEPS, "held out") if counts[name])
        return f"of {counts['documents']:,} documents none is left ({left or 'it is empty'}); see --skip and --valid"

    def _finish(self) -> None:
        """Join the held-out documents, write the index, and remove what only a resumed run needs."""
        digest = hashlib.sha256()
        path = self.folder / HELD_OUT
        with whole_file(path, "free some space, --resume goes on") as part, part.open("wb") as file:
            for shard in self.shards:
                data = shard.path(self.folder, ".held.jsonl").read_bytes()
                digest.update(data)
                file.write(data)
        for source, read, counts in zip(self.index["sources"], self.read, self.counts, strict=True):
            source["read"], source["counts"] = dict(read), dict(counts)
        self.index |= {
            "finished": True, "shards": len(self.shards), "held_out_sha256": digest.hexdigest(),
            "contamination": self.items.met(self.met) if self.items is not None else None,
        }  # fmt: skip
        self._write_index()
        for shard in self.shards:
            for suffix in (".held.jsonl", ".seen.safetensors"):
                shard.path(self.folder, suffix).unlink(missing_ok=True)
