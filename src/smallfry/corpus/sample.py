"""The beginnings of all files: what the tokenizer is trained on, and which documents there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from smallfry.corpus.cleaning import fault, fingerprint
from smallfry.corpus.readers import Reading, is_one_document
from smallfry.corpus.sources import Source

SAMPLE_CHARS = 20 << 20
"""Text that the tokenizer is trained on at most; shared evenly among the files."""
LEAST_CHARS = 1_000
"""Of a file that is longer; where there is no room for so much of each, files spread evenly over all are read."""
COUNTED = 1_000
"""Documents that are counted at least, beyond the sample too: of fewer it matters how many they are."""


class Sampled(NamedTuple):
    """A text of the sample.

    Args:
        text: A document or a section of one; the last of a file may be cut off.
        source: Number of its source.
        document: The draw in [0, 1) of the document that it is of, which is that of the document's first section.
        section: Its own draw.
    """

    text: str
    source: int
    document: float
    section: float


@dataclass(slots=True)
class Document:
    """A document that was met.

    Args:
        source: Number of its source.
        draw: As in `Sampled`.
        size: Characters, or bytes where it was not read to its end.
        sections: That pass the filters, as far as it was read.
    """

    source: int
    draw: float
    size: int = 0
    sections: int = 0


@dataclass(slots=True)
class Sample:
    """What the beginnings of all files say of a corpus.

    Args:
        texts: Those that pass the filters.
        whole: Whether they are the whole corpus.
        documents: That were met.
        unfinished: Sources that may have more documents than were met.
    """

    texts: list[Sampled] = field(default_factory=list)
    whole: bool = True
    documents: list[Document] = field(default_factory=list)
    unfinished: set[int] = field(default_factory=set)


def take_sample(sources: Sequence[Source], reading: Reading, steps: frozenset[str], most: int = SAMPLE_CHARS) -> Sample:
    """The beginnings of files, an even share of ``most`` characters each; a small one leaves more.

    Where fewer than `COUNTED` documents are in them it is read on, which keeps none of the text.

    Args:
        sources: In order.
        reading: How files are cut into documents.
        steps: Cleaning steps that are taken.
        most: Characters that are kept.
    """
    sample = Sample()
    parts = _parts(sources, most, sample)
    for number, (source, part) in enumerate(parts):
        most -= _read(sample, source, part, reading, steps, most // (len(parts) - number))
    return sample


def _parts(sources: Sequence[Source], most: int, sample: Sample) -> list[tuple[int, Source]]:
    """Single files and hub data sets, smallest first; spread over each source where all would be too many."""
    sizes = [file.stat().st_size for source in sources for file in source.files]
    wanted = sum(min(size, LEAST_CHARS) for size in sizes)
    share = min(1.0, most / wanted) if wanted else 1.0
    parts: list[tuple[int, Source]] = []
    for number, source in enumerate(sources):
        files = source.files
        count = min(len(files), max(1, int(share * len(files))))
        if count < len(files):
            sample.whole = False
            sample.unfinished.add(number)
        chosen = [files[at * len(files) // count] for at in range(count)]
        parts += [(number, Source(source.name, files=(file,))) for file in chosen] or [(number, source)]
    return sorted(parts, key=lambda part: (part[1].size is None, part[1].size or 0))


def _read(sample: Sample, source: int, part: Source, reading: Reading, steps: frozenset[str], room: int) -> int:
    """Take in the beginning of a file; how many characters it took of those that there is room for."""
    used = 0
    one: bool | None = None
    document: Document | None = None
    for text, begins in part.documents(reading, Counter()):
        if document is not None and used >= room:
            one = bool(part.files) and is_one_document(part.files[0], reading) if one is None else one
            if one:
                document.size = max(document.size, part.size or 0)
            if one or len(sample.documents) >= COUNTED:
                sample.whole = False
                sample.unfinished |= set() if one else {source}
                break
        draw = fingerprint(text)[1]
        if begins or document is None:
            document = Document(source, draw)
            sample.documents.append(document)
        document.size += len(text)
        passes = fault(text, steps) is None
        document.sections += passes
        taken = min(len(text), room - used)
        sample.whole = sample.whole and taken == len(text)
        if passes and taken:
            sample.texts.append(Sampled(text[:taken], source, document.draw, draw))
        used += taken
    return used
