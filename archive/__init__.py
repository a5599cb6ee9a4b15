"""The file: written, opened, checked and inspected, without torch; and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archive.reading import ArchiveFile, open_archive
from schema.limits import Limits

if TYPE_CHECKING:
    from archive.summary import Summary, inspect

__all__ = ["ArchiveFile", "Limits", "Summary", "inspect", "open_archive"]


def __getattr__(name: str) -> Any:
    if name in ("Summary", "inspect"):  # which a loader does not need, and would wait for
        from archive import summary

        return getattr(summary, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
