"""Contexts of wrapper subclasses to literals: beside plain values, what libraries describe a quantization with."""

from __future__ import annotations

import dataclasses
import sys
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch

from exporter.emit.literals import emit_with
from exporter.torch_internals import pytree
from schema import literals
from schema.errors import Loc, UnsupportedError
from schema.names import is_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def emit_context(value: object, loc: Loc) -> literals.Literal:
    """A literal that gives the same value back, which may be or hold an object of a class.

    Raises:
        UnsupportedError: The value is of no kind that an archive can hold.
    """
    for holds, emit in _OBJECTS:
        if holds(value):
            return emit(value, loc)
    return emit_with(emit_context, value, loc)


def emit_class(kind: type, loc: Loc) -> tuple[str, str]:
    """Where a class is: its module, and its name in it.

    Raises:
        UnsupportedError: It is not there, as one that is defined inside a function is not.
    """
    module, name = kind.__module__, kind.__qualname__
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not kind or not is_class(module, name):
        message = f"the class {name} is not in {module}, so that no reader would find it"
        raise UnsupportedError(message, loc=loc, remedy="define the class at the top of a module, under its own name")
    return module, name


def _member(value: Enum, loc: Loc) -> literals.Member:
    kind = type(value)
    if kind.__members__.get(value.name) is not value:
        raise UnsupportedError(f"{value!r} is no single member of {kind.__qualname__}", loc=loc)
    return literals.Member(*emit_class(kind, loc), value.name)


def _dataclass(value: Any, loc: Loc) -> literals.Made:
    fields = dataclasses.fields(value)
    names = {field.name for field in fields if field.init}
    # Whatever else it has, its constructor would not get.
    if others := sorted({field.name for field in fields} ^ names | getattr(value, "__dict__", {}).keys() - names):
        message = f"{type(value).__qualname__}.{others[0]} is no argument of its constructor"
        raise UnsupportedError(message, loc=loc)
    return _made(value, {field.name: getattr(value, field.name) for field in fields}, loc)


def _made(value: Any, fields: Mapping[str, Any], loc: Loc) -> literals.Made:
    values = [emit_context(item, (*loc, name)) for name, item in fields.items()]
    return literals.Made(*emit_class(type(value), loc), list(fields), values)


_OBJECTS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Loc], literals.Literal]], ...] = (
    (lambda value: isinstance(value, Enum), _member),
    (lambda value: dataclasses.is_dataclass(type(value)), _dataclass),
    (lambda value: pytree.is_namedtuple_class(type(value)), lambda value, loc: _made(value, value._asdict(), loc)),
    (lambda value: type(value) is torch.Size, lambda value, _: literals.Shape(list(value))),
)
"""What only contexts can hold, in the order in which it is asked, and how it is emitted."""
