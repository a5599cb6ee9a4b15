"""Literals to plain Python and torch values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from loader.devices import Devices
from loader.operators import Operators
from schema import literals
from schema.errors import FormatError, Loc

_LAYOUTS = ("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "_mkldnn", "jagged")
_MEMORY_FORMATS = ("contiguous_format", "channels_last", "channels_last_3d", "preserve_format")


def torch_constants(names: tuple[str, ...], kind: type) -> dict[str, Any]:
    """Those of torch's constants of one type that this torch has, by name."""
    return {name: value for name in names if isinstance(value := getattr(torch, name, None), kind)}


_Dtype = torch.dtype
DTYPES = {name: value for name, value in vars(torch).items() if type(value) is _Dtype}
"""Every element type that this torch has, by name."""

_CONSTANTS: dict[type, dict[str, Any]] = {
    literals.DType: DTYPES,
    literals.Layout: torch_constants(_LAYOUTS, torch.layout),
    literals.MemoryFormat: torch_constants(_MEMORY_FORMATS, torch.memory_format),
}


class LiteralBuilder:
    """Builds values of literals.

    Args:
        devices: Where recorded devices are put.
        operators: How callables are found.
    """

    def __init__(self, devices: Devices, operators: Operators) -> None:
        self._devices = devices
        self._operators = operators
        self._builders: dict[type, Callable[[Any, Loc], Any]] = {
            literals.Complex: lambda row, _: complex(row.real, row.imag),
            literals.DType: torch_constant,
            literals.Layout: torch_constant,
            literals.MemoryFormat: torch_constant,
            literals.Device: lambda row, _: self.device(row),
            literals.OperatorName: lambda row, loc: self._operators.resolve(row.name, loc),
            literals.Dots: lambda _row, _: ...,
            literals.Items: lambda row, loc: [self.build(item, loc) for item in row.items],
            literals.Tuple: lambda row, loc: tuple(self.build(item, loc) for item in row.items),
            literals.Entries: self._entries,
            literals.Slice: lambda row, loc: slice(*(self.build(x, loc) for x in (row.start, row.stop, row.step))),
            **dict.fromkeys((literals.Shape, literals.Member, literals.Made), _refuse_object),
            literals.StoredTensor: _refuse_tensor,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return LiteralBuilder, (self._devices, self._operators)

    def build(self, literal: literals.Literal, loc: Loc) -> Any:
        """The value of a literal.

        Raises:
            FormatError: It names something that this torch does not have, or its parts do not fit.
        """
        builder = self._builders.get(type(literal))
        return builder(literal, loc) if builder else literal

    def device(self, row: literals.Device) -> torch.device:
        """The device to use where the archive has ``row``."""
        return self._devices.place(row.kind if row.index is None else f"{row.kind}:{row.index}")

    def _entries(self, row: literals.Entries, loc: Loc) -> dict[Any, Any]:
        keys, values = ([self.build(each, loc) for each in part] for part in (row.keys, row.values))
        try:
            return dict(zip(keys, values, strict=True))
        except (TypeError, ValueError) as error:
            raise FormatError(f"not a valid dictionary: {error}", loc=loc) from error


def _refuse_object(row: Any, loc: Loc) -> Any:
    raise FormatError(f"a {type(row).__name__.lower()} outside of a wrapper subclass", loc=loc)


def _refuse_tensor(_row: Any, loc: Loc) -> Any:
    raise FormatError("a tensor outside of the state of an object", loc=loc)


def torch_constant(row: Any, loc: Loc) -> Any:
    """The dtype, layout or memory format that a row names.

    Raises:
        FormatError: This torch has none of that name.
    """
    found = _CONSTANTS[type(row)].get(row.name)
    if found is None:
        remedy = "use a torch that has it"
        raise FormatError(f"torch {torch.__version__} has no {row.name[:80]!r}", loc=loc, remedy=remedy)
    return found


def check_gradient(dtype: torch.dtype, loc: Loc) -> None:
    """Refuse a gradient to elements of a type that has none.

    Raises:
        FormatError: It has none.
    """
    if not (dtype.is_floating_point or dtype.is_complex):
        raise FormatError(f"a tensor of {dtype} has no gradient", loc=loc)
