"""Which documents are held out: whole ones, by a draw that comes from their text alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smallfry.corpus.readers import SECTION
from smallfry.corpus.sample import Document, Sample

HELD_OUT_SHARE, MOST_HELD_OUT, WANTED_HELD_OUT = 0.01, 0.1, 100
"""Of the documents, 1% is held out; up to 10% where fewer than 100 documents would be."""
MOST_OF_TEXT = 0.5
"""Of the text that a document may be which is held out because no other is."""
DOCUMENTS, SECTIONS = "documents", "sections"


@dataclass(frozen=True, slots=True)
class Split:
    """What decides on a document.

    Args:
        share: Below it a draw holds out.
        by_section: For each source whether every section draws for itself: where it is one long document.
        chosen: The draw of a document that is held out because none is below ``share``.
    """

    share: float
    by_section: tuple[bool, ...]
    chosen: float | None = None

    def draw(self, source: int, begins: bool, own: float, before: float) -> float:
        """The draw that decides on a section: its own, or that of the section before it in the same document."""
        return own if begins or self.by_section[source] else before

    def held_out(self, draw: float) -> bool:
        """Whether a draw holds out."""
        return draw < self.share or draw == self.chosen

    def write(self, index: dict[str, Any]) -> None:
        """Into what ``corpus.json`` says."""
        index |= {"held_out_share": self.share, "held_out_draw": self.chosen}
        for source, alone in zip(index["sources"], self.by_section, strict=True):
            source["held_out_by"] = SECTIONS if alone else DOCUMENTS

    @staticmethod
    def read(index: Mapping[str, Any]) -> Split:
        """The inverse of `write`.

        Raises:
            KeyError, TypeError, ValueError: It is damaged.
        """
        by_section = tuple({SECTIONS: True, DOCUMENTS: False}[source["held_out_by"]] for source in index["sources"])
        chosen = index["held_out_draw"]
        return Split(float(index["held_out_share"]), by_section, None if chosen is None else float(chosen))


def decide(sample: Sample, sources: int, weighted: bool, asked: float | None) -> Split:
    """How documents are held out.

    A document is held out as a whole. Where a source is a single document nothing else could be held out of it, and its
    sections draw each for itself; several such sources without weights are taken as one.

    Args:
        sample: What was met of the corpus.
        sources: How many there are.
        weighted: Whether they are mixed by weights, so that something must be left of each.
        asked: The share that the user set.
    """
    documents = [document for document in sample.documents if document.sections]
    of: list[list[Document]] = [[] for _ in range(sources)]
    for document in documents:
        of[document.source].append(document)
    single = {n for n, each in enumerate(of) if len(each) == 1 and n not in sample.unfinished}
    together = len(single) > 1 and not weighted
    by_section = set() if together else set(single)
    share = held_out_share(None if sample.unfinished else _units(of, by_section)) if asked is None else asked
    pools = [each for n, each in enumerate(of) if n not in single and n not in sample.unfinished]
    pools += [[of[n][0] for n in sorted(single)]] if together else []
    for pool in pools:  # so few that all of them draw alike
        if pool and all(document.draw < share for document in pool):
            by_section |= {document.source for document in pool}
    chosen = None if sample.unfinished or by_section or not share else _choose(documents, pools, share)
    return Split(share, tuple(n in by_section for n in range(sources)), chosen)


def held_out_share(units: int | None) -> float:
    """1% of the documents, more where the corpus is small and that would be fewer than a hundred.

    Args:
        units: How many documents there are, or sections where those draw; None where they are many.
    """
    if not units:
        return HELD_OUT_SHARE
    return round(min(MOST_HELD_OUT, max(HELD_OUT_SHARE, WANTED_HELD_OUT / units)), 4)


def _units(of: Sequence[Sequence[Document]], by_section: set[int]) -> int:
    sections = [max(of[n][0].sections, of[n][0].size // SECTION) for n in by_section]
    return sum(sections) + sum(len(each) for n, each in enumerate(of) if n not in by_section)


def _choose(documents: Sequence[Document], pools: Sequence[Sequence[Document]], share: float) -> float | None:
    """Of documents that all stay in by their draw, the lowest draw of those that are not most of the text."""
    if any(document.draw < share for document in documents):
        return None
    most = MOST_OF_TEXT * sum(document.size for document in documents)
    draws = [document.draw for document in documents if document.size <= most]
    chosen = min(draws, default=None)
    whole = any(pool and all(document.draw == chosen for document in pool) for pool in pools)
    return None if whole else chosen


def unit(index: Mapping[str, Any]) -> str:
    """What is held out of a corpus, in words."""
    found = [source.get("held_out_by") for source in index["sources"]]
    if None in found:  # made by an earlier version, in which a text file that was one document drew by sections
        long = any(source["read"].get("cuts") for source in index["sources"])
        return "documents, and parts of long ones whose rest is learned" if long else "documents"
    if SECTIONS not in found:
        return "documents"
    alone = "sections of one text, not documents" if len(found) == 1 else "sections of texts that are learned too"
    return f"documents, and {alone}" if DOCUMENTS in found else alone


def counted(count: int, what: str) -> str:
    """``3 documents``, ``1 section of one text``: a number and what it counts, as `unit` calls it."""
    return f"{count:,} " + (re.sub(r"^(document|section)s\b", r"\1", what) if count == 1 else what)
