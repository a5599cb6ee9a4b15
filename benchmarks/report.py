"""What was measured: as a table, as JSON and back, and as a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

from benchmarks.measuring import Figure, Goal

FigureOf = dict[str, list[Figure]]
"""Figures by program."""


@dataclass
class Report:
    """Everything that was measured.

    Attributes:
        machine: What it was measured on.
        bars: Figures by number of the bar and program.
        failures: What could not be measured, and why.
    """

    machine: dict[str, str]
    bars: dict[int, FigureOf] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def met(self) -> bool:
        figures = (figure for programs in self.bars.values() for each in programs.values() for figure in each)
        return not self.failures and all(figure.met is not False for figure in figures)


def heading(number: int, title: str) -> str:
    columns = f"{'median':>14}{'half of the rounds':>22}{'goal':>10}  met"
    return f"\n{number}. {title}\n{'':60}{columns}"


def rows(program: str, figures: list[Figure]) -> Iterator[str]:
    """A line for each figure of a program; and under those that come of the same samples, the medians of these."""
    for samples, same in groupby(figures, key=lambda figure: figure.samples):
        unit = ""
        for figure in same:
            yield _row(program, figure)
            unit = figure.sample_unit
        if samples:
            medians = (f"{way} {number_text(statistics.median(values))} {unit}" for way, values in samples.items())
            yield f"{'':15}    {'; '.join(medians)}"


def _row(program: str, figure: Figure) -> str:
    low, high = figure.spread
    spread = f"{number_text(low)} to {number_text(high)}" if len(figure.values) > 1 else ""
    met = {None: "", True: "yes", False: "NO"}[figure.met]
    median = f"{number_text(figure.median)} {figure.unit:2}"
    return f"{program:15}{figure.what:45}{median:>14}{spread:>22}{goal_text(figure.goal):>10}  {met}".rstrip()


def write_json(report: Report, file: Path) -> None:
    file.write_text(json.dumps(asdict(report), separators=(",", ":")) + "\n")


def read_json(file: Path) -> Report:
    plain = json.loads(file.read_text())
    bars = {
        int(number): {program: [_figure(figure) for figure in figures] for program, figures in programs.items()}
        for number, programs in plain["bars"].items()
    }
    return Report(plain["machine"], bars, plain["failures"])


def _figure(plain: dict[str, object]) -> Figure:
    figure = Figure(**plain)
    figure.goal = Goal(*figure.goal) if figure.goal else None
    return figure


def number_text(value: float) -> str:
    """A number in three digits."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def goal_text(goal: Goal | None) -> str:
    """A goal in signs."""
    return f"{_SIGNS[goal.kind]} {number_text(goal.limit)}" if goal else ""


_SIGNS: Final = {"least": ">=", "most": "<="}
