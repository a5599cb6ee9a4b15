"""Plain Python and torch values to literals."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.fx.immutable_collections import immutable_dict, immutable_list

from exporter.emit.operators import emit_operator
from schema import literals
from schema.errors import Loc, UnsupportedError
from schema.names import is_encodable
from schema.operators import FLAT_APPLY

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    Emit = Callable[[Any, Loc], literals.Literal]

_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


@cache
def torch_name(value: Hashable) -> str:
    """The name of one of torch's own constants, such as ``float32``, without the ``torch.``."""
    return str(value).removeprefix("torch.")


def emit_device(device: torch.device) -> literals.Device:
    """A device, with its index if it has one."""
    return literals.Device(device.type, device.index)


def _emit_integer(value: int, loc: Loc, _: Emit) -> int:
    if not _SMALLEST <= value <= _LARGEST:
        raise UnsupportedError(f"the whole number {value} does not fit in 64 bits", loc=loc)
    return int(value)


def _emit_string(value: str, loc: Loc, _: Emit) -> str:
    if not is_encodable(value):
        raise UnsupportedError(f"the text {value[:80]!r} is no Unicode: it holds half of a surrogate pair", loc=loc)
    return str.__str__(value)


def _emit_slice(value: slice, loc: Loc, emit: Emit) -> literals.Slice:
    return literals.Slice(*(emit(part, loc) for part in (value.start, value.stop, value.step)))


def _emit_dict(value: dict[Any, Any], loc: Loc, emit: Emit) -> literals.Entries:
    keys = [emit(key, loc) for key in value]
    return literals.Entries(keys, [emit(item, (*loc, str(key))) for key, item in value.items()])


def _emit_items(value: list[Any], loc: Loc, emit: Emit) -> literals.Items:
    return literals.Items([emit(item, loc) for item in value])


def _emit_tuple(value: tuple[Any, ...], loc: Loc, emit: Emit) -> literals.Tuple:
    return literals.Tuple([emit(item, loc) for item in value])


_EMITTERS: dict[type, Callable[[Any, Loc, Emit], literals.Literal]] = {
    type(None): lambda value, *_: value,
    bool: lambda value, *_: value,
    int: _emit_integer,
    float: lambda value, *_: float(value),
    complex: lambda value, *_: literals.Complex(float(value.real), float(value.imag)),
    str: _emit_string,
    torch.dtype: lambda value, *_: literals.DType(torch_name(value)),
    torch.device: lambda value, *_: emit_device(value),
    torch.layout: lambda value, *_: literals.Layout(torch_name(value)),
    torch.memory_format: lambda value, *_: literals.MemoryFormat(torch_name(value)),
    type(...): lambda *_: literals.Dots(),
    list: _emit_items,
    immutable_list: _emit_items,
    tuple: _emit_tuple,
    dict: _emit_dict,
    immutable_dict: _emit_dict,
    slice: _emit_slice,
}
"""How values of a type are emitted. A class derived from one of these containers behaves in its own way: it is none."""

_SCALARS = (int, float, complex, str)
"""Types of which values of derived classes, such as enumerations and NumPy's numbers, stand for plain ones."""


def emit_literal(value: object, loc: Loc) -> literals.Literal:
    """A literal that gives the same value back; lists stay lists and tuples tuples.

    Raises:
        UnsupportedError: The value is of no kind that an archive can hold.
    """
    return emit_with(emit_literal, value, loc)


def emit_with(emit_inner: Emit, value: object, loc: Loc) -> literals.Literal:
    """A literal as :func:`emit_literal` gives it, with another function for the values inside of it."""
    kind = type(value)
    kind = kind if kind in _EMITTERS else next((plain for plain in _SCALARS if isinstance(value, plain)), kind)
    if emit := _EMITTERS.get(kind):
        return emit(value, loc, emit_inner)
    if callable(value):
        name = emit_operator(value, loc)
        if name == f"higher_order::{FLAT_APPLY}":
            raise UnsupportedError(f"{FLAT_APPLY} is an argument of a node, and may only be called", loc=loc)
        return literals.OperatorName(name)
    remedy = "pass plain values, or tensors, across the border of the program"
    raise UnsupportedError(f"a value of type {type(value).__qualname__} cannot be stored", loc=loc, remedy=remedy)
