"""Threads that load and call at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from itertools import count, cycle, islice
from pathlib import Path

import exporter
import loader
from tests.models import cases
from tests.program_equality import same
from tests.threads.subjects import WAYS, Subject, write_subject

THREADS = 8
ROOT = Path(__file__).parent.parent.parent
Outcome = tuple[str, list[str]]


def in_threads(act: Callable[[int], None], limit: float = 600) -> list[str]:
    """Call a function with the numbers of as many threads, all starting at once.

    Returns:
        What failed.
    """
    failures: list[str] = []
    barrier = threading.Barrier(THREADS)

    def work(number: int) -> None:
        barrier.wait()
        try:
            act(number)
        except BaseException:
            failures.append(traceback.format_exc(limit=-3))

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit)
    return failures + [f"{thread.name} hangs" for thread in threads if thread.is_alive()]


def try_mixed(subjects: dict[str, Subject], scale: float) -> Outcome:
    """Every thread goes through all ways to use all archives, each from another place on."""
    plan = [(subject, way) for subject in subjects.values() for way in WAYS]
    rounds = max(int(10 * scale), 1)

    def act(number: int) -> None:
        start = number * 7 % len(plan)
        for subject, way in islice(cycle(plan), start, start + rounds * len(plan)):
            subject.check(way)

    failures = in_threads(act)
    return f"{rounds * len(plan) * THREADS} uses of {len(subjects)} archives in {len(WAYS)} ways", failures


def try_one_module(subjects: dict[str, Subject], scale: float) -> Outcome:
    """Threads call one module of each program, those that change their buffers excepted."""
    calls = max(int(500 * scale), 10)
    chosen = [subject for name, subject in subjects.items() if name != "counter"]
    modules = [
        (subject, function)
        for subject in chosen
        for function in (loader.load_module(subject.path), loader.load(subject.path).module())
    ]

    def act(_: int) -> None:
        for _, (subject, function) in zip(range(calls), cycle(modules), strict=False):
            assert same(subject.run(function), subject.expected["load_module"]), f"{subject.path.name} differs"

    return f"{calls * THREADS} calls of {len(modules)} modules", in_threads(act)


def try_replaced(subjects: dict[str, Subject], scale: float) -> Outcome:
    """One thread saves two programs to one path in turn; what the others load is one of them, whole."""
    folder = next(iter(subjects.values())).path.parent
    saves = max(int(100 * scale), 10)
    both = [
        write_subject(folder / f"replaced {number}", cases()[name]()) for number, name in enumerate(["odd", "branch"])
    ]
    programs = [loader.load(subject.path) for subject in both]
    path, done, loads = folder / "replaced", threading.Event(), count()
    exporter.save(programs[0], path, examples=False)

    def act(number: int) -> None:
        if number == 0:
            for turn in range(saves):
                exporter.save(programs[turn % 2], path, examples=False)
            done.set()
        while not done.is_set():
            next(loads)
            module = loader.load_module(path, verify="full")
            subject = both["overlapping" not in dict(module.named_buffers())]
            assert same(subject.run(module), subject.expected["load_module"]), "a mixture was loaded"

    failures = in_threads(act)
    last = both[(saves - 1) % 2]
    if not same(last.run(loader.load_module(path)), last.expected["load_module"]):
        failures.append("what is loaded is not what was saved last")
    return f"{saves} saves, {next(loads)} loads", failures


FIRST = """
import sys, threading, traceback, warnings
warnings.simplefilter("ignore")
sys.setswitchinterval(1e-5)
import loader
paths, barrier, failures = sys.argv[1:], threading.Barrier(8), []
def work(number):
    barrier.wait()
    try:
        (loader.load, loader.load_module, loader.verify)[number % 3](paths[number % len(paths)])
    except BaseException:
        failures.append(traceback.format_exc(limit=-3))
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit("".join(failures) or 0)
"""


def try_first_loads(subjects: dict[str, Subject], scale: float) -> Outcome:
    """New processes, whose first loads, which import much of torch, are in eight threads at once."""
    rounds, failures = max(int(10 * scale), 1), []
    paths = [str(subject.path) for subject in subjects.values()]
    for number in range(rounds):
        turned = paths[number % len(paths) :] + paths[: number % len(paths)]
        command = [sys.executable, "-c", FIRST, *turned]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            failures.append(f"process {number} hangs")
            continue
        if done.returncode:
            failures.append(f"process {number}: {done.stderr[-2000:]}")
    return f"{rounds} processes", failures
