"""Python's garbage collector, paused while a program is put together.

It would look again and again at the objects that a program is made of, none of which is garbage: that takes as long as
to make them.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Pause:
    """Which loads are going on, and whether the collector was at work before the first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loads: set[object] = set()
        self.was_enabled = False

    def begin(self, load: object) -> None:
        with self.lock:
            if not self.loads:
                self.was_enabled = gc.isenabled()
            self.loads.add(load)
            gc.disable()

    def end(self, load: object) -> None:
        with self.lock:
            self.loads.discard(load)
            if not self.loads and self.was_enabled:
                gc.enable()

    def forget(self) -> None:
        """In a child process, which has none of the threads that were loading."""
        if self.loads and self.was_enabled:
            gc.enable()
        self.__init__()  # type: ignore[misc]


_PAUSE = _Pause()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PAUSE.forget)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Let no garbage be collected meanwhile; with loads in several threads, until the last is done."""
    load = object()
    try:
        _PAUSE.begin(load)
        yield
    finally:
        try:
            _PAUSE.end(load)
        except BaseException:  # the load is cancelled just here: to end it twice does no harm
            _PAUSE.end(load)
            raise
