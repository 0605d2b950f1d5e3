"""One document after another through filters, fingerprints and tokenizer: here, or in processes side by side."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smallfry.corpus.cleaning import Signer, fault, fingerprint
from smallfry.corpus.readers import Section
from smallfry.errors import SmallfryError
from smallfry.evals.suites.items import Finder, Wanted
from smallfry.machine import one_thread_children
from smallfry.tokenizer import BOS, END, Tokenizer

CHUNK_CHARS, CHUNK_DOCUMENTS = 1 << 18, 512
PARALLEL_BYTES = 16 << 20
"""Text from which on processes pay: each takes a second or two to start."""


@dataclass(frozen=True, slots=True)
class Done:
    """A document that was looked at.

    Args:
        fault: The quality filter that it does not pass; what follows the draw is then empty.
        draw: In [0, 1), from its text alone: below the held-out share it is held out.
        key: Hash of its text up to white space.
        signature: MinHash signature, where near duplicates are looked for.
        met: Hashes of benchmark items that it has.
        ids: ``<|bos|>``, its tokens, ``<|end|>``.
        text_bytes: Of UTF-8.
    """

    fault: str | None
    draw: float
    key: int = 0
    signature: np.ndarray | None = None
    met: Sequence[int] = ()
    ids: np.ndarray | None = None
    text_bytes: int = 0


@dataclass(frozen=True)
class Task:
    """What every worker knows.

    Args:
        tokenizer: ``tokenizer.json``.
        steps: Cleaning steps that are taken.
        items: What is looked for of the suites' items.
        dtype: Of token ids.
    """

    tokenizer: Path
    steps: frozenset[str]
    items: Wanted
    dtype: np.dtype[Any]


class Worker:
    """Looks at documents.

    Args:
        task: How.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.hf = Tokenizer.load(task.tokenizer).hf
        self.hf.encode_special_tokens = True  # "<|end|>" in a corpus is text, not the end of one
        self.signer = Signer() if "near-duplicates" in task.steps else None
        self.items = Finder(task.items) if task.items else None

    def __call__(self, texts: Sequence[str]) -> list[Done]:
        """Look at a chunk of documents."""
        faults = [fault(text, self.task.steps) for text in texts]
        kept = [text for text, found in zip(texts, faults, strict=True) if found is None]
        encoded = iter(self.hf.encode_batch_fast(kept, add_special_tokens=False) if kept else ())
        return [
            self._done(text, next(encoded).ids) if found is None else Done(found, fingerprint(text)[1])
            for text, found in zip(texts, faults, strict=True)
        ]

    def _done(self, text: str, tokens: Sequence[int]) -> Done:
        key, draw = fingerprint(text)
        ids = np.empty(len(tokens) + 2, dtype=self.task.dtype)
        ids[0], ids[1:-1], ids[-1] = BOS, tokens, END
        met = self.items(text) if self.items is not None else ()
        signature = self.signer(text) if self.signer is not None else None
        return Done(None, draw, key, signature, met, ids, len(text.encode()))


def chunks(sections: Iterable[Section]) -> Iterator[list[Section]]:
    """Documents in lists of about a quarter of a megabyte."""
    chunk: list[Section] = []
    size = 0
    for section in sections:
        chunk.append(section)
        size += len(section.text)
        if size >= CHUNK_CHARS or len(chunk) >= CHUNK_DOCUMENTS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def work(task: Task, sections: Iterable[Section], workers: int) -> Generator[tuple[Section, Done]]:
    """Look at documents; the results come in their order whatever the number of processes.

    Args:
        task: How.
        sections: Documents, taken as processes become free.
        workers: Processes; 1 does the work in this one.

    Raises:
        SmallfryError: A process died.
    """
    if workers <= 1:
        worker = Worker(task)
        for chunk in chunks(sections):
            yield from zip(chunk, worker([text for text, _ in chunk]), strict=True)
        return
    with one_thread_children():
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(task,))
        ahead: deque[tuple[list[Section], Future[list[Done]]]] = deque()
        try:
            for chunk in chunks(sections):
                ahead.append((chunk, pool.submit(_look, [text for text, _ in chunk])))
                if len(ahead) > 2 * workers:
                    first, done = ahead.popleft()
                    yield from zip(first, done.result(), strict=True)
            for first, done in ahead:
                yield from zip(first, done.result(), strict=True)
        except BrokenProcessPool:
            raise SmallfryError(
                "a process that tokenises died: out of memory, or a script calls pretrain outside "
                "`if __name__ == '__main__':`; finished shards are kept, --resume goes on"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: Worker | None = None


def _start(task: Task) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(task)


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers, which would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _look(texts: list[str]) -> list[Done]:
    assert _worker is not None
    return _worker(texts)
