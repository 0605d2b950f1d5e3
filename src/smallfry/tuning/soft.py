"""Data with what teachers say of it, made when a batch is asked for; from a cache on disk where it can be."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from smallfry.data import Batch, Soft
from smallfry.errors import SmallfryError
from smallfry.training.epochs import CountedData, Data, MadeBatches
from smallfry.tuning.teachers import LogitTeacher, soft_targets

TOP_K = 32
CHOICES = 0.5
"""Weight above which a target is the model's own choice: the words of a job's prompt weigh less (`recipes`)."""
_FORMAT = "smallfry-soft/1"


def distilled(
    data: Data, teachers: Sequence[LogitTeacher], share: float, temperature: float, top_k: int = TOP_K, *,
    clean: bool = False, least: float = 0.0, cache: Path | None = None,
) -> Data:  # fmt: skip
    """The same batches, each with the teachers' distributions beside its targets.

    A batch stays a pure function of its number. The teachers cost a forward pass of theirs at every step.

    Args:
        data: What the student learns from.
        teachers: Models with the student's tokenizer; of several, the mean of their distributions is taught.
        share: Of the loss that is the teachers', 0 to 1.
        temperature: Softens the distributions, above 0; 1 leaves them as they are.
        top_k: Likeliest tokens kept at each place.
        clean: The teachers read the tokens that input noise hid from the student.
        least: Places whose targets weigh no more than this are not taught: what a label costs is little where the
            words of the prompt, which weigh less, are not asked about.
        cache: A directory in which what teachers say of the first epoch's rows is kept, in float16, and looked up from
            then on. It helps where rows come again exactly; rows that do not are asked about each time.

    Raises:
        SmallfryError: A setting is out of range, or the teachers have different vocabularies.
    """
    if not 0.0 <= share <= 1.0 or temperature <= 0.0 or top_k < 1:
        raise SmallfryError(
            f"distillation: share {share:g}, temperature {temperature:g}, top {top_k}; expected a share from 0 to 1, a "
            "temperature above 0 and at least 1 token"
        )
    if not teachers or len({teacher.vocab_size for teacher in teachers}) != 1:
        sizes = ", ".join(f"{t.name} {t.vocab_size:,}" for t in teachers) or "none"
        raise SmallfryError(f"distillation: expected teachers of one vocabulary, got {sizes}")
    lesson = _Lesson(list(teachers), share, temperature, top_k, clean, least)
    made = _Counted(data, lesson) if isinstance(data, CountedData) else _Distilled(data, lesson)
    if cache is not None and not clean and not least:  # neither is in the key
        made.lesson = _Cached(lesson, _Cache.of(cache, data, lesson))
    return made


class _Lesson:
    """Teachers and settings."""

    def __init__(
        self, teachers: list[LogitTeacher], share: float, temperature: float, top_k: int, clean: bool, least: float
    ) -> None:
        self.teachers, self.share, self.temperature = teachers, share, temperature
        self.clean, self.least = clean, least
        self.top_k = min(top_k, teachers[0].vocab_size)

    def soft(self, batch: Batch) -> Soft:
        return soft_targets(self.teachers, batch, self.share, self.temperature, self.top_k, self.clean, self.least)


class _Cached:
    """A lesson that is read where the cache has a row, and given anew where it has not."""

    def __init__(self, lesson: _Lesson, cache: _Cache) -> None:
        self._lesson, self._cache = lesson, cache

    def soft(self, batch: Batch) -> Soft:
        found = self._cache.find(batch, self._lesson)
        return self._lesson.soft(batch) if found is None else found


class _Distilled:
    def __init__(self, data: Data, lesson: _Lesson) -> None:
        self.data = data
        self.lesson: _Lesson | _Cached = lesson

    def epoch(self, epoch: int) -> Sequence[Batch]:
        batches = self.data.epoch(epoch)

        def make(at: int) -> Batch:
            batch = batches[at]
            return replace(batch, soft=self.lesson.soft(batch))

        return MadeBatches(len(batches), make)


class _Counted(_Distilled):
    data: CountedData

    def steps_per_epoch(self, epoch: int) -> int:
        return self.data.steps_per_epoch(epoch)


# ---- the cache ------------------------------------------------------------------------------------------------------


class _Cache:
    """What teachers say of the first epoch's rows: ids ``(P, K)`` int32 and probabilities ``(P, K)`` float16, on disk.

    It is made whole, in the order of the first epoch, and never changed: so what a batch gets does not depend on which
    rows were met before, and a resumed run finds, or makes, the same.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: Path, kept: int) -> None:
        keys = np.load(folder / "keys.npy", allow_pickle=False)
        starts = np.load(folder / "starts.npy", allow_pickle=False)
        self._at = {key.tobytes(): (int(a), int(b)) for key, a, b in zip(keys, starts[:-1], starts[1:], strict=True)}
        shape = (int(starts[-1]), kept)
        self._ids = _mapped(folder / "ids.bin", np.int32, shape)
        self._probs = _mapped(folder / "probs.bin", np.float16, shape)

    @staticmethod
    def of(cache: Path, data: Data, lesson: _Lesson) -> _Cache:
        """Find the cache of data, teachers and settings, or make it.

        Raises:
            SmallfryError: It cannot be written or read.
        """
        batches = data.epoch(0)
        folder = cache / _identity(batches, lesson)
        try:
            if not folder.exists():
                _make(folder, batches, lesson)
            return _Cache(folder, lesson.top_k)
        except (OSError, ValueError) as error:
            raise SmallfryError(f"{folder}: {error}; delete it, or free some space, and start again") from None

    def find(self, batch: Batch, lesson: _Lesson) -> Soft | None:
        """A batch's distributions; None where a row is not there."""
        spans = [self._at.get(key) for key in _keys(batch)]
        if any(span is None for span in spans):
            return None
        shape = (*batch.ids.shape, lesson.top_k)
        ids, probs = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.float32)
        for row, span in enumerate(spans):
            assert span is not None
            places = np.flatnonzero(batch.weights[row])
            ids[row, places], probs[row, places] = self._ids[slice(*span)], self._probs[slice(*span)]
        return Soft(ids, probs, lesson.share, lesson.temperature)


