"""Who may see what: every value, phrase and combination belongs to one split by a hash of its text.

The assignment does not depend on the seed, so what is held out for test with one seed is never in train with another.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from functools import lru_cache

from smallfry.errors import SmallfryError
from smallfry.job import Example, SplitName

VALID_SHARE = 0.10
TEST_SHARE = 0.20


@lru_cache(maxsize=1 << 18)
def part_of(text: str) -> SplitName:
    """The one split in which `text` may occur: 70% train, 10% valid, 20% test, by a hash of the text alone."""
    fraction = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / (1 << 48)
    if fraction < TEST_SHARE:
        return "test"
    return "valid" if fraction < TEST_SHARE + VALID_SHARE else "train"


@lru_cache(maxsize=1 << 14)
def _pools(options: tuple[str, ...], part: SplitName) -> tuple[tuple[str, ...], tuple[str, ...]]:
    known = tuple(o for o in options if part_of(o) == "train")
    held = tuple(o for o in options if part_of(o) == part)
    # A list too short to hold anything out is shared by all splits.
    return (known or options), (held or known or options)


def pick(rng: random.Random, options: tuple[str, ...], part: SplitName, held_share: float = 0.5) -> str:
    """Draw an option that `part` may use.

    Train draws from its own options only; valid and test take one of their own held-out options with probability
    `held_share` and one of train's otherwise, so that they share no held-out option with each other.
    """
    known, held = _pools(options, part)
    pool = held if part != "train" and rng.random() < held_share else known
    return pool[int(rng.random() * len(pool))]


def choose(rng: random.Random, options: Sequence[str]) -> str:
    """Draw one of `options` evenly (faster than `random.choice`, and the same in every Python version)."""
    return options[int(rng.random() * len(options))]


def collect(
    name: str, seed: int, part: SplitName, n: int, make: Callable[[random.Random], Example | None]
) -> list[Example]:
    """Draw `n` rows with distinct texts for one split.

    Each split has its own random stream, so the test rows do not change with the number of training rows, and fewer
    training rows are always a prefix of more.

    Args:
        name: The job's name, part of the random stream's seed.
        seed: The user's seed.
        part: The split the rows are for.
        n: How many rows.
        make: Draws one row, or None where the draw must be thrown away.

    Returns:
        The rows, in the order drawn.

    Raises:
        SmallfryError: The job cannot make that many different rows.
    """
    rng = random.Random(f"smallfry:{name}:{part}:{seed}")
    seen: set[tuple[str, str]] = set()
    rows: list[Example] = []
    misses = 0
    while len(rows) < n:
        row = make(rng)
        key = None if row is None else (row.input, row.output if not row.input else "")
        if row is None or key is None or key in seen:
            misses += 1
            if misses > 20_000 + 200 * n:
                raise SmallfryError(
                    f"built-in job {name!r} has only {len(rows)} different {part} rows for seed {seed}, {n} were asked "
                    f"for: ask for at most {len(rows)}"
                )
            continue
        seen.add(key)
        rows.append(row)
    return rows
