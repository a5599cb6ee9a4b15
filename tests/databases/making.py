"""Programs of samples, saved with what they say: the half of a survival that has the models."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.testing._internal.common_utils import DeterministicGuard

import exporter
from schema.errors import UsageError
from tests.databases.samples import MODES, samples
from tests.databases.tasks import Task, one_line
from tests.program_text import program_texts

CAPTURES: dict[str, Callable[..., Any]] = {
    "torch": lambda sample, mode: sample.by_torch(mode),
    "ours": lambda sample, mode: sample.by_us(mode),
}
"""Who captures samples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making(Task):
    """A case of which programs are made.

    Attributes:
        by: Who captures it, a key of the table of captures.
        folder: Where the programs go.
    """

    by: str
    folder: str = ""


@dataclasses.dataclass(frozen=True)
class Fate:
    """What became of one sample.

    Attributes:
        name: The name of the sample.
        path: Where its program was saved; empty if there is none.
        failed: Why there is no program; empty if there is one.
        lost: Why its program did not survive; empty if it did.
    """

    name: str
    path: str = ""
    failed: str = ""
    lost: str = ""


def make(task: Making) -> Iterator[Fate]:
    """Capture the samples of a case, and save the programs with what they say.

    Args:
        task: The case.

    Yields:
        What became of each sample so far.
    """
    found = list(samples(task.suite, task.name, task.choice))
    for number, sample in enumerate(found[task.first :], task.first):
        torch._dynamo.reset()
        gc.collect()  # an iterator of samples may be suspended under no_grad: torch would record that it is closed
        try:
            program = CAPTURES[task.by](sample, MODES[task.mode])
        except Exception as error:  # no program: nothing to lose
            yield Fate(sample.name, failed=one_line(error))
            continue
        path = Path(task.folder, f"{number}.program")
        try:
            _save(program, path)
        except Exception as error:  # whatever it is, the program did not survive
            yield Fate(sample.name, lost=one_line(error))
        else:
            yield Fate(sample.name, str(path))


def _save(program: torch.export.ExportedProgram, path: Path) -> None:
    path.with_suffix(".texts").write_text(json.dumps(program_texts(program)))
    with DeterministicGuard(True, warn_only=True):  # memory that nobody writes is NaN
        try:
            exporter.save(program, path, keep_paths=True, record_outputs=True)
        except UsageError:  # the example is outside what the program asserts
            exporter.save(program, path, keep_paths=True)
