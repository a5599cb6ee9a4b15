"""Bar 1: loading in a warm process, against torch.export.load and other peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import torch

import archive
from benchmarks.files import available, file_of
from benchmarks.measuring import Figure, Goal, Samples, alternate, at_least, at_most, ratios
from benchmarks.processes import apart
from benchmarks.programs import PROGRAMS
from benchmarks.ways import WAYS

PAGE: Final = 4096
TOUCHED: Final = at_least(40)
FLAT: Final = at_most(1.2)
FEW_NODES: Final = 500
"""Below, what does not grow with the graph decides; nothing is asked."""

A_NODE: Final = "load, a node"
SCALED: Final = ("nodes-1k", "nodes-50k")


def measure(name: str, folder: Path, rounds: int) -> list[Figure]:
    nodes = archive.inspect(file_of("ours", folder)).methods[0].nodes
    samples, touched = apart(_loads, name, folder, rounds)
    load = Figure("load", "x", ratios(samples, "export", "ours"), _goal(name, nodes), samples)
    touch = Figure("load, all weights read", "x", ratios(touched, "export", "ours"), None, touched)
    if nodes >= FEW_NODES:
        touch.goal = TOUCHED
    each = Figure(A_NODE, "us", [taken / nodes * 1e3 for taken in samples["ours"]])
    return [load, touch, each]


def _goal(name: str, nodes: int) -> Goal | None:
    if PROGRAMS[name].shapes is not None:
        return at_least(80)
    if nodes >= 10_000:
        return at_least(120)
    return at_least(100) if nodes >= FEW_NODES else None


def across(found: Mapping[str, list[Figure]]) -> list[Figure]:
    """What a node of the largest graph costs over one of the smallest."""
    each = {name: figure for name, figures in found.items() for figure in figures if figure.what == A_NODE}
    if not all(name in each for name in SCALED):
        return []
    few, many = (each[name].values for name in SCALED)
    growth = [large / small for small, large in zip(few, many, strict=True)]
    return [Figure("a node of the largest graph, over the smallest", "x", growth, FLAT)]


def _loads(name: str, folder: Path, rounds: int) -> tuple[Samples, Samples]:
    """Milliseconds of loads, and of loads after which all weights are read."""
    ways = [way for way in ("ours", "export", *PROGRAMS[name].peers) if available(way, folder)]
    loads = {way: partial(WAYS[way].load, str(file_of(way, folder)), name) for way in ways}
    reads = {way: partial(_load_and_read, loads[way]) for way in ("ours", "export")}
    return alternate(loads, rounds), alternate(reads, rounds, warm=0)


def _load_and_read(load: Callable[[], torch.export.ExportedProgram]) -> torch.export.ExportedProgram:
    program = load()
    for tensor in program.state_dict.values():
        torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())[::PAGE].sum()
    return program
