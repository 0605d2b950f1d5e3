"""What is train, what is valid, what is test: by the data's own column, or by a seeded cut that cannot leak."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from smallfry.errors import SmallfryError
from smallfry.job import SplitName
from smallfry.loading.rows import Row

SPLIT_OF_NAME: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "development": "valid",
    "eval": "valid",
    "test": "test",
    "testing": "test",
}
VALID_SHARE = TEST_SHARE = 0.1
MAX_VALID_ROWS = 500  # enough to choose settings by; every row more is one less to learn from
MAX_TEST_ROWS = 5000
"""At 5,000 rows the 95% interval of a score of 95% is 0.6 points wide each way: more rows serve better in train."""

_BREAK = re.compile(r"(?:[^\w+#]|_|(?<!\w)[+#])+")  # "C", "C+" and "C#" differ
_DIGIT = re.compile(r"\d")
# Beside a number, signs carry meaning ("3+4" is not "3-4", "3.5" is not "3 5"): they are kept as words of their own.
_PIECE = re.compile(r"\d+(?:[.,:]\d+)+|[^\W_]+|[-+*/%^=<>](?=\s?\d)|(?<=\d)[-+*/%^=<>]|(?<=\d\s)[-+*/%^=<>]")


class _Letters(dict[int, int]):
    """Marks and symbols to letters that hardly any text has: a pattern takes vowel signs and emoji for punctuation."""

    def __missing__(self, code: int) -> int:
        kept = code > 127 and unicodedata.category(chr(code))[0] in "MS"
        self[code] = 0x20000 + code % 0xA000 if kept else code
        return self[code]


_LETTERS = _Letters()


def normalise(text: str) -> str:
    """The text without case, punctuation and extra spaces: what makes two inputs the same for leakage.

    Signs beside numbers stay, and so do marks of letters and symbols such as emoji. A text of nothing but punctuation
    keeps it.
    """
    folded = text.casefold()
    if not folded.isascii():
        folded = folded.translate(_LETTERS)
    plain = " ".join(_PIECE.findall(folded)) if _DIGIT.search(folded) else _BREAK.sub(" ", folded).strip()
    return plain or " ".join(folded.split())


def group_key(input_text: str, output: str) -> str:
    """What must not straddle two splits: the normalised input, or the output where there is no input."""
    return normalise(input_text) or "\n" + normalise(output)


def take(rows: Sequence[Row], wanted: int, seed: int, salt: str) -> tuple[list[Row], list[Row]]:
    """Cut about ``wanted`` rows from ``rows``; rows with the same :func:`group_key` stay together.

    Groups are ordered by a hash of their key and the seed, so a row's place depends neither on the order of the rows
    nor much on which others there are. A group of more than half of ``wanted`` (one input repeated on purpose) is not
    taken: it would be most of what is held out.

    Returns:
        The taken rows and the rest, each in the order given. With a single group nothing is taken.
    """
    keys = [group_key(row.input, row.output) for row in rows]
    sizes = Counter(keys)
    order = sorted(sizes, key=lambda key: hashlib.blake2b(f"{seed}/{salt}/{key}".encode(), digest_size=8).digest())
    chosen: set[str] = set()
    count = 0
    for key in order:
        if count + sizes[key] <= wanted and sizes[key] <= max(1, wanted // 2):
            chosen.add(key)
            count += sizes[key]
    if not chosen and len(order) > 1:  # every group is that large
        chosen.add(min(order, key=sizes.__getitem__))
    taken = [row for row, key in zip(rows, keys, strict=True) if key in chosen]
    rest = [row for row, key in zip(rows, keys, strict=True) if key not in chosen]
    return taken, rest


def _too_often(rows: Sequence[Row], most: int) -> int:
    """Rows of inputs that occur more often than ``most``."""
    sizes = Counter(group_key(row.input, row.output) for row in rows)
    return sum(size for size in sizes.values() if size > most)


def split_rows(rows: Sequence[Row], seed: int, label: str) -> tuple[dict[SplitName, list[Row]], list[str]]:
    """Rows by split, with one sentence for each decision.

    The rows' own split is used where they have one. Missing parts are cut by seed: valid is 10% of train (at most
    ``MAX_VALID_ROWS``), test 10% (at most ``MAX_TEST_ROWS``). With train and valid but no test, valid becomes test.

    Raises:
        SmallfryError: There are no train rows, or all inputs are alike so that nothing can be held out.
    """
    parts: dict[SplitName, list[Row]] = {"train": [], "valid": [], "test": []}
    own = rows[0].split is not None
    for row in rows:
        parts[row.split or "train"].append(row)
    notes = []
    if own:
        counts = ", ".join(f"{name} {len(part):,}" for name, part in parts.items() if part)
        notes.append(f"The data's own split was used: {counts}.")
    if not parts["train"]:
        raise SmallfryError(
            f"{label}: no train rows, the split column has only {' and '.join(n for n, p in parts.items() if p)}; "
            "mark the rows to learn from as train, or remove the column for a seeded split"
        )
    if not parts["test"] and parts["valid"]:
        parts["test"], parts["valid"] = parts["valid"], []
        notes.append("There is no test split: the valid rows serve as test.")
    together = "rows with the same input stay together"
    total = len(parts["train"])
    if not parts["test"]:
        wanted = min(MAX_TEST_ROWS, max(1, round(TEST_SHARE * total)))
        parts["test"], parts["train"] = take(parts["train"], wanted, seed, "test")
        wanted = min(MAX_VALID_ROWS, max(1, round(VALID_SHARE * total)))
        parts["valid"], parts["train"] = take(parts["train"], wanted, seed, "valid")
        counts = ", ".join(f"{name} {len(part):,}" for name, part in parts.items())
        notes.append(f"No split was given: cut with seed {seed} into {counts}; {together}.")
    elif not parts["valid"]:
        wanted = min(MAX_VALID_ROWS, max(1, round(VALID_SHARE * total)))
        parts["valid"], parts["train"] = take(parts["train"], wanted, seed, "valid")
        notes.append(
            f"There is no valid split: {len(parts['valid']):,} of {total:,} train rows became valid (seed {seed}); "
            f"{together}."
        )
    often = _too_often(parts["train"], max(1, len(parts["test"]) // 2)) if not own else 0
    if often:
        notes.append(
            f"{often:,} rows repeat an input so often that they all stayed in train: the test rows are not of them."
        )
    if not all(parts.values()):
        raise SmallfryError(
            f"{label}: too few distinct inputs to hold out valid and test rows without leakage; "
            "add rows with other inputs, or a split column"
        )
    return parts, notes
