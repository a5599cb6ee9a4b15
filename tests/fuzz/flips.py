"""Every single bit of small archives, flipped: it is detected, or what the program computes stays the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch

import loader
from archive.reading import open_archive
from loader.torch_internals import pytree
from schema.errors import ArchiveError
from tests.fuzz.archives import in_memory, written
from tests.program_equality import same

NAMES = {"tied": "static", "dynamic": "dynamic", "branch": "with subgraphs"}


def try_flips(name: str, step: int = 1) -> tuple[Counter[str], list[str]]:
    """Flip every bit of an archive, or every so manieth.

    Returns:
        How many flips had which outcome, and those that changed what is computed, or broke something.
    """
    data = written(name)
    with in_memory(data) as path:
        expected = run(path)
    outcomes: Counter[str] = Counter()
    failures = []
    for bit in range(0, len(data) * 8, step):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with in_memory(bytes(flipped)) as path:
            outcome = _outcome(path, expected)
        outcomes[outcome] += 1
        if outcome not in ("detected", "harmless"):
            failures.append(f"bit {bit} of {name}: {outcome}")
    return outcomes, failures


def run(path: Path) -> list[Any]:
    """What the program of an archive returns for its example, by both ways to load it."""
    module, program = loader.load_module(path, verify="full"), loader.load(path, verify="full")
    assert module.example_inputs is not None
    results = []
    for function in (module, program.module()):
        args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, module.example_inputs)
        with torch.no_grad():
            results.append(pytree.tree_leaves(function(*args, **kwargs)))
    return results


def _outcome(path: Path, expected: list[Any]) -> str:
    try:
        open_archive(path).close()  # most flips are found here, before anything is built
        found = run(path)
    except ArchiveError:
        return "detected"
    except Exception as error:
        return f"{type(error).__name__} {error}"
    return "harmless" if same(found, expected) else "silent change"
