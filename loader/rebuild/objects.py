"""Script objects, made of their states by their classes' own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from archive.reading import ArchiveFile
from loader.devices import Devices
from loader.operators import Operators
from loader.rebuild.literals import LiteralBuilder
from loader.rebuild.tensors import TensorBuilder
from loader.script_classes import ScriptClasses
from loader.torch_internals import fake_script_object, make_script_object
from schema import literals
from schema.errors import FormatError, Loc


class StateBuilder(LiteralBuilder):
    """Builds states: literals that may also hold tensors of the archive.

    Args:
        devices: Where recorded devices are put.
        operators: How callables are found.
        tensors: Builds tensors.
    """

    def __init__(self, devices: Devices, operators: Operators, tensors: TensorBuilder) -> None:
        super().__init__(devices, operators)
        self._builders[literals.StoredTensor] = lambda row, loc: tensors.at(row.tensor, loc)


class ObjectBuilder:
    """Builds the script objects of an archive, each once.

    Args:
        archive: The archive.
        states: Builds their states.
        classes: Says which classes are admitted.
    """

    def __init__(self, archive: ArchiveFile, states: StateBuilder, classes: ScriptClasses) -> None:
        self._rows = archive.manifest.objects
        self._states = states
        self._objects: dict[int, torch.ScriptObject] = {}
        self.classes = classes

    def build(self, place: int) -> torch.ScriptObject:
        """The object at a place of the manifest's table, which has been checked when the archive was opened.

        Raises:
            ClassError: Its class is not admitted, or not there.
            FormatError: Its class cannot make it of its state.
        """
        if place not in self._objects:
            row, loc = self._rows[place], ("objects", place)
            self.classes.check(row.name, loc)
            state = self._states.build(row.state, (*loc, "state"))
            with _failing_as(f"{row.name} cannot be made of its state", loc):
                self._objects[place] = make_script_object(row.name, state)
        return self._objects[place]

    def fake(self, place: int, name: str, mode: Any, loc: Loc) -> Any:
        """What stands for an object of a class in a trace; None if none is registered here as the fake of the class.

        Raises:
            ClassError: The class is not admitted, or not there.
            FormatError: There is no such object, or it cannot be faked.
        """
        if not 0 <= place < len(self._rows) or self._rows[place].name != name:
            raise FormatError(f"no object {place} of class {name}", loc=loc)
        made = self.build(place)
        with _failing_as(f"nothing can stand for a {name} in a trace", loc):
            return fake_script_object(mode, made)


@contextmanager
def _failing_as(message: str, loc: Loc) -> Iterator[None]:
    """Turn whatever a class raises into one error of ours."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{message}: {reason[:400]}", loc=loc) from error
