"""Bar 2: a process that starts, loads a program and calls it once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from benchmarks.files import available
from benchmarks.measuring import Figure, Samples, at_least, at_most, differences, ratios
from benchmarks.processes import Fresh, fresh
from benchmarks.programs import PROGRAMS

PROGRAM_MS: Final = at_most(15)
OVER_FIRST_CALL_MS: Final = at_most(15)
SMALL: Final = {"tiny": at_least(20), "bert-narrow": at_least(20)}
"""What is asked of programs whose first call is short."""

FIRST_CALL: Final = "own first call"
FLOOR: Final = "import and own first call"
OVER_FLOOR: Final = at_most(1.1)
FASTER: Final = at_least(1)
NONE: Final = at_most(0)

Runs = dict[str, list[Fresh]]


def measure(name: str, folder: Path, rounds: int) -> list[Figure]:
    runs = _run(name, folder, rounds)
    load = _samples(runs, ["ours"], lambda run: run.seconds["load"])
    first = _samples(runs, filter(_calls, runs), lambda run: run.after_import)
    whole = _samples(runs, runs, lambda run: run.whole)
    first[FIRST_CALL] = [run.seconds["call"] * 1e3 for run in runs["export-module"]]
    whole[FLOOR] = [sum(both) for both in zip(whole["nothing"], first[FIRST_CALL], strict=True)]
    over_call = differences(first, "ours-module", FIRST_CALL)
    over_export = ratios(first, "export-module", "ours-module")
    figures = [
        Figure("import to program", "ms", load["ours"], PROGRAM_MS, load),
        Figure("import to output, over own first call", "ms", over_call, OVER_FIRST_CALL_MS, first),
        Figure("import to output", "x", over_export, SMALL.get(name), first),
        Figure(f"whole process, over {FLOOR}", "x", ratios(whole, "ours-module", FLOOR), OVER_FLOOR, whole),
    ]
    if "torchscript" in runs:
        over_script = ratios(whole, "torchscript", "ours-module")
        figures.append(Figure("whole process, against TorchScript", "x", over_script, FASTER, whole))
    if PROGRAMS[name].shapes is None:
        imported = {each for run in (*runs["ours"], *runs["ours-module"]) for each in run.imported}
        figures.append(Figure("costly packages imported", "", [len(imported)], NONE))
    return figures


def _run(name: str, folder: Path, rounds: int) -> Runs:
    """Fresh processes of every way in turn; the first round only reads the files."""
    ways = ("nothing", "ours", "ours-module", "export-module", *PROGRAMS[name].peers)
    runs: Runs = {way: [] for way in ways if available(way, folder)}
    for index in range(rounds + 1):
        for way, kept in runs.items():
            run = fresh(way, folder, name, call=_calls(way))
            if index:
                kept.append(run)
    return runs


def _calls(way: str) -> bool:
    return way not in ("nothing", "ours")


def _samples(runs: Runs, ways: Iterable[str], take: Callable[[Fresh], float]) -> Samples:
    return {way: [take(run) * 1e3 for run in runs[way]] for way in ways}
