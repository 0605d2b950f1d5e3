"""New inputs for a teacher to label, spliced from those there are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"\s*\S+")
_TRIES = 20  # for each input wanted; where inputs have no word in common there is nothing to splice


def spliced(inputs: Sequence[str], count: int, seed: int) -> list[str]:
    """Inputs that begin as one of the given ones and go on, from a word that both have, as another.

    What comes out reads like the job's inputs from word to word, but nobody has seen it whole: a student learns how its
    teacher decides between what was mixed (function matching, Beyer et al. 2022). It has no right output of its own.

    Args:
        inputs: What there is.
        count: How many to make; fewer where no more different ones are found.
        seed: Of the draws.

    Returns:
        Different texts, none of which is among the inputs.
    """
    rng = np.random.default_rng([seed, len(inputs)])
    rows = [_WORD.findall(text) for text in inputs]
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, words in enumerate(rows):
        for at, word in enumerate(words):
            places[_plain(word)].append((row, at))
    longest = max((len(words) for words in rows), default=0)
    known = set(inputs)
    found: list[str] = []
    for _ in range(_TRIES * count if rows else 0):
        if len(found) >= count:
            break
        words = rows[int(rng.integers(len(rows)))]
        if len(words) < 2:
            continue
        cut = int(rng.integers(1, len(words)))
        same = places[_plain(words[cut])]
        row, at = same[int(rng.integers(len(same)))]
        text = "".join([*words[:cut], *rows[row][at:]])
        if text not in known and cut + len(rows[row]) - at <= longest:
            known.add(text)
            found.append(text)
    return found


def _plain(word: str) -> str:
    return word.strip().lower()
