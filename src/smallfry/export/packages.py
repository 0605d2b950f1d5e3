"""Packages that only exporting needs: imported when first asked for, with an error that says what to install."""

from __future__ import annotations

import importlib
from typing import Any

from smallfry.errors import SmallfryError


def require(module: str, install: str = "smallfry[export]") -> Any:
    """An optional package.

    Args:
        module: Name to import.
        install: What pip is to be asked for.

    Raises:
        SmallfryError: When it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise SmallfryError(f"the package {missing} is not installed; run: pip install '{install}'") from None
