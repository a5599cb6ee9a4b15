"""What a fresh process does: import, load a file in one way, and call what it gives once.

    python -m benchmarks.child WAY FILE PROGRAM INPUTS [call] [hold]

Prints one line of JSON, see ``benchmarks.processes``. Nothing is imported at the top that would count for a way.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from typing import Any

from benchmarks import memory
from benchmarks.ways import WAYS

COSTLY = ("torch._dynamo", "torch._inductor", "sympy", "transformers")
"""Packages whose import takes longer than a load may."""


def arguments(package: str, inputs: str) -> list[Any]:
    ones: Any = importlib.import_module("torch" if package == "torch" else "numpy")
    return [ones.ones(shape, dtype=getattr(ones, dtype)) for dtype, shape in json.loads(inputs)]


def main(way: str, file: str, program: str, inputs: str, *flags: str) -> None:
    kind = WAYS[way]
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def lap(step: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[step] = now - last
        last = now

    package = importlib.import_module(kind.package)
    lap("import")
    args = arguments(kind.package, inputs)
    memory.forget_peak()
    peak, anonymous = memory.peak(), memory.anonymous()
    lap("prepare")
    loaded = kind.load(file, program)
    lap("load")
    grown = {"peak": memory.peak() - peak, "anonymous": memory.anonymous() - anonymous}
    if "call" in flags:
        lap("measure")
        module = kind.module(loaded)
        lap("module")
        with package.no_grad() if kind.package == "torch" else contextlib.nullcontext():
            module(*args)
        lap("call")
    imported = [name for name in COSTLY if name in sys.modules]
    print(json.dumps({"seconds": seconds, "grown": grown, "imported": imported}), flush=True)
    if "hold" in flags:
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
