"""How the cases are written: a function that makes a module and its arguments, registered under its name."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, NamedTuple

import torch

from exporter.capture import capture
from tests.program_equality import assert_equal_programs


class Pair(NamedTuple):
    """A container with names."""

    left: torch.Tensor
    right: torch.Tensor


@dataclasses.dataclass
class Batch:
    """A registered dataclass: its fields are inputs."""

    images: torch.Tensor
    labels: list[torch.Tensor]


torch.export.register_dataclass(Batch, serialized_type_name="test_capture.Batch")


class Module(torch.nn.Module):
    """A module made of a function and of what it needs."""

    def __init__(self, function: Any, *, buffers: dict[str, Any] | None = None, **attributes: Any) -> None:
        super().__init__()
        for key, (value, persistent) in (buffers or {}).items():
            self.register_buffer(key, value, persistent=persistent)
        for key, value in attributes.items():
            setattr(self, key, value)
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


@dataclasses.dataclass
class Case:
    """A module and how it is captured."""

    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    shapes: Any = None


def both(case: Case, *, strict: bool = False) -> torch.export.ExportedProgram:
    """Capture with both pipelines and compare the programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, and attribute assignments: both pipelines warn of those
        expected = torch.export.export(case.module, case.args, case.kwargs, dynamic_shapes=case.shapes, strict=strict)
        actual = capture(case.module, case.args, case.kwargs, dynamic_shapes=case.shapes, strict=strict)
    assert_equal_programs(actual, expected, same_tensors=True)
    return actual


CASES: dict[str, Any] = {}


def case(make: Any) -> Any:
    """Register a function that makes a Case."""
    CASES[make.__name__] = make
    return make
