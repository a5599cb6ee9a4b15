"""What counts as a finding: an error that is not of our family, more than a second, or more than 200 MB."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schema.errors import ArchiveError

MOST_SECONDS = 1.0
MOST_BYTES = 200 * 1024 * 1024
ROOT = Path(__file__).parent.parent.parent
OURS = tuple(str(ROOT / package) for package in ("archive", "schema", "loader"))


class Finding(Exception):
    """Something that a reader must not do, whatever the file."""


def judge(act: Callable[[], Any], what: str) -> Any:
    """Do something with an archive; what is refused gives None.

    Raises:
        Finding: It raises an error of another family, or takes too long or too much memory, twice.
    """
    result, seconds, growth = _measure(act, what)
    if seconds > MOST_SECONDS or growth > MOST_BYTES:
        result, seconds, growth = _measure(act, what)
    if seconds > MOST_SECONDS:
        raise Finding(f"{what}: takes {seconds:.1f} s")
    if growth > MOST_BYTES:
        raise Finding(f"{what}: takes {growth // 2**20} MB")
    return result


def _measure(act: Callable[[], Any], what: str) -> tuple[Any, float, int]:
    """What it gives, the seconds of the processor and the bytes of memory that it takes."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget how much memory this process once had
    before, start, result = _memory("VmRSS"), time.process_time(), None
    try:
        result = act()
    except ArchiveError as error:
        str(error)
    except Exception as error:
        raise Finding(f"{what}: {type(error).__name__}: {str(error)[:200]} at {_place(error)}") from error
    return result, time.process_time() - start, _memory("VmHWM") - before


def judge_call(act: Callable[[], Any], what: str) -> None:
    """Call a program, whose operators may refuse what they get; our own code may not fail.

    Raises:
        Finding: An error of another family comes from our code.
    """
    try:
        act()
    except ArchiveError as error:
        str(error)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        if frame.filename.startswith(OURS):
            raise Finding(f"{what}: {type(error).__name__}: {str(error)[:200]} at {_place(error)}") from error


def _place(error: BaseException) -> str:
    """The innermost place in our code that an error came through, and the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(OURS)] or frames
    places = [f"{os.path.relpath(frame.filename, ROOT)}:{frame.lineno}" for frame in (ours[-1], frames[-1])]
    return " < ".join(dict.fromkeys(places))


def _memory(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))
