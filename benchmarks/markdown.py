"""The figures that matter to a user side by side, a row for each program, as Markdown."""

from __future__ import annotations

from typing import Final, NamedTuple

from benchmarks.report import Report, number_text

PEERS: Final = {"export": "torch.export", "torchscript": "TorchScript", "eager": "safetensors, eager"}
"""Ways whose milliseconds stand beside ours."""


class Column(NamedTuple):
    """A column.

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
    Column("load, ms: ours", 1, "load", "ours"),
    *(Column(title, 1, "load", way) for way, title in PEERS.items()),
    Column("times faster than torch.export", 1, "load"),
    Column("new process, to the first output", 2, "import to output"),
    Column("a call", 3, "call, against module()"),
    Column("save", 4, "save"),
    Column("graph, times smaller", 5, "graph"),
    Column("load grows memory by, MB", 6, "load, growth of the peak"),
)


def table(report: Report) -> str:
    """The table, without columns of which nothing was measured."""
    programs = dict.fromkeys(program for figures in report.bars.values() for program in figures if program != "all")
    columns = [column for column in COLUMNS if any(_cell(report, column, program) for program in programs)]
    lines = [["program", *(column.title for column in columns)], ["---"] * (len(columns) + 1)]
    lines += [[program, *(_cell(report, column, program) for column in columns)] for program in programs]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(report: Report, column: Column, program: str) -> str:
    for figure in report.bars.get(column.bar, {}).get(program, []):
        if figure.what == column.what:
            value = figure.medians().get(column.way) if column.way else figure.median
            return "" if value is None else number_text(value)
    return ""
