"""`python -m tests.databases.fresh`: programs of torch and ours, saved here, read in a process that made none of them.

The reader has the file, and beside it the texts that the program had. It imports what registers the custom operators of
the suites, and nothing of the models.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import re
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.testing._internal.common_utils import DeterministicGuard

import exporter
import loader
from loader.opening import open_method
from schema.errors import UsageError
from tests.databases.judging import TRUSTED, one_line
from tests.databases.samples import MODES, SUITES, Choice, Mode, samples
from tests.program_equality import same

_REGISTER = ("torch.testing._internal.hop_db", "torch.testing._internal.custom_op_db", "transformers.integrations.moe")
"""What a reader must import: it registers the custom operators of the suites."""

_BATCH = 50
"""How many programs one process reads."""


def main() -> None:
    """Save what the command line asks for, have it read, and print a table and every loss."""
    options = _parser().parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    if options.read:
        for registers in _REGISTER:
            importlib.import_module(registers)
        (options.read / "losses.json").write_text(json.dumps(dict(_losses(options.read))))
        return
    print(f"{'':40}{'exported':>10}{'survived exactly':>18}")
    for mode in options.modes:
        for suite in options.suites:
            exported, lost = _judge(suite, MODES[mode], options.keyword)
            for who in ("torch", "ours"):
                survived = exported[who] - sum(title.startswith(who) for title in lost)
                print(f"{mode:22}{suite:13}{who:5}{exported[who]:10}{survived:18}", flush=True)
            print(*(f"  {title}: {reason}" for title, reason in lost.items()), sep="\n", end="\n" if lost else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.databases.fresh", description=__doc__)
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=list(SUITES), help="the collections")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="the kinds of capture")
    parser.add_argument("-k", dest="keyword", default="", help="only cases whose name this regular expression finds")
    parser.add_argument("--read", type=Path, help="read the programs in this folder: what the fresh process does")
    return parser


def _judge(suite: str, mode: Mode, keyword: str) -> tuple[Counter[str], dict[str, str]]:
    """How many programs each exported, and why which were lost."""
    exported, lost = Counter[str](), dict[str, str]()
    waiting: list[tuple[str, torch.export.ExportedProgram]] = []
    for title, program in _programs(suite, mode, keyword):
        exported[title.partition(" ")[0]] += 1
        waiting.append((title, program))
        if len(waiting) == _BATCH:
            lost |= _send(waiting)
            waiting.clear()
    return exported, lost | _send(waiting)


def _programs(suite: str, mode: Mode, keyword: str) -> Iterator[tuple[str, torch.export.ExportedProgram]]:
    for name in filter(re.compile(keyword).search, SUITES[suite].names()):
        made, again = (list(samples(suite, name, Choice())) for _ in range(2))
        for for_torch, for_us in zip(made, again, strict=True):
            makers: dict[str, Callable[[Mode], Any]] = {"torch": for_torch.by_torch, "ours": for_us.by_us}
            for who, make in makers.items():
                torch._dynamo.reset()
                try:
                    program = make(mode)
                except Exception:  # no program, no case
                    continue
                yield f"{who} {for_us.name}", program


def _send(waiting: list[tuple[str, torch.export.ExportedProgram]]) -> dict[str, str]:
    """Save programs, have a fresh process read them, and return why which were lost."""
    lost = dict[str, str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, (title, program) in enumerate(waiting):
            try:
                _save(program, folder / f"{number}.program")
            except Exception as error:  # whatever it is, the program did not survive
                lost[title] = one_line(error)
        reader = [sys.executable, "-m", "tests.databases.fresh", "--read", name]
        subprocess.run(reader, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = json.loads((folder / "losses.json").read_text())
    return lost | {waiting[int(number)][0]: reason for number, reason in found.items()}


def _save(program: torch.export.ExportedProgram, path: Path) -> None:
    path.with_suffix(".text").write_text(json.dumps(_texts(program)))
    with DeterministicGuard(True, warn_only=True):  # memory that nobody writes is NaN
        try:
            exporter.save(program, path, keep_paths=True, record_outputs=True)
        except UsageError:  # the example is outside what the program asserts
            exporter.save(program, path, keep_paths=True)


def _texts(program: torch.export.ExportedProgram) -> list[str]:
    """What is text of a program: its graphs for people, the code of its graph, signature, ranges and guards."""
    return [
        program.graph_module.print_readable(print_output=False),
        program.graph.python_code("self").src,
        str(program.graph_signature),
        str(program.range_constraints),
        str(program._guards_code),
    ]


def _losses(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.program")):
        try:
            _read(path)
        except Exception as error:  # whatever it is, the program did not survive
            yield path.stem, one_line(error)


def _read(path: Path) -> None:
    program = loader.load(path, debug=True, allow_ops=TRUSTED)
    for found, expected in zip(_texts(program), json.loads(path.with_suffix(".text").read_text()), strict=True):
        assert same(found, expected), f"another text: {found[:100]}"
    with open_method(path, allow_ops=TRUSTED) as opened:
        recorded = opened.method.expected
    # Outputs are recorded anew: what they are is a part of the bytes.
    second = path.with_suffix(".second")
    with DeterministicGuard(True, warn_only=True):
        exporter.save(program, second, keep_paths=True, record_outputs=recorded is not None)
    assert second.read_bytes() == path.read_bytes(), "other bytes, or outputs, when saved again"


if __name__ == "__main__":
    main()
