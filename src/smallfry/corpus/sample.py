"""The beginnings of all files: what the tokenizer is trained on, and how many documents there are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from smallfry.corpus.cleaning import fault, fingerprint
from smallfry.corpus.readers import Reading
from smallfry.corpus.sources import Source

SAMPLE_BYTES = 20 << 20
"""Text that the tokenizer is trained on at most; shared evenly among the files."""
HELD_OUT_SHARE, MOST_HELD_OUT, WANTED_HELD_OUT = 0.01, 0.1, 100
"""Of the documents, 1% is held out; up to 10% where fewer than 100 documents would be."""


@dataclass(slots=True)
class Sample:
    """What the beginnings of all files say of a corpus.

    Args:
        texts: Documents that pass the filters, with the draw that decides on holding them out.
        whole: Whether they are the whole corpus.
    """

    texts: list[tuple[str, float]] = field(default_factory=list)
    whole: bool = True


def take_sample(sources: list[Source], reading: Reading, steps: frozenset[str], most: int = SAMPLE_BYTES) -> Sample:
    """The first documents of every file, an even share of ``most`` characters each; a small one leaves more."""
    parts = [Source(s.name, s.weight, (file,)) for s in sources for file in s.files]
    parts.sort(key=lambda part: part.size or 0)
    parts += [source for source in sources if not source.files]
    sample = Sample()
    for number, part in enumerate(parts):
        before = room = most // (len(parts) - number)
        draw = 0.0
        for text, draws in part.documents(reading, Counter()):
            draw = fingerprint(text)[1] if draws else draw
            if fault(text, steps) is None:
                sample.texts.append((text, draw))
            room -= len(text)
            if room <= 0:
                sample.whole = False
                break
        most -= before - room
    return sample


def held_out_share(sample: Sample) -> float:
    """1% of the documents, more where the corpus is small and that would be fewer than a hundred."""
    if not sample.whole or not sample.texts:
        return HELD_OUT_SHARE
    return round(min(MOST_HELD_OUT, max(HELD_OUT_SHARE, WANTED_HELD_OUT / len(sample.texts))), 4)
