"""How many programs survive a file, judged in a process that made none of them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from tests.databases.making import CAPTURES, Fate, Making, make
from tests.databases.reading import read
from tests.databases.samples import MODES, SUITES, Choice
from tests.databases.workers import Lost, Process, work_on_all

Results = Mapping[tuple[str, str, str], list[Fate]]
"""What became of the samples, by mode, suite and who captured them."""


def main(description: str | None) -> None:
    """Judge what the command line asks for, and print a table and every loss."""
    options = _parser(description).parse_args()
    results: dict[tuple[str, str, str], list[Fate]] = {
        (mode, suite, by): [] for mode in options.modes for suite in options.suites for by in options.by
    }
    choice = Choice(dynamic=options.dynamic)
    tasks = [
        Making(suite, name, mode, choice, by=by)
        for mode, suite, by in results
        for name in SUITES[suite].names()
        if re.search(options.keyword, name)
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of `timeout`
    with contextlib.suppress(KeyboardInterrupt):  # what is known until then is told
        done = work_on_all(tasks, options.workers, lambda: _Bench(options.limit).fates)
        for number, (task, fates) in enumerate(done, 1):
            results[task.mode, task.suite, task.by] += fates
            print(f"{number} of {len(tasks)}: {task.mode} {task.suite} {task.name}", end="\033[K\r", file=sys.stderr)
    print(*_table(results), *_losses(results), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(list(_plain(results)), indent=1))


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.databases.fresh", description=description)
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=list(SUITES), help="the collections")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="the kinds of capture")
    parser.add_argument("--by", nargs="+", choices=CAPTURES, default=list(CAPTURES), help="who captures")
    parser.add_argument("-k", dest="keyword", default="", help="only cases whose name this regular expression finds")
    parser.add_argument("--dynamic", action="store_true", help="let all dimensions vary")
    parser.add_argument("--workers", type=int, default=2, help="how many pairs of processes")
    parser.add_argument("--limit", type=float, default=120, help="how many seconds one sample may take")
    parser.add_argument("--json", type=Path, help="where to write numbers and reasons")
    return parser


def _table(results: Results) -> Iterator[str]:
    yield f"{'':24}{'':14}{'':8}{'cases':>10}{'exported':>10}{'survived exactly':>18}"
    for (mode, suite, by), fates in results.items():
        counts = _count(fates)
        yield f"{mode:24}{suite:14}{by:8}{counts['cases']:10}{counts['exported']:10}{counts['survived']:18}"


def _count(fates: list[Fate]) -> dict[str, int]:
    exported = [fate for fate in fates if not fate.failed]
    survived = [fate for fate in exported if not fate.lost]
    return {"cases": len(fates), "exported": len(exported), "survived": len(survived)}


def _losses(results: Results) -> Iterator[str]:
    for (mode, suite, by), fates in results.items():
        for fate in sorted(fates, key=lambda fate: fate.name):
            if fate.lost:
                yield f"{mode} {suite} {by} {fate.name}: {fate.lost}"


def _plain(results: Results) -> Iterator[dict[str, Any]]:
    for (mode, suite, by), fates in results.items():
        told = [{"name": fate.name, "failed": fate.failed, "lost": fate.lost} for fate in fates]
        version = str(torch.__version__)
        yield {"torch": version, "mode": mode, "suite": suite, "by": by, **_count(fates), "fates": told}


class _Bench:
    """A process that makes programs, one that reads them, and a folder between them."""

    def __init__(self, limit: float) -> None:
        self._maker, self._reader = Process(make, limit), Process(read, limit)

    def fates(self, task: Making) -> Iterator[Fate]:
        with tempfile.TemporaryDirectory() as folder:
            task = dataclasses.replace(task, folder=folder)
            for fate in self._maker.ask_samples(task, lambda name, reason: Fate(name, lost=reason)):
                yield dataclasses.replace(fate, lost=self._read(fate.path)) if fate.path else fate

    def _read(self, path: str) -> str:
        try:
            (reason,) = self._reader.ask(path)
        except Lost as loss:
            return f"when it was read: {loss}"
        return reason
