"""The file: written, opened, checked and inspected, without torch; and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archive.reading import ArchiveFile, open_archive
    from archive.summary import Summary, inspect
    from schema.limits import Limits

__all__ = ["ArchiveFile", "Limits", "Summary", "inspect", "open_archive"]


def __getattr__(name: str) -> Any:
    home: Any
    match name:  # what is asked for is imported then: readers, writers and loaders each need a part
        case "ArchiveFile" | "open_archive":
            from archive import reading as home
        case "Summary" | "inspect":
            from archive import summary as home
        case "Limits":
            from schema import limits as home
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)
