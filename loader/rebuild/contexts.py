"""Contexts of wrapper subclasses: literals that may also hold objects of classes that the caller admits."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch

from loader.devices import Devices
from loader.operators import Operators
from loader.rebuild.literals import LiteralBuilder
from loader.tensor_classes import TensorClasses
from loader.torch_internals import is_record_class
from schema import literals
from schema.errors import FormatError, Loc


class ContextBuilder(LiteralBuilder):
    """Builds contexts.

    Args:
        devices: Where recorded devices are put.
        operators: How callables are found.
        classes: How classes are found.
    """

    def __init__(self, devices: Devices, operators: Operators, classes: TensorClasses) -> None:
        super().__init__(devices, operators)
        self._classes = classes
        self._builders[literals.Shape] = lambda row, _: torch.Size(row.items)
        self._builders[literals.Member] = self._member
        self._builders[literals.Made] = self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return ContextBuilder, (self._devices, self._operators, self._classes)

    def _member(self, row: literals.Member, loc: Loc) -> Any:
        kind: Any = self._classes.find(row.module, row.qualname, "enumeration", _is_enumeration, loc)
        if row.name not in kind.__members__:
            raise FormatError(f"{row.qualname} has no member {row.name[:80]!r}", loc=loc)
        return kind.__members__[row.name]

    def _made(self, row: literals.Made, loc: Loc) -> Any:
        kind = self._classes.find(row.module, row.qualname, "dataclass or named tuple", is_record_class, loc)
        fields = {name: self.build(value, loc) for name, value in zip(row.names, row.values, strict=True)}
        try:
            return kind(**fields)
        except Exception as error:  # whatever the class raises
            message = f"{row.qualname} cannot be made of its fields: {type(error).__name__} {error}"
            raise FormatError(message, loc=loc) from error


def _is_enumeration(kind: type) -> bool:
    return issubclass(kind, Enum)
