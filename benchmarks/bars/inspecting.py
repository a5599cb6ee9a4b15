"""Bar 7: ``archive inspect`` as a whole process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.files import file_of
from benchmarks.measuring import Figure, alternate, at_most
from benchmarks.processes import ENVIRONMENT, ROOT

INSPECT_S: Final = at_most(0.15)
NONE: Final = at_most(0)
COMMAND: Final = "from archive.cli import main; main()"
HEAVY: Final = re.compile(r"\| +(?:torch|numpy)$", re.MULTILINE)


def measure(_name: str, folder: Path, rounds: int) -> list[Figure]:
    file = file_of("ours", folder)
    samples = alternate({"inspect": lambda: _run(file), "python": lambda: _python("-c", "pass")}, rounds)
    processor = [_processor_seconds(file) for _ in range(rounds)]
    imported = len(HEAVY.findall(_run(file, "-X", "importtime")))
    return [
        Figure("inspect", "s", [taken / 1e3 for taken in samples["inspect"]], INSPECT_S, samples),
        Figure("inspect, processor time", "s", processor),
        Figure("torch and numpy imported", "", [imported], NONE),
    ]


def _processor_seconds(file: Path) -> float:
    """Processor time of one process: on a machine that is shared it says more than a clock."""
    before = os.times()
    _run(file)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _run(file: Path, *flags: str) -> str:
    """Inspect a file; returns what went to standard error."""
    return _python(*flags, "-c", COMMAND, "inspect", str(file))


def _python(*args: str) -> str:
    command = [sys.executable, *args]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True).stderr
