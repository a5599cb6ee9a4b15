"""Processes that fork after they have loaded something, or while they do."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from itertools import count

import loader
from tests.program_equality import same
from tests.threads.subjects import WAYS, Subject

LIMIT = 120.0
"""Seconds after which a child hangs."""


def try_forks(subjects: dict[str, Subject], scale: float) -> tuple[str, list[str]]:
    """Children call what their parent has loaded, and load more, some of them while threads of the parent load."""
    rounds = max(int(20 * scale), 2)
    modules = [(subject, loader.load_module(subject.path)) for name, subject in subjects.items() if name != "counter"]
    stop, loads = threading.Event(), count()

    def load_on(number: int) -> None:
        ways = list(WAYS)
        while not stop.is_set():
            for subject in subjects.values():
                subject.use(ways[next(loads) % len(ways)])

    def child() -> None:
        for subject, module in modules:
            assert same(subject.run(module), subject.expected["load_module"]), f"{subject.path.name} differs"
        for subject in subjects.values():
            for way in ("load", "load_module", "inspect"):
                subject.check(way)

    failures = [problem for _ in range(rounds) if (problem := _outcome(_fork(child)))]
    threads = [threading.Thread(target=load_on, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    failures += [f"while threads load: {problem}" for _ in range(rounds) if (problem := _outcome(_fork(child)))]
    stop.set()
    for thread in threads:
        thread.join(LIMIT)
    return f"{2 * rounds} children, {next(loads)} loads beside them", failures


def _fork(act: object) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        act()  # type: ignore[operator]
        os.write(writing, b"done")
    except BaseException:
        os.write(writing, traceback.format_exc(limit=-3).encode()[-4000:])
    os._exit(0)


def _outcome(forked: tuple[int, int]) -> str:
    """What went wrong in a child."""
    child, reading = forked
    deadline = time.monotonic() + LIMIT
    status = None
    while status is None and time.monotonic() < deadline:
        ended, raw = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(raw) if ended else time.sleep(0.01)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        text = pipe.read().decode()
    if status is None:
        return "a child hangs"
    return "" if text == "done" else text or f"a child ended with status {status}"
