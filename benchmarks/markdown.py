"""What was measured, as Markdown: what matters to a user, and all figures with their goals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from benchmarks.measuring import Figure
from benchmarks.report import Report, goal_text, number_text

PEERS: Final = {"export": "torch.export", "torchscript": "TorchScript", "eager": "safetensors and the module's code"}
"""Ways whose milliseconds stand beside ours."""


class Column(NamedTuple):
    """A column of what matters to a user.

    Attributes:
        title: What stands above it.
        bar: Number of the bar.
        what: The figure.
        way: Whose samples to show; empty for the figure itself.
    """

    title: str
    bar: int
    what: str
    way: str = ""


COLUMNS: Final = (
    Column("load, ms", 1, "load", "ours"),
    *(Column(title, 1, "load", way) for way, title in PEERS.items()),
    Column("faster than torch.export: load", 1, "load"),
    Column("first output of a new process", 2, "import to output"),
    Column("a call", 3, "call, against module()"),
    Column("save", 4, "save"),
    Column("memory of a load, MB", 6, "load, growth of the peak"),
)


def overview(report: Report) -> str:
    """A row for each program, without columns of which nothing was measured."""
    programs = [program for program in _programs(report) if program != "all"]
    found = {(column, program): _cell(report, column, program) for column in COLUMNS for program in programs}
    columns = [column for column in COLUMNS if any(found[column, program] for program in programs)]
    rows = [[program, *(found[column, program] for column in columns)] for program in programs]
    return _table(["", *(column.title for column in columns)], rows)


def figures(report: Report) -> str:
    """A row for each figure that has a goal; bold where the goal is met."""
    programs = _programs(report)
    rows = []
    for number, measured in report.bars.items():
        for what in dict.fromkeys(figure.what for each in measured.values() for figure in each if figure.goal):
            found = {program: _figure(measured.get(program, []), what) for program in programs}
            goals = dict.fromkeys(goal_text(figure.goal) for figure in found.values() if figure and figure.goal)
            unit = next(figure.unit for figure in found.values() if figure)
            title = f"{number}: {what}{', ' * bool(unit)}{unit}"
            rows.append([title, *(_judged(figure) for figure in found.values()), ", ".join(goals)])
    return _table(["", *programs, "goal"], rows)


def _programs(report: Report) -> list[str]:
    return list(dict.fromkeys(program for measured in report.bars.values() for program in measured))


def _figure(figures: Iterable[Figure], what: str) -> Figure | None:
    return next((figure for figure in figures if figure.what == what), None)


def _cell(report: Report, column: Column, program: str) -> str:
    figure = _figure(report.bars.get(column.bar, {}).get(program, []), column.what)
    value = figure and (figure.medians().get(column.way) if column.way else figure.median)
    return "" if value is None else number_text(value)


def _judged(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return f"**{number_text(figure.median)}**" if figure.met else number_text(figure.median)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---", *["--:"] * (len(titles) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
