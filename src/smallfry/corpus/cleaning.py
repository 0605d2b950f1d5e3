"""What is left out of a corpus, step by step: each can be switched off, each is counted.

The thresholds are mild: they take away what is no text, not what is poor text. They follow the quality filters of
Gopher (Rae et al. 2021, table A1) and C4 (Raffel et al. 2020), loosened.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import deque
from typing import Any

import numpy as np

from smallfry.errors import SmallfryError
from smallfry.evals.suites.items import RUN, WordHashes

MIN_CHARS = 20
MIN_LETTERS = 0.3
MAX_BROKEN = 0.05
MAX_REPEATED_LINES, FEWEST_LINES = 0.5, 5
MAX_COMPRESSION, COMPRESSION_BYTES = 10.0, 1000
NEAR_JACCARD = 0.8
SHINGLE = 5  # words in a row
PERMUTATIONS, BANDS = 64, 8
"""Documents that share 80% of their runs of five words meet in at least one band of eight with 77%, of 90% with 99%."""
NEAR_WINDOW = 1_000_000
"""Documents among which near duplicates are looked for, the latest: about 3.5 KB of memory each."""

STEPS: dict[str, str] = {
    "short": f"fewer than {MIN_CHARS} characters",
    "letters": f"less than {MIN_LETTERS:.0%} of the visible characters are letters",
    "broken": f"more than {MAX_BROKEN:.0%} of the characters are control or replacement characters",
    "repeated-lines": f"more than {MAX_REPEATED_LINES:.0%} of its lines repeat an earlier one",
    "repetitive": f"compresses more than {MAX_COMPRESSION:.0f} to 1 (zlib)",
    "contaminated": f"shares {RUN} words in a row with an item of the suites in --data-dir, or has a shorter one whole",
    "duplicates": "the same text, up to white space, stood before",
    "near-duplicates": f"shares {NEAR_JACCARD:.0%} of its runs of {SHINGLE} words with one that stood before (MinHash)",
}  # fmt: skip
"""The steps by name, in the order in which they are taken, with what each leaves out."""

_WORD = re.compile(r"\w+")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]")  # all but tab and line feed; U+FFFD
_POWERS = np.array([pow(0x9E3779B97F4A7C15, k, 2**64) for k in range(SHINGLE)], dtype=np.uint64)


def parse_steps(skip: str) -> frozenset[str]:
    """The steps that are taken, from a comma-separated list of those that are not (``all`` for none).

    Raises:
        SmallfryError: There is no step of that name.
    """
    names = {name.strip() for name in skip.split(",") if name.strip()}
    if names == {"all"}:
        return frozenset()
    if unknown := sorted(names - set(STEPS)):
        raise SmallfryError(f"--skip {unknown[0]}: no such cleaning step; there are {', '.join(STEPS)}, and all")
    return frozenset(STEPS) - names


def fault(text: str, steps: frozenset[str]) -> str | None:
    """The first quality filter that a document does not pass, or None."""
    if "short" in steps and len(text) < MIN_CHARS:
        return "short"
    visible = len(text) - sum(map(text.count, " \n\t")) or 1
    if "letters" in steps and sum(map(str.isalpha, text)) < MIN_LETTERS * visible:
        return "letters"
    if "broken" in steps and _broken(text) > MAX_BROKEN * len(text):
        return "broken"
    if "repeated-lines" in steps:
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if len(lines) >= FEWEST_LINES and len(lines) - len(set(lines)) > MAX_REPEATED_LINES * len(lines):
            return "repeated-lines"
    if "repetitive" in steps and len(text) >= COMPRESSION_BYTES:
        data = text.encode("utf-8", "replace")
        if len(zlib.compress(data, 1)) * MAX_COMPRESSION < len(data):
            return "repetitive"
    return None


def _broken(text: str) -> int:
    return len(_CONTROL.findall(text))


def fingerprint(text: str) -> tuple[int, float]:
    """What two documents share that are equal up to white space: a 64-bit hash, and a draw in [0, 1) for the split.

    Both come from the text alone: neither the order of the corpus nor a seed changes which documents are held out.
    """
    digest = hashlib.blake2b(" ".join(text.split()).encode("utf-8", "replace"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big") / 2.0**64


class Signer:
    """MinHash signatures (Broder 1997) of documents as sets of runs of five words, by ``datasketch``."""

    def __init__(self) -> None:
        self._empty = _minhash()
        self._hash = WordHashes()

    def __call__(self, text: str) -> np.ndarray:
        """The signature: ``(PERMUTATIONS,)`` uint32. A text of fewer words than a run is one run."""
        words = _WORD.findall(text.lower()) or [text]
        words += [""] * (SHINGLE - len(words))
        hashes = np.fromiter(map(self._hash, words), dtype=np.uint64, count=len(words))
        runs = np.lib.stride_tricks.sliding_window_view(hashes, SHINGLE)
        with np.errstate(over="ignore"):
            mixed = (runs * _POWERS).sum(axis=1, dtype=np.uint64) >> np.uint64(32)
        self._empty.clear()
        self._empty.update_batch(np.unique(mixed).tolist())
        return np.array(self._empty.hashvalues, dtype=np.uint32)


class NearDuplicates:
    """Locality-sensitive hashing over the signatures of the latest documents (``datasketch.MinHashLSH``).

    Candidates that share a band count when the signatures agree in at least `NEAR_JACCARD` of their places, which
    estimates the Jaccard similarity of the sets.

    Args:
        window: Documents remembered; the oldest are forgotten.
    """

    def __init__(self, window: int = NEAR_WINDOW) -> None:
        from datasketch import MinHashLSH

        self._asked = _minhash()  # one for all: the index keeps hashes of its bands, not the thing itself
        self._index = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, PERMUTATIONS // BANDS))
        self._signatures: dict[int, np.ndarray] = {}
        self._order: deque[int] = deque()
        self._next = 0
        self.window = window

    def near(self, signature: np.ndarray) -> bool:
        """Whether a remembered document is nearly the same."""
        found: list[int] = self._index.query(self._wrap(signature))
        return any(float(np.mean(self._signatures[n] == signature)) >= NEAR_JACCARD for n in found)

    def add(self, signature: np.ndarray) -> None:
        """Remember a document."""
        number = self._next
        self._next += 1
        self._index.insert(number, self._wrap(signature), check_duplication=False)
        self._signatures[number] = signature
        self._order.append(number)
        if len(self._order) > self.window:
            oldest = self._order.popleft()
            self._index.remove(oldest)
            del self._signatures[oldest]

    def _wrap(self, signature: np.ndarray) -> Any:
        self._asked.hashvalues = signature
        return self._asked


def _minhash() -> Any:
    """An empty MinHash whose inputs are hashes already.

    Raises:
        SmallfryError: ``datasketch`` is missing.
    """
    try:
        from datasketch import MinHash
    except ImportError:
        raise SmallfryError(
            "near duplicates need datasketch; run: pip install 'smallfry[lab]', or leave them in with "
            "--skip near-duplicates"
        ) from None
    return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")
