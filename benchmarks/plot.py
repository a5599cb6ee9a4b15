"""The plot: milliseconds of each way to load, by program."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from benchmarks.report import Report
from benchmarks.ways import WAYS

PANELS: Final = {
    "load, in a warm process": (1, "load"),
    "from `import torch` to the first output, in a fresh process": (2, "import to output"),
}
"""Bar and figure of each panel."""

COLOURS: Final = {
    "ours": "#d1495b",
    "ours-module": "#d1495b",
    "export": "#30638e",
    "export-module": "#30638e",
    "torchscript": "#8d99ae",
    "eager": "#c9ada7",
    "onnxruntime": "#a3b18a",
}


def draw(report: Report, file: Path) -> None:
    """Draw what was measured of the panels, on a logarithmic scale; the ending of the file says in which format."""
    from matplotlib import pyplot

    found = {title: _medians(report, bar, what) for title, (bar, what) in PANELS.items()}
    shown = {title: medians for title, medians in found.items() if medians}
    figure, panels = pyplot.subplots(
        max(1, len(shown)), 1, figsize=(11, 4.2 * max(1, len(shown))), layout="constrained", squeeze=False
    )
    for axes, (title, medians) in zip(panels.flat, shown.items(), strict=False):
        _panel(axes, title, medians)
    machine = report.machine
    figure.suptitle(f"torch {machine['torch']}, {machine['processor']}, {machine['date']}", fontsize=9, color="gray")
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _medians(report: Report, bar: int, what: str) -> dict[str, dict[str, float]]:
    """Medians of each way, by program."""
    found = report.bars.get(bar, {})
    figures = {program: each for program, all_ in found.items() for each in all_ if each.what == what}
    return {
        program: {way: value for way, value in each.medians().items() if way in COLOURS}
        for program, each in figures.items()
    }


def _panel(axes: Any, title: str, medians: dict[str, dict[str, float]]) -> None:
    ways = [way for way in COLOURS if any(way in each for each in medians.values())]
    width = 0.8 / max(1, len(ways))
    for index, way in enumerate(ways):
        places = [place + (index - (len(ways) - 1) / 2) * width for place in range(len(medians))]
        heights = [each.get(way, float("nan")) for each in medians.values()]
        drawn = axes.bar(places, heights, width, label=WAYS[way].title, color=COLOURS[way])
        axes.bar_label(drawn, labels=[_label(height) for height in heights], fontsize=6, padding=1)
    axes.set(yscale="log", ylabel="ms", title=title)
    axes.set_xticks(range(len(medians)), medians, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=len(ways) or 1, loc="upper left")
    axes.margins(y=0.2)


def _label(height: float) -> str:
    return "" if height != height else f"{height:,.0f}" if height >= 10 else f"{height:.1f}"
