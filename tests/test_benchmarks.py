"""The benchmarks run; what they measure is no test's business."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import files, markdown
from benchmarks.__main__ import measure
from benchmarks.bars import BARS, calling, loading
from benchmarks.measuring import Figure, Goal
from benchmarks.plot import draw
from benchmarks.processes import apart, fresh
from benchmarks.report import Report, heading, read_json, rows, write_json

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the files of programs, which this process makes and loads: starting others takes long."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (files, loading, calling):
            patch.setattr(module, "apart", _here)
        patch.setattr(calling, "BUDGET_S", 0)
        yield tmp_path_factory.mktemp("bench")


def _here(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def test_the_benchmarks_run_and_are_read_back(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = measure(["tiny"], [1, 3, 7], 2, cache)
    assert not report.failures
    write_json(report, cache / "results.json")
    again = read_json(cache / "results.json")
    write_json(again, cache / "again.json")
    assert (cache / "again.json").read_text() == (cache / "results.json").read_text()
    shown = capsys.readouterr().out
    for number, programs in again.bars.items():
        assert heading(number, BARS[number].title) in shown
        assert "\n".join(rows("tiny", programs["tiny"])) in shown


def test_what_is_printed_is_what_is_written(tmp_path: Path) -> None:
    figure = Figure("load", "x", [5.024997], None, {"ours": [2.024997]})
    write_json(Report({}, {1: {"one": [figure]}}), tmp_path / "results.json")
    again = read_json(tmp_path / "results.json").bars[1]["one"]
    assert list(rows("one", again)) == list(rows("one", [figure]))


def test_the_tables_have_a_row_for_each_program_and_for_each_goal() -> None:
    goal = Goal("least", 2)
    slow, fast = (Figure("load", "x", [value], goal, {"ours": [4.0], "export": [4.0 * value]}) for value in (1, 3))
    report = Report({}, {1: {"one": [slow, Figure("size", "B", [1])], "other": [fast]}})
    assert markdown.overview(report).splitlines()[2:] == ["| one | 4 | 4 | 1 |", "| other | 4 | 12 | 3 |"]
    assert markdown.figures(report).splitlines()[2:] == ["| 1: load, x | 1 | **3** | >= 2 |"]


def test_a_fresh_process_says_what_it_took(cache: Path) -> None:
    folder = files.prepare("tiny", cache)
    run = fresh("ours-module", folder, "tiny", call=True)
    assert 0 < run.after_import < run.whole
    with pytest.raises(RuntimeError, match=r"ours-module of tiny: .*nowhere"):
        fresh("ours-module", cache / "nowhere", "tiny", call=True)


def test_what_runs_apart_gives_its_result_back() -> None:
    assert apart(divmod, 7, 2) == (3, 1)


def test_what_was_measured_is_drawn(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(measure(["tiny"], [1], 1, cache), tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
