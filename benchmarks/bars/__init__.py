"""The bars: what is measured of each program, and what it must be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.bars import calling, fresh, inspecting, loading, memory, saving, sizes
from benchmarks.measuring import Figure

Measure = Callable[[str, Path, int], list[Figure]]


class Bar(NamedTuple):
    """A bar.

    Attributes:
        title: What it is about.
        measure: Gives its figures of a program, from its name, the folder of its files and the number of rounds.
        without: Programs that it is not measured on.
        across: Gives more figures from those of all programs.
    """

    title: str
    measure: Measure
    without: tuple[str, ...] = ()
    across: Callable[[dict[str, list[Figure]]], list[Figure]] = lambda _: []


LARGE: Final = ("nodes-10k", "nodes-50k")
TINY: Final = ("tiny",)

BARS: Final[dict[int, Bar]] = {
    1: Bar("Loading in a warm process", loading.measure, across=loading.across),
    2: Bar("A fresh process", fresh.measure, LARGE),
    3: Bar("A call", calling.measure),
    4: Bar("Saving", saving.measure, TINY),
    5: Bar("Bytes of the graph", sizes.measure, TINY),
    6: Bar("Memory of a load", memory.measure, LARGE),
    7: Bar("archive inspect", inspecting.measure),
}
