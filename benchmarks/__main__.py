"""How long loading, calling and saving take, as ratios to torch.export and other peers in the same run.

    python -m benchmarks [--only resnet50,gpt2] [--bars 1,2] [--quick] [--rounds 5] [--json FILE] [--plot FILE]

All programs have random weights. Each is captured once and kept in build/bench, in the format of each peer. What is
compared runs in turn, on one thread; printed are medians over the rounds, between which values half of the rounds are,
and whether the goal is met. ``--from FILE`` prints and plots what ``--json`` wrote. The numbers behind docs/speed.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from benchmarks import markdown
from benchmarks.bars import BARS
from benchmarks.files import failures, prepare
from benchmarks.machine import describe
from benchmarks.measuring import ROUNDS
from benchmarks.plot import draw
from benchmarks.processes import ROOT
from benchmarks.programs import PROGRAMS
from benchmarks.report import Report, heading, read_json, rows, write_json


def main() -> None:
    options = _options()
    if options.read:
        report = read_json(options.read)
        for number in report.bars:
            _print_bar(report, number)
    else:
        names = options.only or [name for name, program in PROGRAMS.items() if program.quick or not options.quick]
        report = measure(names, options.bars or list(BARS), options.rounds, options.cache)
    if options.json:
        write_json(report, options.json)
    if options.markdown:
        options.markdown.write_text(f"{markdown.overview(report)}\n{markdown.figures(report)}")
    if options.plot:
        draw(report, options.plot)
    print(f"\nthe bars are {'met' if report.met else 'not met'}")


def measure(names: Iterable[str], numbers: Iterable[int], rounds: int, cache: Path) -> Report:
    """Measure bars on programs, and print what is found at once."""
    report = Report(describe())
    print("\n".join(f"{key:14}{value}" for key, value in report.machine.items()), flush=True)
    folders = {name: prepare(name, cache) for name in names}
    for name, folder in folders.items():
        for peer, reason in failures(name, folder).items():
            print(f"no {peer} of {name}: {reason}")
    for number in numbers:
        _measure_bar(report, number, folders, rounds)
    return report


def _measure_bar(report: Report, number: int, folders: dict[str, Path], rounds: int) -> None:
    bar = BARS[number]
    found = report.bars.setdefault(number, {})
    print(heading(number, bar.title))
    for name, folder in folders.items():
        if name in bar.without:
            continue
        try:
            found[name] = bar.measure(name, folder, rounds)
        except Exception as error:
            report.failures.append(f"bar {number}, {name}: {error}")
            print(f"{name:15}failed: {error}", flush=True)
        else:
            print("\n".join(rows(name, found[name])), flush=True)
    if more := bar.across(found):
        found["all"] = more
        print("\n".join(rows("all", more)), flush=True)


def _print_bar(report: Report, number: int) -> None:
    print(heading(number, BARS[number].title))
    for name, figures in report.bars[number].items():
        print("\n".join(rows(name, figures)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=_names, metavar="NAME,…", help=f"programs, of {', '.join(PROGRAMS)}")
    parser.add_argument("--bars", type=_numbers, metavar="NUMBER,…", help=f"bars, of {', '.join(map(str, BARS))}")
    parser.add_argument("--quick", action="store_true", help="only some small programs")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "bench", help="where programs are kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables of README.md and docs/speed.md")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it, as .svg or .png")
    parser.add_argument(
        "--from", dest="read", type=Path, metavar="FILE", help="what --json wrote, instead of measuring"
    )
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PROGRAMS):
        raise argparse.ArgumentTypeError(f"no program {', '.join(sorted(unknown))}")
    return names


def _numbers(text: str) -> list[int]:
    numbers = [int(number) for number in text.split(",")]
    if unknown := set(numbers) - set(BARS):
        raise argparse.ArgumentTypeError(f"no bar {', '.join(map(str, unknown))}")
    return numbers


if __name__ == "__main__":
    main()
