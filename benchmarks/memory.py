"""How much memory a process uses, in bytes, as Linux tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MB: Final = 1_000_000


def peak() -> int:
    """The most memory that was resident since :func:`forget_peak`."""
    return _field(Path("/proc/self/status"), "VmHWM")


def anonymous() -> int:
    """Resident memory that is no file's."""
    return _field(Path("/proc/self/status"), "RssAnon")


def proportional(process: int) -> int:
    """Resident memory of a process, where a page that several share counts by its part."""
    return _field(Path(f"/proc/{process}/smaps_rollup"), "Pss")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _field(file: Path, name: str) -> int:
    line = next(line for line in file.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