def _mapped(path: Path, dtype: type[np.generic], shape: tuple[int, int]) -> np.ndarray:
    """A file of numbers as an array that is read when it is looked at."""
    if path.stat().st_size != np.dtype(dtype).itemsize * shape[0] * shape[1]:
        raise ValueError(f"{path.name} has another size than it should have")
    return np.memmap(path, dtype=dtype, mode="r", shape=shape) if shape[0] else np.zeros(shape, dtype)


def _keys(batch: Batch) -> list[bytes]:
    """What each row's distributions depend on: its tokens up to the last place that carries weight, and those places.

    The target is part of it, for a place whose target the teachers do not know is taught the target.
    """
    keys = []
    for ids, targets, weights in zip(batch.ids, batch.targets, batch.weights, strict=True):
        places = np.flatnonzero(weights)
        length = int(places[-1]) + 1 if len(places) else 0
        digest = hashlib.blake2b(digest_size=16)
        for part in (ids[:length], targets[places], places):
            digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes() + b"|")
        keys.append(digest.digest())
    return keys


def _identity(batches: Sequence[Batch], lesson: _Lesson) -> str:
    """Names the cache: rows in their order, settings, and what the teachers say of the first batch."""
    digest = hashlib.sha256()
    settings = [_FORMAT, lesson.temperature, lesson.top_k, [t.name for t in lesson.teachers], len(batches)]
    digest.update(json.dumps(settings).encode())
    for number in range(len(batches)):
        digest.update(b"".join(_keys(batches[number])))
    if len(batches):  # the weights behind a name may have changed
        digest.update(lesson.soft(batches[0]).probs.astype(np.float16).tobytes())
    return digest.hexdigest()[:32]


def _make(folder: Path, batches: Sequence[Batch], lesson: _Lesson) -> None:
    """Ask about every row of an epoch; the folder is there when all is in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    keys: list[bytes] = []
    starts = [0]
    try:
        part.mkdir()
        with (part / "ids.bin").open("wb") as ids, (part / "probs.bin").open("wb") as probs:
            for number in range(len(batches)):
                batch = batches[number]
                soft = lesson.soft(batch)
                for row in range(len(batch.ids)):
                    places = np.flatnonzero(batch.weights[row])
                    ids.write(soft.ids[row, places].astype(np.int32).tobytes())
                    probs.write(soft.probs[row, places].astype(np.float16).tobytes())
                    starts.append(starts[-1] + len(places))
                keys += _keys(batch)
        np.save(part / "keys.npy", np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16))
        np.save(part / "starts.npy", np.array(starts, dtype=np.int64))
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process of the same run was faster: what it made is the same
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
