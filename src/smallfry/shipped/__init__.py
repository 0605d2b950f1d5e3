"""Models that come with the package, under the names ``shipped:NAME``; ``benchmarks/shipped_model.py`` makes them."""

from __future__ import annotations

from pathlib import Path

from smallfry.errors import SmallfryError

PREFIX = "shipped:"
DEFAULT = "stories"
NAMES = (DEFAULT,)


def path(name: str = DEFAULT) -> Path:
    """The directory of a shipped model.

    Args:
        name: One of `NAMES`: ``stories`` talks, tells stories and answers questions about them.

    Raises:
        SmallfryError: There is none of that name, or this copy of smallfry was made without it.
    """
    if name not in NAMES:
        known = ", ".join(PREFIX + n for n in NAMES)
        raise SmallfryError(f"{PREFIX}{name[:80]}: no such model comes with smallfry; take one of {known}")
    directory = Path(__file__).parent / name
    if not (directory / "config.json").exists():
        raise SmallfryError(
            f"{PREFIX}{name}: this copy of smallfry was made without it; make it with benchmarks/shipped_model.py, "
            "or name a model directory"
        )
    return directory


def resolve(model: str | Path) -> Path:
    """A model as users name it: ``shipped:NAME``, or a directory.

    Raises:
        SmallfryError: No shipped model has that name.
    """
    text = str(model)
    return path(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else Path(model)


def model_directory(model: str | Path) -> Path:
    """The directory of a model as users name it: ``shipped:NAME``, a directory, or an assessment's (its best one).

    Raises:
        SmallfryError: There is none.
    """
    found = resolve(model)
    for directory in (found / "best", found):
        if any((directory / name).exists() for name in ("config.json", "smallfry.json")):
            return directory
    what = "holds no model" if found.is_dir() else "no such directory"
    raise SmallfryError(
        f"{model}: {what}; expected a directory with config.json and weights, such as smallfry assess, pretrain, tune "
        f"and import make, or {PREFIX}{DEFAULT}"
    )
