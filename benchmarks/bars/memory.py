"""Bar 6: memory of a load, and of four processes that run the same program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from benchmarks import memory
from benchmarks.files import file_of
from benchmarks.measuring import Figure, Samples, at_most
from benchmarks.memory import MB
from benchmarks.processes import fresh, held

GROWTH_MB: Final = at_most(16)
WORKERS: Final = 4
WORKER_MB: Final = 200


def measure(name: str, folder: Path, rounds: int) -> list[Figure]:
    peaks: Samples = {"ours": [], "export": []}
    anonymous: Samples = {"ours": [], "export": []}
    for _ in range(rounds):
        for way in peaks:
            grown = fresh(way, folder, name, call=False).grown
            peaks[way].append(grown["peak"] / MB)
            anonymous[way].append(grown["anonymous"] / MB)
    together = {way: [_workers(way, folder, name) / MB] for way in ("ours-module", "export-module")}
    limit = at_most(file_of("ours", folder).stat().st_size / MB + WORKERS * WORKER_MB)
    return [
        Figure("load, growth of the peak", "MB", peaks["ours"], GROWTH_MB, peaks, "MB"),
        Figure("load, growth of anonymous memory", "MB", anonymous["ours"], None, anonymous, "MB"),
        Figure(f"{WORKERS} processes after a call", "MB", together["ours-module"], limit, together, "MB"),
    ]


def _workers(way: str, folder: Path, name: str) -> int:
    """Memory of several processes together, each after one call."""
    processes = [held(way, folder, name) for _ in range(WORKERS)]
    try:
        for process in processes:
            json.loads(process.stdout.readline())
        return sum(memory.proportional(process.pid) for process in processes)
    finally:
        for process in processes:
            process.communicate()
