"""What ``archive export`` is doing: a live line where somebody is watching, now and then a line elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import typer

from archive.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Show = Callable[[object], None]

_PATIENCE_SECONDS: Final = 1.0
"""How long a command may take before its live line appears."""

_PAUSE_SECONDS: Final = 5.0
"""How long there is no line, at first and after each line, where nobody is watching."""


@contextmanager
def progress(shown: bool) -> Iterator[Show]:
    """Show events on the error stream while the block runs, as they describe themselves.

    Args:
        shown: Whether to show anything at all.

    Yields:
        What to call with each event.
    """
    if not shown:
        yield lambda _event: None
    elif sys.stderr.isatty():
        with _live_line() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _live_line() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    line = Progress(SpinnerColumn(), TimeElapsedColumn(), text, console=Console(stderr=True), transient=True)
    task = line.add_task("")
    timer = threading.Timer(_PATIENCE_SECONDS, line.start)
    timer.start()
    try:
        yield lambda event: line.update(task, description=printable(str(event)))
    finally:
        timer.cancel()
        timer.join()
        line.stop()


def _lines() -> Show:
    last = time.monotonic()

    def show(event: object) -> None:
        nonlocal last
        if time.monotonic() - last >= _PAUSE_SECONDS:
            last = time.monotonic()
            typer.echo(printable(str(event)), err=True)

    return show
