"""The items of the evaluation suites, for keeping them out of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from smallfry.corpus.cleaning import RUN, Items
from smallfry.errors import SmallfryError
from smallfry.evals.suites import contamination, sources, stories
from smallfry.evals.suites.chat import code_items


def items_of(folder: Path) -> Items:
    """Every item of every suite whose data is in a folder.

    Args:
        folder: As ``smallfry eval --data-dir`` takes it.

    Raises:
        SmallfryError: The folder holds no suite's data.
    """
    data = sources.Data.find(folder)
    readers: tuple[Callable[[], Mapping[str, Sequence[str]]], ...] = (
        lambda: contamination.texts_of(sources.core_tasks(data)[0]),
        lambda: contamination.texts_of(sources.blimp_tasks(data)),
        lambda: code_items("humaneval", data),
        lambda: code_items("chatcore", data),
    )
    texts: dict[str, Sequence[str]] = {}
    missing: list[SmallfryError] = []
    for read in readers:
        try:
            texts |= read()
        except SmallfryError as error:  # a folder need not hold every suite
            missing.append(error)
    told = _held_out_stories(data.folder)
    if not texts and not told:
        raise missing[0]
    runs = contamination.Runs(RUN)
    tasks = {task: [runs.of(text) for text in each] for task, each in texts.items()}
    flat = [hashes for each in tasks.values() for hashes in each]
    return Items(np.unique(np.concatenate(flat)) if flat else np.empty(0, dtype=np.uint64), tasks, told)


def _held_out_stories(folder: Path | None) -> tuple[str, ...]:
    """The stories that ``--suite stories`` asks about, where the folder has them; those of the built-in job are not."""
    name, texts = stories.story_texts(None, folder)
    return tuple(texts) if name.endswith(".gz") else ()
