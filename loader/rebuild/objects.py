"""Script objects, made of their states by their classes' own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.export.graph_signature import CustomObjArgument

from loader.rebuild.literals import LiteralBuilder
from loader.rebuild.tensors import TensorBuilder
from loader.script_classes import ScriptClasses
from loader.torch_internals import fake_script_object, make_script_object, qualified_class_name
from schema import graph as documents, literals
from schema.errors import ArchiveError, FormatError, Loc
from schema.manifest import Object


class ObjectBuilder:
    """Builds the script objects of an archive, each once.

    Args:
        rows: The manifest's table of objects.
        literals: Builds what their states hold but tensors.
        tensors: Builds tensors.
        classes: Says which classes are admitted.
    """

    def __init__(
        self, rows: Sequence[Object], literals: LiteralBuilder, tensors: TensorBuilder, classes: ScriptClasses
    ) -> None:
        self._rows = rows
        self._literals = literals
        self._tensors = tensors
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
            with _failing_as(f"{row.name} cannot be made of its state", loc):
                self._objects[place] = make_script_object(row.name, self._state(row.state, loc))
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

    def _state(self, row: literals.Literal, loc: Loc) -> Any:
        """The value of a literal that may hold tensors. No closure: one would keep the file of a failed load open."""
        match row:
            case literals.StoredTensor(place):
                return self._tensors.at(place, loc)
            case literals.Items(items):
                return [self._state(item, loc) for item in items]
            case literals.Tuple(items):
                return tuple([self._state(item, loc) for item in items])
            case literals.Entries(keys, values):
                return {self._literals.build(k, loc): self._state(v, loc) for k, v in zip(keys, values, strict=True)}
        return self._literals.build(row, loc)


def build_inputs(values: Sequence[documents.Value], objects: ObjectBuilder, mode: Any) -> dict[str, CustomObjArgument]:
    """The script objects among the inputs of graphs, by name of the placeholder.

    Args:
        values: The table of values.
        objects: Builds what stands for them in a trace.
        mode: The mode of fake tensors.

    Raises:
        ClassError: A class is not admitted, or not there.
        FormatError: There is no such object, or it cannot be faked.
    """
    inputs = {}
    for place, row in enumerate(values):
        if isinstance(row, documents.ObjectValue):
            loc: Loc = ("graph", "values", place)
            objects.classes.check(row.kind, loc)
            fake = None if row.fake is None else objects.fake(row.fake, row.kind, mode, loc)
            inputs[row.name] = CustomObjArgument(row.name, qualified_class_name(row.kind), fake)
    return inputs


@contextmanager
def _failing_as(message: str, loc: Loc) -> Iterator[None]:
    """Turn whatever a class raises into one error of ours."""
    try:
        yield
    except ArchiveError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{message}: {reason[:400]}", loc=loc) from error
