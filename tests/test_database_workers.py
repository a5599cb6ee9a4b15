"""A case that crashes, hangs or eats the memory is a named failure, and the run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.databases.tasks import Task
from tests.databases.workers import Process

pytestmark = pytest.mark.filterwarnings("ignore")  # the collections warn


def answer(task: Task) -> Iterator[str]:
    """What a worker does here: one sample after the other, of which some are bad."""
    fates = ["fine", "crash", "hang", "eat", "fine"]
    for number, fate in enumerate(fates[task.first :], task.first):
        if fate == "crash":
            os._exit(3)
        if fate == "hang":
            time.sleep(60)
        if fate == "eat":
            try:
                bytearray(2**40)
            except MemoryError:
                fate = "out of memory"
        yield f"{number} {fate}"


def test_a_bad_sample_loses_itself_only() -> None:
    process = Process(answer, limit=2)
    found = list(process.ask_samples(Task("", "case", "", None), lambda name, reason: f"{name}: {reason}"))  # type: ignore[arg-type]
    assert found == [
        "0 fine",
        "case (1): the process ended with status 3",
        "case (2): took longer than 2 s",
        "3 out of memory",
        "4 fine",
    ]
