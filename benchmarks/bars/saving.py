"""Bar 4: saving, against torch.export.save and a plain safetensors file."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import safetensors.torch
import torch

import exporter
from benchmarks import memory
from benchmarks.files import file_of
from benchmarks.measuring import Figure, Samples, alternate, at_least, at_most, ratios
from benchmarks.memory import MB
from benchmarks.processes import apart
from benchmarks.scratch import scratch

GROWTH_MB: Final = at_most(16)
OVER_SAFETENSORS: Final = at_most(1.1)
HEAVY: Final = 100 * MB
"""Weights of so many bytes dominate what a file costs."""

GRAPH_ONLY: Final = {"nodes-50k": at_least(50)}
WHOLE_FILE: Final = at_least(5)


class Saves(NamedTuple):
    """What was measured.

    Attributes:
        samples: Milliseconds.
        grown: Megabytes by which the peak of memory grows, of each way.
        weights: Bytes of all parameters and buffers.
    """

    samples: Samples
    grown: dict[str, float]
    weights: int


def measure(name: str, folder: Path, rounds: int) -> list[Figure]:
    samples, grown, weights = apart(_saves, folder, rounds)
    figures = [
        Figure("save", "x", ratios(samples, "export", "ours"), GRAPH_ONLY.get(name, WHOLE_FILE), samples),
        Figure("save, growth of memory", "MB", [grown["ours"]], GROWTH_MB, _each(grown), "MB"),
    ]
    if weights >= HEAVY:
        over = ratios(samples, "ours", "safetensors")
        figures.append(Figure("save, over safetensors", "x", over, OVER_SAFETENSORS, samples))
    return figures


def _saves(folder: Path, rounds: int) -> Saves:
    program = torch.export.load(file_of("export", folder))
    tensors = _distinct(program)
    weights = sum(tensor.nbytes for tensor in tensors.values())
    with scratch(3 * weights) as place:
        ours = partial(exporter.save, program, place / "ours")
        ways: dict[str, Callable[[], Any]] = {
            "export": lambda: torch.export.save(program, place / "export"),
            # While torch writes, a virtual machine gives memory back: to get it again slows whoever writes next.
            "ours after torch": ours,
            "ours": ours,
        }
        if weights >= HEAVY:
            ways["safetensors"] = lambda: safetensors.torch.save_file(tensors, place / "safetensors")
        samples = alternate(ways, rounds)
        return Saves(samples, {way: _growth(save) for way, save in ways.items()}, weights)


def _distinct(program: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    """The state dictionary without ties, which safetensors refuses."""
    places = {tensor.data_ptr(): name for name, tensor in reversed(program.state_dict.items())}
    return {name: program.state_dict[name].contiguous() for name in places.values()}


def _growth(save: Callable[[], Any]) -> float:
    gc.collect()
    memory.forget_peak()
    before = memory.peak()
    save()
    return (memory.peak() - before) / MB


def _each(values: dict[str, float]) -> Samples:
    return {name: [value] for name, value in values.items()}
