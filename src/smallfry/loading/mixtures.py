"""Sources of a mixture as they are written on a command line: a name, and a weight behind it where wanted."""

from __future__ import annotations

import re
from pathlib import Path

from smallfry.errors import SmallfryError

_WEIGHTED = re.compile(r"(.+):(\d+(?:\.\d+)?)", re.ASCII)
_YEAR = 1000.0  # of the hub's data sets many have a config that is a year or a date; nobody weighs one so


def weighted(source: str) -> tuple[str, float | None]:
    """``A.txt:3`` as ``("A.txt", 3.0)``; what is there under the whole name has no weight.

    Raises:
        SmallfryError: The weight is 0, or this can be no file's name.
    """
    try:
        found = None if Path(source).exists() else _WEIGHTED.fullmatch(source)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SmallfryError(f"{source[:60]!r}: cannot be a file's name ({reason}); name a file or a folder") from None
    if found is None or (source.startswith("hf:") and float(found[2]) >= _YEAR and found[1].count(":") == 1):
        return source, None
    name, weight = found[1], float(found[2])
    if weight == 0:
        raise SmallfryError(f"{source}: a weight of 0; give a positive one or leave {name} out")
    return name, weight
