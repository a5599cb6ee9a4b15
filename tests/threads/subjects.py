"""Archives to load, and what is right to get from each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import archive
import exporter
import loader
from loader.torch_internals import pytree
from tests.models import Case, cases
from tests.program_equality import same

NAMES = ("tied", "nested", "dynamic", "branch", "odd", "arguments", "shaped", "counter")


@dataclasses.dataclass(frozen=True)
class Subject:
    """An archive.

    Attributes:
        path: Where it is.
        args: Positional arguments for its program.
        kwargs: Keyword arguments for it.
        expected: What each way to use it gives.
    """

    path: Path
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    expected: dict[str, Any] = dataclasses.field(default_factory=dict)

    def use(self, way: str) -> Any:
        """Use the archive in one of the ways."""
        return WAYS[way](self)

    def check(self, way: str) -> None:
        """Use the archive in one of the ways.

        Raises:
            AssertionError: The result is not what it must be.
        """
        found = self.use(way)
        assert same(found, self.expected[way]), f"{way} of {self.path.name} gave something else"

    def run(self, function: Callable[..., Any]) -> list[Any]:
        """The flat outputs of a program, for inputs of their own, which it may change."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (self.args, self.kwargs))
        with torch.random.fork_rng(), torch.no_grad():
            leaves: list[Any] = pytree.tree_leaves(function(*args, **kwargs))
        return leaves


def _load(subject: Subject) -> Any:
    program = loader.load(subject.path)
    return str(program.graph), str(program.graph_signature), subject.run(program.module())


def _verify(subject: Subject) -> Any:
    return [(check.name, check.ok, check.detail) for check in loader.verify(subject.path).checks]


WAYS: dict[str, Callable[[Subject], Any]] = {
    "load": _load,
    "load_module": lambda subject: subject.run(loader.load_module(subject.path)),
    "load_module, copied and checked": lambda subject: subject.run(
        loader.load_module(subject.path, mmap=False, verify="full")
    ),
    "verify": _verify,
    "inspect": lambda subject: str(archive.inspect(subject.path)),
}
"""What can be done with an archive; each gives the same every time."""


def write_subject(path: Path, case: Case) -> Subject:
    """Write an archive, and note what each way to use it gives."""
    program = exporter.export(
        case.module, case.args, case.kwargs, path=path, dynamic_shapes=case.dynamic_shapes, record_outputs=True
    )
    assert program.example_inputs is not None
    subject = Subject(path, *program.example_inputs)
    subject.expected.update({way: subject.use(way) for way in WAYS})
    return subject


def write_subjects(folder: Path) -> dict[str, Subject]:
    """Archives of small models of every kind, by name."""
    known = cases()
    return {name: write_subject(folder / f"{name}.program.safetensors", known[name]()) for name in NAMES}
