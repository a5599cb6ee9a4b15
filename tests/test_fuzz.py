"""Short runs of the fuzzers, the same every time; `python -m tests.fuzz` goes on for as long as it is told."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import flips, program, reader

ROOT = Path(__file__).parent.parent
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="archives in memory and peaks of memory are Linux's")


@ON_LINUX
def test_no_kept_input_surprises_the_reader() -> None:
    inputs = [*reader.seeds(), *(path.read_bytes() for path in sorted(reader.CORPUS.iterdir()))]
    assert len(inputs) > 80
    for number, data in enumerate(inputs):
        reader.check(data)
        reader.check(reader.mutate(data, number))


@ON_LINUX
@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris has no wheel for this machine")
def test_the_coverage_guided_fuzzer_finds_nothing_in_the_reader() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "reader", "--seconds", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("edges: 0 found")


@ON_LINUX
@pytest.mark.parametrize("seed", [1, 2])
def test_changed_documents_surprise_nothing_up_to_the_call(seed: int) -> None:
    program.prepare(limited=False)
    assert program.try_seed(seed, 50) == ""


@ON_LINUX
@pytest.mark.parametrize("name", flips.NAMES)
def test_flipped_bits_are_detected_or_change_nothing(name: str) -> None:
    outcomes, failures = flips.try_flips(name, step=61)
    assert failures == []
    assert outcomes["detected"] > 0.9 * outcomes.total()
