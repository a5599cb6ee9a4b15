"""A folder for files that are written again and again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

VARIABLE: Final = "BENCH_SCRATCH"
MEMORY: Final = Path("/dev/shm")


def parent(nbytes: int) -> Path:
    """Where to write so many bytes: in memory if there is room, so that the disk, which all share, does not count."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * nbytes
    return MEMORY if roomy else Path(tempfile.gettempdir())


@contextmanager
def scratch(nbytes: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=parent(nbytes)) as folder:
        yield Path(folder)
