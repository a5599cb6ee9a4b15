"""Bar 3: a call of a loaded module, against torch's module and the bare generated code."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

import loader
from benchmarks.files import file_of
from benchmarks.measuring import Figure, Samples, alternate, at_least, at_most, differences, ratios
from benchmarks.processes import apart
from benchmarks.programs import arguments

NOT_SLOWER: Final = at_least(1)
CALL_US, INPUT_US = 20, 1
"""What a call may cost over the bare code, and each input of the graph beside it."""

BUDGET_S: Final = 30
MOST_ROUNDS: Final = 200
BATCH_S: Final = 0.02
FEWEST: Final = 5
"""For so long, and so often, each way is called again and again, as by a server: a lone call finds no cache warm."""


class Calls(NamedTuple):
    """What was measured.

    Attributes:
        samples: Milliseconds of calls.
        inputs: How many inputs the graph has.
    """

    samples: Samples
    inputs: int


def measure(name: str, folder: Path, rounds: int) -> list[Figure]:
    samples, inputs = apart(_calls, name, folder, rounds)
    overhead = [taken * 1e3 for taken in differences(samples, "ours", "bare code")]
    limit = at_most(CALL_US + INPUT_US * inputs)
    return [
        Figure("call, against module()", "x", ratios(samples, "module()", "ours"), NOT_SLOWER, samples),
        Figure("call, over bare code", "us", overhead, limit, samples),
        Figure("the same, an input", "us", [each / inputs for each in overhead]),
    ]


def _calls(name: str, folder: Path, rounds: int) -> Calls:
    args = arguments(name)
    ours = loader.load_module(file_of("ours", folder))
    theirs = torch.export.load(file_of("export", folder)).module()
    bare, inputs = _bare(loader.load(file_of("ours", folder)), args)
    with torch.no_grad():
        torch.testing.assert_close(ours(*args), theirs(*args), rtol=0, atol=0)
        ways: dict[str, Callable[[], Any]] = {
            "ours": partial(ours, *args),
            "module()": partial(theirs, *args),
            "bare code": bare,
        }
        times = _times(bare)
        batches = {name: partial(_repeat, way, times) for name, way in ways.items()}
        samples = alternate(batches, _rounds(batches, rounds), warm=2)
        return Calls({name: [taken / times for taken in values] for name, values in samples.items()}, inputs)


def _bare(program: torch.export.ExportedProgram, args: tuple[torch.Tensor, ...]) -> tuple[Callable[[], Any], int]:
    """The generated code with its inputs, and how many they are; they are what our module has, not copies."""
    tensors = {**program.state_dict, **program.constants}
    user = iter(args)
    inputs = [next(user) if not spec.target else tensors[spec.target] for spec in program.graph_signature.input_specs]
    program.graph_module(*inputs)  # generates the code
    return partial(program.graph_module.forward, *inputs), len(inputs)


def _times(call: Callable[[], Any]) -> int:
    """How many calls make a batch."""
    call()
    start = time.perf_counter()
    call()
    return max(FEWEST, int(BATCH_S / (time.perf_counter() - start)))


def _repeat(call: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        call()


def _rounds(ways: dict[str, Callable[[], Any]], least: int) -> int:
    """As many rounds as there is time for: differences of microseconds need many."""
    start = time.perf_counter()
    alternate(ways, 1, warm=0)
    return min(MOST_ROUNDS, max(least, int(BUDGET_S / (time.perf_counter() - start))))
