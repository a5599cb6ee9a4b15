"""A progress bar for what takes longer than a second, where somebody is watching."""

from __future__ import annotations

import itertools
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE_SECONDS: Final = 1.0


@contextmanager
def progress(stages: list[str]) -> Iterator[Callable[[str, float], None]]:
    """Show a bar on a terminal while the block runs, but not before a second has passed.

    Args:
        stages: Names of the stages, in order.

    Yields:
        What to call with a stage's name and its seconds when it has ended.
    """
    if not sys.stderr.isatty():
        yield lambda _name, _seconds: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}")
    bar = Progress(text, BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True)
    task = bar.add_task(stages[0], total=len(stages))
    following = dict(itertools.pairwise(stages))
    timer = threading.Timer(_PATIENCE_SECONDS, bar.start)
    timer.start()
    try:
        yield lambda name, _seconds: bar.update(task, advance=1, description=following.get(name, name))
    finally:
        timer.cancel()
        timer.join()
        bar.stop()
