"""How well a model knows a corpus's held-out documents: bits per byte, beside what needs no model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from smallfry.corpus.shards import HELD_OUT, Corpus, read_held_out
from smallfry.corpus.split import unit
from smallfry.evals.statistics import bootstrap_statistic
from smallfry.evals.suites.scoring import LanguageModel
from smallfry.evals.suites.text import FEWEST, bits_per_byte, bits_rate
from smallfry.tokenizer import SPECIALS

SAMPLE_BYTES = 64_000
"""Held-out text that is measured while a training runs."""
MOST_BYTES = 5_000_000
"""Held-out text that is measured at its end; of more, documents spread evenly over each source."""


@dataclass(slots=True)
class HeldOut:
    """Held-out documents, long ones in sections.

    Args:
        texts: The documents and sections.
        sources: Which source each is from.
        owners: Which document each is of, numbered from 0; where sections were held out, each is one of its own.
        total: How many documents there are altogether.
        unit: What was held out, in words: ``documents``, or that it is sections of a text whose rest is learned.
    """

    texts: list[str]
    sources: list[str]
    owners: list[int]
    total: int
    unit: str = "documents"


@dataclass(slots=True)
class Measured:
    """Bits per byte of held-out documents.

    Args:
        bits_per_byte: Of all of them.
        ci: 95% interval over documents, all sections of one drawn together; None where there are too few to tell.
        documents: How many were measured.
        total: How many are held out.
        n_bytes: Bytes that were measured.
        unigram: What knowing nothing but each token's frequency gives.
        by_source: Of each source of a mixture.
        sections: Into how many the documents are cut.
        unit: What was held out; see `HeldOut`.
    """

    bits_per_byte: float
    ci: tuple[float, float] | None
    documents: int
    total: int
    n_bytes: int
    unigram: float
    by_source: dict[str, float] = field(default_factory=dict)
    sections: int = 0
    unit: str = "documents"

    def caveats(self) -> list[str]:
        """What must be known to read the number aright."""
        found = []
        if self.unit != "documents":
            found.append(f"held out are {self.unit}: bits per byte is somewhat too good")
        if self.ci is None:
            found.append(f"no interval: it takes {FEWEST} held-out documents, there are {self.documents}")
        return found


def held_out(corpus: Corpus, most: int = MOST_BYTES) -> HeldOut:
    """The corpus's held-out documents; where they are more than ``most`` bytes, the same share of each source's."""
    path, sha256 = corpus.path / HELD_OUT, corpus.index["held_out_sha256"]
    sizes = [len(row.text.encode()) for row in read_held_out(path, sha256)]
    share = min(1.0, most / max(1, sum(sizes)))
    found = HeldOut([], [], [], 0, unit(corpus.index))
    met: Counter[str] = Counter()  # rows of each source so far
    owners: dict[float, int] = {}
    for at, row in enumerate(read_held_out(path, sha256)):
        owner = owners.setdefault(float(-1 - at) if row.draw is None else row.draw, len(owners))
        number, met[row.source] = met[row.source], met[row.source] + 1
        if math.floor(number * share) > math.floor((number - 1) * share):  # the first, and evenly from there
            found.texts.append(row.text)
            found.sources.append(row.source)
            found.owners.append(owner)
    found.total = len(owners)
    return found


def sample(documents: HeldOut, most: int = SAMPLE_BYTES) -> list[str]:
    """Documents spread evenly over the held-out ones, of about ``most`` bytes together; always the same ones."""
    size = sum(len(text.encode()) for text in documents.texts)
    step = max(1, round(size / most))
    return documents.texts[::step]


def measure(model: LanguageModel, documents: HeldOut, corpus: Corpus) -> Measured:
    """Score the held-out documents.

    Args:
        model: Any language model.
        documents: At least one.
        corpus: For the frequencies of its tokens.
    """
    found = bits_per_byte(model, documents.texts)
    numbers = np.unique(documents.owners, return_inverse=True)[1]
    sums = np.stack([np.bincount(numbers, column) for column in found.sums.T], axis=1)  # (documents, 2)
    interval = bootstrap_statistic(sums, bits_rate) if len(sums) >= FEWEST else None
    owners = np.array(documents.sources)
    names = dict.fromkeys(documents.sources)
    by_source = {n: float(bits_rate(found.sums[owners == n].sum(axis=0, keepdims=True))[0]) for n in names}
    return Measured(
        found.score, interval, len(sums), documents.total, found.n_bytes, unigram_bits(corpus, documents.texts),
        by_source if len(names) > 1 else {}, found.documents, documents.unit,
    )  # fmt: skip


def unigram_bits(corpus: Corpus, texts: Sequence[str]) -> float:
    """Bits per byte of a model that knows only how frequent each token is: a control that any training must beat."""
    tokenizer = corpus.tokenizer
    counts = sum(stream.counts(tokenizer.vocab_size) for stream in corpus.streams) + np.ones(tokenizer.vocab_size)
    counts[: len(SPECIALS)] = 0.0
    costs = -np.log2(np.maximum(counts, 1e-9) / counts.sum())
    bits = sum(float(costs[tokenizer.encode(text)].sum()) for text in texts)
    total = bits / max(1, sum(len(text.encode()) for text in texts))
    assert math.isfinite(total)
    return total
