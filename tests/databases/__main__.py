"""`python -m tests.databases`: what torch captures of its own collections, what we capture, and what is equal."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.databases.judging import Verdict, judge
from tests.databases.samples import MODES, SUITES, Choice
from tests.databases.tasks import Task
from tests.databases.workers import Process, work_on_all

COLUMNS = {
    "cases": lambda verdict: True,
    "by torch": lambda verdict: verdict.torch,
    "by us": lambda verdict: verdict.torch and verdict.ours,
    "equal": lambda verdict: verdict.torch and verdict.equal,
    "survived": lambda verdict: verdict.survived,
    "beyond": lambda verdict: verdict.ours and verdict.equal and not verdict.torch,
}
"""The columns of the table. ``beyond``: only we capture it, and the program returns what the module returns."""

Results = Mapping[tuple[str, str], list[Verdict]]
"""The verdicts by mode and suite."""


def main() -> None:
    """Judge what the command line asks for, and print a table and every case that is not as it should be."""
    options = _parser().parse_args()
    choice = Choice(options.samples, getattr(torch, options.dtype), options.dynamic)
    results: dict[tuple[str, str], list[Verdict]] = {
        (mode, suite): [] for mode in options.modes for suite in options.suites
    }
    tasks = [
        Task(suite, name, mode, choice)
        for mode, suite in results
        for name in SUITES[suite].names()
        if re.search(options.keyword, name)
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of `timeout`
    with contextlib.suppress(KeyboardInterrupt):  # what is known until then is told
        judged = work_on_all(tasks, options.workers, lambda: _judge(options.limit))
        for number, (task, verdicts) in enumerate(judged, 1):
            results[task.mode, task.suite] += verdicts
            print(f"{number} of {len(tasks)}: {task.mode} {task.suite} {task.name}", end="\033[K\r", file=sys.stderr)
    print(*_table(results), *_report(results), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(_plain(results), indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.databases", description=__doc__)
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=list(SUITES), help="the collections")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="the kinds of capture")
    parser.add_argument("-k", dest="keyword", default="", help="only cases whose name this regular expression finds")
    parser.add_argument("--samples", type=int, default=1, help="how many samples of an operator or module at most")
    parser.add_argument("--dtype", default="float32", help="the element type of the samples of operators")
    parser.add_argument("--dynamic", action="store_true", help="let all dimensions vary")
    parser.add_argument("--workers", type=int, default=2, help="how many processes")
    parser.add_argument("--limit", type=float, default=120, help="how many seconds one sample may take")
    parser.add_argument("--json", type=Path, help="where to write numbers and reasons")
    return parser


def _judge(limit: float) -> Callable[[Task], Iterator[Verdict]]:
    process = Process(judge, limit)
    return lambda task: process.ask_samples(task, lambda name, reason: Verdict(name, reasons=(("lost", reason),)))


def _count(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return {column: sum(map(holds, verdicts)) for column, holds in COLUMNS.items()}


def _table(results: Results) -> Iterator[str]:
    yield f"{'':24}{'':14}" + "".join(f"{column:>10}" for column in COLUMNS)
    for (mode, suite), verdicts in results.items():
        yield f"{mode:24}{suite:14}" + "".join(f"{count:10}" for count in _count(verdicts).values())


def _report(results: Results) -> Iterator[str]:
    """Every loss, and every case that we capture beyond torch."""
    for (mode, suite), verdicts in results.items():
        for verdict in sorted(verdicts, key=lambda verdict: verdict.name):
            for fate, reason in _fates(verdict):
                yield f"{mode} {suite} {verdict.name}: {fate}: {reason}"


def _fates(verdict: Verdict) -> Iterator[tuple[str, str]]:
    reasons = dict(verdict.reasons)
    if "lost" in reasons:
        yield "no verdict", reasons["lost"]
    if verdict.torch and not verdict.ours:
        yield "captured by torch only", reasons["ours"]
    if verdict.ours and not verdict.equal:
        yield "not equal" if verdict.torch else "captured beyond torch, but wrong", reasons["equal"]
    if verdict.ours and verdict.equal and not verdict.torch:
        yield "captured beyond torch", reasons["torch"]
    if verdict.torch and not verdict.survived:
        yield "did not survive the file", reasons["survived"]


def _plain(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "torch": str(torch.__version__),
            "mode": mode,
            "suite": suite,
            **_count(verdicts),
            "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
        }
        for (mode, suite), verdicts in results.items()
    ]


if __name__ == "__main__":
    main()
