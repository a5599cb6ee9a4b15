"""Files that are being written: under names of their own until they are renamed, and none stays behind.

A writer holds a lock on its file, which ends with the writer, however that ends. A file that nobody holds is a dead
writer's, and the next writer in the folder removes it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PREFIX: Final = ".program-archive."
_BUFFER_BYTES: Final = 256 * 1024


@contextmanager
def unfinished_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in a folder, removed at the end unless it has been renamed.

    Raises:
        OSError: It cannot be made or written.
    """
    _sweep(folder)
    path, descriptor = _create(folder)
    try:
        with open(descriptor, "wb", buffering=_BUFFER_BYTES) as file:
            yield path, file
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _create(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # some network file systems have no locks: there nothing is swept
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)  # before it was locked, another writer took it for a dead one's


def _sweep(folder: Path) -> None:
    """Remove what dead writers have left, as far as that can be done."""
    with suppress(OSError):
        for path in folder.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                _remove_dead(path)


def _remove_dead(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)
