"""Processes that try changed programs, which may die of them."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

HANG = 120.0
"""Seconds after which a process that tries some examples hangs."""


def work(connection: Any, number: int, end: float, current: Path) -> None:
    """Try examples until the time is over."""
    from tests.fuzz import program

    warnings.simplefilter("ignore")
    program.torch.set_num_threads(1)
    program.prepare()
    while time.monotonic() < end:
        connection.send((number, program.try_seed(number, 100, current), dict(program.outcomes)))
        program.outcomes.clear()
        number += 1


def follow(connection: Any, worker: Any, number: int, outcomes: Counter[str], found: dict[str, str]) -> int:
    """Collect what a process finds until it ends; a process that says nothing for too long is ended."""
    try:
        while connection.poll(HANG):
            number, finding, counts = connection.recv()
            outcomes.update(counts)
            if finding:
                kind, _, detail = finding.partition("\n")
                found.setdefault(kind, f"seed {number}: {detail}")
            number += 1
        worker.kill()
    except EOFError:
        pass
    worker.join()
    return number
