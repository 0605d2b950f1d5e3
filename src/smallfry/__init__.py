"""smallfry: what is the smallest language model that is workable for this job?

The public API, re-exported; nothing is defined here and nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from smallfry.errors import SmallfryError
from smallfry.job import Example, Job

if TYPE_CHECKING:
    from smallfry.api import assess, load
    from smallfry.check import card
    from smallfry.pretraining import pretrain
    from smallfry.record import Assessment
    from smallfry.sizes import ladder
    from smallfry.tuning import tune

__all__ = ["Assessment", "Example", "Job", "SmallfryError", "assess", "card", "ladder", "load", "pretrain", "tune"]

_HOMES = {
    "Assessment": "smallfry.record", "assess": "smallfry.api", "card": "smallfry.check", "ladder": "smallfry.sizes",
    "load": "smallfry.api", "pretrain": "smallfry.pretraining",
    "tune": "smallfry.tuning",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smallfry' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
