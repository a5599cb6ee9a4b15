"""Time several ways in turn, and judge what was measured against a goal."""

from __future__ import annotations

import gc
import operator
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

Samples = dict[str, list[float]]
"""What each way measured, one value a round."""

ROUNDS: Final = 5


class Goal(NamedTuple):
    """What a figure must be."""

    kind: Literal["least", "most"]
    limit: float

    def met(self, value: float) -> bool:
        return {"least": operator.ge, "most": operator.le}[self.kind](value, self.limit)


def _known(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.5g}")


@dataclass
class Figure:
    """One thing that a bar says of a program.

    Numbers are kept in five digits, which is more than is known: what is printed of them, and what is printed of the
    same read back from a file, is then the same.

    Attributes:
        what: What is measured.
        unit: Unit of the values; ``x`` for a ratio.
        values: One value of each round.
        goal: What the median must be; None if nothing is asked.
        samples: What the values were computed from.
        sample_unit: Unit of the samples.
    """

    what: str
    unit: str
    values: list[float]
    goal: Goal | None = None
    samples: Samples = field(default_factory=dict)
    sample_unit: str = "ms"

    def __post_init__(self) -> None:
        self.values = [_known(value) for value in self.values]
        self.samples = {way: [_known(value) for value in values] for way, values in self.samples.items()}

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles, between which half of the values are."""
        if len(self.values) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def met(self) -> bool | None:
        return self.goal and self.goal.met(self.median)

    def medians(self) -> dict[str, float]:
        return {way: statistics.median(values) for way, values in self.samples.items()}


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, *, warm: int = 1) -> Samples:
    """Milliseconds of each way, in turn, after some rounds that do not count.

    Garbage is collected before each, and what it returns is dropped after the clock has stopped.
    """
    samples: Samples = {name: [] for name in ways}
    for index in range(warm + rounds):
        for name, way in ways.items():
            gc.collect()
            start = time.perf_counter()
            result = way()
            taken = time.perf_counter() - start
            del result
            if index >= warm:
                samples[name].append(taken * 1e3)
    return samples


def ratios(samples: Samples, over: str, under: str) -> list[float]:
    """One way over another, round by round: what slows both down does not count."""
    return [above / below for above, below in zip(samples[over], samples[under], strict=True)]


def differences(samples: Samples, of: str, minus: str) -> list[float]:
    return [first - second for first, second in zip(samples[of], samples[minus], strict=True)]


def at_most(limit: float) -> Goal:
    return Goal("most", limit)


def at_least(limit: float) -> Goal:
    return Goal("least", limit)
