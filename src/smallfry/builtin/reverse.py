"""`reverse`: the characters of a string in reverse order; what a model needs for copying with an index.

Strings have 3 to 12 lower-case letters and digits, every length equally often; which strings are held out for valid and
test is decided by a hash of the string.
"""

from __future__ import annotations

import random
import string

from smallfry.builtin._split import collect, part_of
from smallfry.job import Example, SplitName

ALPHABET = string.ascii_lowercase + string.digits
SHORTEST, LONGEST = 3, 12


def _row(rng: random.Random, part: SplitName) -> Example | None:
    text = "".join(rng.choices(ALPHABET, k=rng.randint(SHORTEST, LONGEST)))
    return Example(text, text[::-1]) if part_of(text) == part else None


def generate(seed: int, n_train: int, n_valid: int, n_test: int) -> tuple[list[Example], list[Example], list[Example]]:
    """Make the rows of the `reverse` job.

    Args:
        seed: Seed of everything random; the same seed gives the same rows.
        n_train: Training rows.
        n_valid: Validation rows.
        n_test: Test rows.

    Returns:
        Train, valid and test rows; no string is in two of them.

    Raises:
        SmallfryError: More rows were asked for than there are different ones.
    """
    return (
        collect("reverse", seed, "train", n_train, lambda rng: _row(rng, "train")),
        collect("reverse", seed, "valid", n_valid, lambda rng: _row(rng, "valid")),
        collect("reverse", seed, "test", n_test, lambda rng: _row(rng, "test")),
    )
