"""Script objects: what their classes give as their state, in plain values and tensors."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch

from exporter.capture.objects import identity
from exporter.emit.literals import emit_with
from exporter.emit.providers import find_class_provider
from exporter.torch_internals import FakeScriptObject, is_torchbind_object
from schema import literals
from schema.errors import Loc, UnsupportedError
from schema.manifest import Object
from schema.names import is_script_class, state_name

if TYPE_CHECKING:
    from exporter.emit.tensors import TensorTable

_REMEDY = "keep its data in parameters, buffers or other tensors"


def emit_class_name(qualified_name: str, loc: Loc) -> str:
    """The name by which Python reaches a class of script objects, of the name that torch gives it.

    Raises:
        UnsupportedError: It is no such class: its objects are those of Python.
    """
    name = qualified_name.removeprefix("__torch__.")
    if not is_script_class(name):
        message = f"an object of class {name} cannot be stored: only classes that a library registers say what to store"
        raise UnsupportedError(message, loc=loc, remedy=_REMEDY)
    return name


class ObjectTable:
    """Collects script objects, each once, and the tensors in their states.

    Args:
        tensors: Collects tensors.

    Attributes:
        rows: The table of objects.
    """

    def __init__(self, tensors: TensorTable) -> None:
        self._tensors = tensors
        self._places: dict[int, int] = {}
        self._seen: list[torch.ScriptObject] = []
        self.rows: list[Object] = []

    def place(self, value: Any, loc: Loc) -> int:
        """The place of an object, or of the one that a fake stands for.

        Raises:
            UnsupportedError: It is no script object, or its class gives no state of plain values and tensors.
        """
        value = value.real_obj if isinstance(value, FakeScriptObject) else value
        if not is_torchbind_object(value):
            message = f"an object of type {type(value).__qualname__} cannot be stored"
            raise UnsupportedError(message, loc=loc, remedy=_REMEDY)
        key = identity(value)
        if key not in self._places:
            self._places[key] = len(self.rows)
            self._seen.append(value)  # while it lives, no other is told by the same
            self.rows.append(self._row(value, loc))
        return self._places[key]

    def _row(self, value: Any, loc: Loc) -> Object:
        name = emit_class_name(value._type().qualified_name(), loc)
        if not {"__getstate__", "__setstate__"} <= set(value._method_names()):
            message = f"an object of class {name} cannot be stored: the class does not say what its state is"
            raise UnsupportedError(message, loc=loc, remedy=f"give the class def_pickle, or {_REMEDY}")
        tensors = itertools.count()

        def emit(part: object, where: Loc) -> literals.Literal:
            if isinstance(part, torch.Tensor):
                stored = state_name(len(self.rows), next(tensors))
                return literals.StoredTensor(self._tensors.place(stored, part, reserved=True))
            return emit_with(emit, part, where)

        try:
            state, _ = value.__getstate__()
            literal = emit(state, loc)
        except (RuntimeError, UnsupportedError) as error:
            reason = str(error.message if isinstance(error, UnsupportedError) else error).strip().splitlines()[0]
            message = f"the state of an object of class {name} cannot be stored: {reason}"
            remedy = f"let its def_pickle give plain values and tensors, or {_REMEDY}"
            raise UnsupportedError(message, loc=loc, remedy=remedy) from error
        return Object(name=name, state=literal, provider=find_class_provider(name.split(".")[2]))
