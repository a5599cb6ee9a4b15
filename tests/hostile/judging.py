"""Opens a bad archive in every way, and judges how it was refused."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import archive
import loader
from schema.errors import ArchiveError
from tests.hostile.cases import Case

MOST_SECONDS = 1.0
MOST_MEGABYTES = 200.0
MOST_CHARACTERS = 1000


def _verify(path: Path) -> None:
    failed = next((check for check in loader.verify(path).checks if check.ok is False), None)
    if failed:
        raise ArchiveError(failed.detail)


WAYS: dict[str, Callable[[Path], Any]] = {
    "inspect": archive.inspect,
    "load": functools.partial(loader.load, debug=True),
    "load_module": loader.load_module,
    "verify": _verify,
}
"""The ways to open an archive."""


class Trial(NamedTuple):
    """One way in which a case was opened.

    Attributes:
        way: The way.
        error: What was raised, empty if nothing was.
        seconds: How long the processor worked on it: other processes do not count. One that waits hangs.
        megabytes: How much the memory of the process grew meanwhile, at its peak.
        fault: What is wrong with that, empty if nothing is.
    """

    way: str
    error: str
    seconds: float
    megabytes: float
    fault: str


def judge(case: Case, folder: Path, most_seconds: float = MOST_SECONDS) -> Iterator[Trial]:
    """Make a case in an empty folder, and open it in every way."""
    path = case.build(folder)
    for way, act in WAYS.items():
        before, start = _reset_peak(), process_time()
        error: BaseException | None = None
        try:
            with case.during(path):
                act(path)
        except (Exception, SystemExit) as caught:
            error = caught
        seconds = process_time() - start
        megabytes = (_memory("VmHWM") - before) / 1e6
        fault = _fault(case, way, error, megabytes) or (f"took {seconds:.1f} s" if seconds > most_seconds else "")
        yield Trial(way, str(error or ""), seconds, megabytes, fault)


def _fault(case: Case, way: str, error: BaseException | None, megabytes: float) -> str:
    if error is None and way not in case.blind:
        return "not refused"
    if error is not None and not isinstance(error, ArchiveError):
        return f"{type(error).__name__} is no error of ours"
    if error is not None and not re.search(case.says, str(error)):
        return f"does not say {case.says!r}"
    if error is not None and ("\n" in str(error) or len(str(error)) > MOST_CHARACTERS):
        return f"an error of {len(str(error))} characters"
    return f"took {megabytes:.0f} MB" if megabytes > MOST_MEGABYTES else ""


def _memory(field: str) -> int:
    """A figure of this process's memory in bytes, 0 where the system does not tell it."""
    status = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0


def _reset_peak() -> int:
    """Forget the highest use of memory so far; what is used now."""
    if os.path.exists("/proc/self/clear_refs"):
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")
