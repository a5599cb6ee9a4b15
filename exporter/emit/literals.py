"""Plain Python and torch values to literals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from exporter.emit.operators import emit_operator
from schema import literals
from schema.errors import Loc, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

_INTEGERS = range(-(2**63), 2**64)


def torch_name(value: object) -> str:
    """The name of one of torch's own constants, such as ``float32``, without the ``torch.``."""
    return str(value).removeprefix("torch.")


def emit_device(device: torch.device) -> literals.Device:
    """A device, with its index if it has one."""
    return literals.Device(device.type, device.index)


def _emit_integer(value: int, loc: Loc) -> int:
    if value not in _INTEGERS:
        raise UnsupportedError(f"the whole number {value} does not fit in 64 bits", loc=loc)
    return value


def _emit_slice(value: slice, loc: Loc) -> literals.Slice:
    return literals.Slice(*(emit_literal(part, loc) for part in (value.start, value.stop, value.step)))


def _emit_dict(value: dict[Any, Any], loc: Loc) -> literals.Entries:
    keys = [emit_literal(key, loc) for key in value]
    return literals.Entries(keys, [emit_literal(item, (*loc, str(key))) for key, item in value.items()])


_EMITTERS: tuple[tuple[type | tuple[type, ...], Callable[[Any, Loc], literals.Literal]], ...] = (
    ((bool, float, str, type(None)), lambda value, _: value),
    (int, _emit_integer),
    (complex, lambda value, _: literals.Complex(value.real, value.imag)),
    (torch.dtype, lambda value, _: literals.DType(torch_name(value))),
    (torch.device, lambda value, _: emit_device(value)),
    (torch.layout, lambda value, _: literals.Layout(torch_name(value))),
    (torch.memory_format, lambda value, _: literals.MemoryFormat(torch_name(value))),
    (type(...), lambda _value, _: literals.Dots()),
    (list, lambda value, loc: literals.Items([emit_literal(item, loc) for item in value])),
    (tuple, lambda value, loc: literals.Tuple([emit_literal(item, loc) for item in value])),
    (dict, _emit_dict),
    (slice, _emit_slice),
)


def emit_literal(value: object, loc: Loc) -> literals.Literal:
    """A literal that gives the same value back; lists stay lists and tuples tuples.

    Raises:
        UnsupportedError: The value is of no kind that an archive can hold.
    """
    for kinds, emit in _EMITTERS:
        if isinstance(value, kinds):
            return emit(value, loc)
    if callable(value):
        return literals.OperatorName(emit_operator(value, loc))
    remedy = "pass plain values, or tensors, across the border of the program"
    raise UnsupportedError(f"a value of type {type(value).__qualname__} cannot be stored", loc=loc, remedy=remedy)
