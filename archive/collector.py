"""Python's garbage collector, paused while a program is put together or taken apart.

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
    """Who wants it paused, and whether it was at work before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: set[object] = set()
        self.was_enabled = False

    def begin(self, user: object) -> None:
        with self.lock:
            if not self.users:
                self.was_enabled = gc.isenabled()
            self.users.add(user)
            gc.disable()

    def end(self, user: object) -> None:
        with self.lock:
            self.users.discard(user)
            if not self.users and self.was_enabled:
                gc.enable()

    def forget(self) -> None:
        """In a child process, which has none of the threads that wanted it paused."""
        if self.users and self.was_enabled:
            gc.enable()
        self.__init__()  # type: ignore[misc]


_PAUSE = _Pause()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PAUSE.forget)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Let no garbage be collected meanwhile; with users in several threads, until the last is done."""
    user = object()
    try:
        _PAUSE.begin(user)
        yield
    finally:
        try:
            _PAUSE.end(user)
        except BaseException:  # the user is cancelled just here: to end it twice does no harm
            _PAUSE.end(user)
            raise
