"""The items of the evaluation suites, for keeping them out of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from smallfry.errors import SmallfryError
from smallfry.evals.suites import contamination, sources, stories
from smallfry.evals.suites.chat import code_items
from smallfry.evals.suites.items import Items


def items_of(folder: Path) -> Items:
    """Every item of every suite whose data is in a folder.

    Args:
        folder: As ``smallfry eval --data-dir`` takes it.

    Raises:
        SmallfryError: The folder holds no suite's data.
    """
    data = sources.Data.find(folder)
    readers: dict[str, Callable[[], Mapping[str, Sequence[str]]]] = {
        "core": lambda: contamination.texts_of(sources.core_tasks(data)[0]),
        "blimp": lambda: contamination.texts_of(sources.blimp_tasks(data)),
        "humaneval": lambda: code_items("humaneval", data),
        "chatcore": lambda: code_items("chatcore", data),
    }
    texts: dict[str, Sequence[str]] = {}
    suites: dict[str, str] = {}
    missing: list[SmallfryError] = []
    for suite, read in readers.items():
        try:
            found = read()
        except SmallfryError as error:  # a folder need not hold every suite
            missing.append(error)
            continue
        texts |= found
        suites = dict.fromkeys(found, suite) | suites  # ARC is asked by two
    told = _held_out_stories(data.folder)
    if not texts and not told:
        raise missing[0]
    return Items.of(texts, suites, told)


def _held_out_stories(folder: Path | None) -> tuple[str, ...]:
    """The stories that ``--suite stories`` asks about, where the folder has them; those of the built-in job are not."""
    name, texts = stories.story_texts(None, folder)
    return tuple(texts) if name.endswith(".gz") else ()
