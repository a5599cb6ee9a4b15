"""Packages that the command line names, imported with the working directory first."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from schema.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


def import_all(names: Iterable[str]) -> None:
    """Import packages, for example those that define custom operators.

    Raises:
        UsageError: One cannot be imported.
    """
    for name in names:
        import_here(name)


def import_here(name: str) -> Any:
    """The module of that name; the working directory is searched first.

    Raises:
        UsageError: It cannot be imported.
    """
    if (here := os.getcwd()) not in sys.path[:1]:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UsageError(f"cannot import {name}: {describe(error)}", remedy="check its name") from error


def describe(error: BaseException) -> str:
    """An error of somebody else's code, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
