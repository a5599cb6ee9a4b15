"""Processes to measure in: fresh ones that do one thing, and ones in which a function runs apart from all others."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from benchmarks.programs import PROGRAMS
from benchmarks.ways import THREADS, WAYS

ROOT: Final = Path(__file__).parent.parent
ENVIRONMENT: Final = {
    # without PYTHONDONTWRITEBYTECODE: a process that compiles our sources each time is not what users have
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "OMP_NUM_THREADS": str(THREADS),
    "HF_HUB_OFFLINE": "1",
}

P = ParamSpec("P")
R = TypeVar("R")


class Fresh(NamedTuple):
    """What a fresh process measured.

    Attributes:
        whole: Seconds from its start to its end.
        seconds: Seconds of each step: ``import``, ``load``, ``module``, ``call``.
        grown: By how many bytes memory grew in ``load``: ``peak`` and ``anonymous``.
        imported: Costly packages that it imported.
    """

    whole: float
    seconds: dict[str, float]
    grown: dict[str, int]
    imported: list[str]

    @property
    def after_import(self) -> float:
        """Seconds from the import to the first output."""
        return sum(self.seconds[step] for step in ("load", "module", "call"))


def fresh(way: str, folder: Path, program: str, *, call: bool) -> Fresh:
    """Load a program in one way in a process that does nothing else, and call it once if asked."""
    flags = ["call"] if call else []
    start = time.perf_counter()
    done = subprocess.run(
        _command(way, folder, program, *flags), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    whole = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{way} of {program}: {done.stderr.strip().splitlines()[-1]}")
    return Fresh(whole, **json.loads(done.stdout.splitlines()[-1]))


def held(way: str, folder: Path, program: str) -> subprocess.Popen[str]:
    """The same, but the process goes on until its standard input is closed."""
    command = _command(way, folder, program, "call", "hold")
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def apart(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What a function returns in a process of its own, so that what it keeps in memory is gone after it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _settle) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _settle() -> None:
    import logging
    import warnings

    import torch

    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def _command(way: str, folder: Path, program: str, *flags: str) -> list[str]:
    inputs: Any = json.dumps(PROGRAMS[program].inputs)
    file = folder / WAYS[way].file
    return [sys.executable, "-m", "benchmarks.child", way, str(file), program, inputs, *flags]
