"""The file: written, opened, checked and inspected, without torch; and the command line."""

from archive.reading import ArchiveFile, open_archive
from archive.summary import Summary, inspect

__all__ = ["ArchiveFile", "Summary", "inspect", "open_archive"]
