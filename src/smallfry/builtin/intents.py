"""`intents`: what a customer of an online shop wants, as one of 33 labels with close neighbours.

Sentences mention neighbours that are not meant ("this is not about a refund, but where is my parcel"), carry small talk
and typing mistakes. Held out for valid and test: synonyms (per intent), combinations of synonyms, carrier clauses,
products and names. `out_of_scope` is everything a shop cannot help with.
"""

from __future__ import annotations

import random
import re
from functools import partial

from smallfry.builtin._grammar import fill
from smallfry.builtin._intent_frames import (
    CLOSINGS,
    CONTEXTS,
    DENY_AFTER,
    DENY_BEFORE,
    FILLS,
    OPENINGS,
    OUT_FILLS,
    OUT_OF_SCOPE,
    PAST_BEFORE,
    PRODUCTS,
    SOLVED_AFTER,
    SOLVED_BEFORE,
)
from smallfry.builtin._intent_phrases import INTENTS
from smallfry.builtin._split import choose, collect, part_of, pick
from smallfry.job import Example, SplitName

OUT = "out_of_scope"
LABELS: tuple[str, ...] = tuple(sorted((*INTENTS, OUT)))
_OUT_SHARE = 0.06
_QUESTION = re.compile(r"(where|when|what|why|how|is|are|can|could|do|does|did|has|will|who|which|until)\b")


def _word(name: str, rng: random.Random, part: SplitName) -> str:
    if name in ("product", "other"):
        return pick(rng, PRODUCTS, part)
    if name == "number":
        return str(rng.randrange(10_000, 99_999))
    if name == "year":
        return str(rng.randrange(2005, 2025))
    if name == "n":
        return str(rng.randrange(2, 100))
    return pick(rng, FILLS.get(name) or OUT_FILLS[name], part)


def _core(rng: random.Random, label: str, part: SplitName) -> str:
    """A clause that asks for `label`, in a combination of words that only `part` may use; products are still slots."""

    def may_use(option: str) -> bool:
        return part_of(f"{label}|{option}") in ("train", part)

    while True:
        if label == OUT:
            text = fill(rng, pick(rng, OUT_OF_SCOPE, part), lambda name: _word(name, rng, part))
        else:
            text = fill(rng, choose(rng, INTENTS[label].cores), lambda name: f"{{{name}}}", may_use)
        text = re.sub(r" +", " ", text).strip()
        if part_of(f"{label}|{text}") == part:
            return text


def _mention(rng: random.Random, label: str, core: str, part: SplitName) -> str:
    """Add a neighbour that is not meant, before or after the clause: its name, its past, or its whole clause."""
    near = choose(rng, INTENTS[label].near) if label != OUT else choose(rng, tuple(INTENTS))
    way = rng.random()
    if way < 0.25:
        return f"{pick(rng, DENY_BEFORE, part).replace('{x}', pick(rng, INTENTS[near].about, part))} {core}"
    if way < 0.4:
        return f"{core}, {pick(rng, DENY_AFTER, part).replace('{x}', pick(rng, INTENTS[near].about, part))}"
    if way < 0.55:
        return f"{pick(rng, PAST_BEFORE, part).replace('{x}', pick(rng, INTENTS[near].past, part))} {core}"
    clause = _core(rng, near, part)
    if way < 0.8:
        return f"{pick(rng, SOLVED_BEFORE, part).replace('{x}', clause)} {core}"
    return f"{core}. {pick(rng, SOLVED_AFTER, part).replace('{x}', clause)}"


def _typo(rng: random.Random, text: str) -> str:
    """Swap two neighbouring letters, or lose one, inside one longer word."""
    words = text.split(" ")
    i = rng.randrange(len(words))
    word = words[i]
    if len(word) < 5 or not word.isalpha():
        return text
    at = rng.randrange(1, len(word) - 2)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    words[i] = swapped if rng.random() < 0.5 else word[:at] + word[at + 1 :]
    return " ".join(words)


def _filled(rng: random.Random, text: str, part: SplitName) -> str:
    """Fill the slots; `{product}` is one thing throughout the message, `{other}` a different one."""
    product, other = pick(rng, PRODUCTS, part), pick(rng, PRODUCTS, part)
    while other == product:
        other = pick(rng, PRODUCTS, part)
    known = {"product": product, "other": other}
    text = fill(rng, text, lambda name: known.get(name) or _word(name, rng, part))
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def _row(rng: random.Random, part: SplitName) -> Example | None:
    label = OUT if rng.random() < _OUT_SHARE else choose(rng, tuple(INTENTS))
    core = _core(rng, label, part)
    text = _mention(rng, label, core, part) if rng.random() < (0.5 if label != OUT else 0.1) else core
    text += "?" if _QUESTION.match(core) and text.endswith(core) else "."
    if rng.random() < 0.25 and label != OUT:
        text = f"{pick(rng, CONTEXTS, part)} {text}"
    if rng.random() < 0.4:
        text = f"{pick(rng, OPENINGS, part)} {text}"
    if rng.random() < 0.25:
        text = f"{text} {pick(rng, CLOSINGS, part)}"
    text = _filled(rng, text, part)
    style = rng.random()
    if style < 0.4:
        text = re.sub(r"[,.?:]", "", text)
    elif style < 0.6:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.1:
        text = _typo(rng, text)
    return Example(re.sub(r" +", " ", text).strip(), label)


def generate(seed: int, n_train: int, n_valid: int, n_test: int) -> tuple[list[Example], list[Example], list[Example]]:
    """Make the rows of the `intents` job.

    Args:
        seed: Seed of everything random; the same seed gives the same rows.
        n_train: Training rows.
        n_valid: Validation rows.
        n_test: Test rows; their phrasings occur in no other split.

    Returns:
        Train, valid and test rows.

    Raises:
        SmallfryError: More rows were asked for than there are different ones.
    """
    sizes: dict[SplitName, int] = {"train": n_train, "valid": n_valid, "test": n_test}
    train, valid, test = (collect("intents", seed, part, n, partial(_row, part=part)) for part, n in sizes.items())
    return train, valid, test
