"""Jobs that ship with the package: generated from a seed, nothing downloaded, test held out by construction."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from smallfry.builtin import commands, dates, intents, reverse, stories
from smallfry.errors import SmallfryError
from smallfry.job import METRIC_OF_KIND, Example, Job, Kind

Generate = Callable[[int, int, int, int], tuple[list[Example], list[Example], list[Example]]]
N_VALID, N_TEST = 500, 2000


@dataclass(frozen=True, slots=True)
class BuiltinSpec:
    """A built-in job before it is generated.

    Args:
        description: One line that says what the job is.
        kind: `classify`, `transform` or `generate`.
        target: The score from which a model counts as workable, or None where none is meant.
        n_train: Training rows by default.
        generate: `generate(seed, n_train, n_valid, n_test)` gives train, valid and test rows.
    """

    description: str
    kind: Kind
    target: float | None
    n_train: int
    generate: Generate


BUILTIN: dict[str, BuiltinSpec] = {
    "commands": BuiltinSpec(
        "a sentence to a home or office assistant -> one JSON call (17 functions)",
        "transform",
        0.95,
        10_000,
        commands.generate,
    ),
    "dates": BuiltinSpec("a reference day and a written date -> ISO date", "transform", 0.95, 8000, dates.generate),
    "intents": BuiltinSpec(
        "what a customer of an online shop wants (33 classes with close neighbours)",
        "classify",
        0.9,
        4000,
        intents.generate,
    ),
    "reverse": BuiltinSpec(
        "3 to 12 letters and digits -> the same in reverse order", "transform", 0.95, 8000, reverse.generate
    ),
    "stories": BuiltinSpec(
        "short stories in simple words from a simulated story world", "generate", None, 8000, stories.generate
    ),
}


def names() -> list[str]:
    """Names of the built-in jobs, sorted."""
    return sorted(BUILTIN)


def load_builtin(name: str, seed: int = 0, n_train: int | None = None) -> Job:
    """Generate a built-in job.

    The test rows depend on the seed alone, not on `n_train`; fewer training rows are a prefix of more.

    Args:
        name: One of `names()`.
        seed: Seed of the rows; the same seed gives the same rows everywhere.
        n_train: Training rows; by default the job's own number.

    Returns:
        The job, with 500 valid and 1,000 test rows.

    Raises:
        SmallfryError: No built-in job has that name, or `n_train` is not a possible number of rows.
    """
    if name not in BUILTIN:
        close = difflib.get_close_matches(name, BUILTIN, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise SmallfryError(f"no built-in job is called {name!r}{hint}: the built-in jobs are {', '.join(names())}")
    spec = BUILTIN[name]
    rows = spec.n_train if n_train is None else n_train
    if rows < 1:
        raise SmallfryError(f"built-in job {name!r}: n_train is {rows}, expected at least 1 training row")
    train, valid, test = spec.generate(seed, rows, N_VALID, N_TEST)
    return Job(
        name=name,
        kind=spec.kind,
        train=tuple(train),
        valid=tuple(valid),
        test=tuple(test),
        metric=METRIC_OF_KIND[spec.kind],
        source=name,
        notes=(f"built-in job {name}, generated with seed {seed}",),
    )
