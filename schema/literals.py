"""Literals: the plain values that a program can hold as arguments, tree contexts and metadata.

Annotations of documents are evaluated where they stand, here and in the other modules of this package: msgspec needs
them, and to evaluate them later takes it four times as long as all that it does with them.
"""

from typing import Union

from msgspec import Struct


class Row(Struct, frozen=True, array_like=True):
    """A record that is written as an array: compact, and without keys that could be repeated."""


class Complex(Row, frozen=True, tag="complex"):
    """A complex number."""

    real: float
    imag: float


class DType(Row, frozen=True, tag="dtype"):
    """A ``torch.dtype``, by its name in :data:`schema.dtypes.CARRIERS` or another that torch knows."""

    name: str


class Device(Row, frozen=True, tag="device"):
    """A ``torch.device``: its type, and its index or None for the current one."""

    kind: str
    index: int | None


class Layout(Row, frozen=True, tag="layout"):
    """A ``torch.layout``, by name."""

    name: str


class MemoryFormat(Row, frozen=True, tag="memory_format"):
    """A ``torch.memory_format``, by name."""

    name: str


class OperatorName(Row, frozen=True, tag="operator"):
    """A callable that the program names, see :mod:`schema.operators`."""

    name: str


class Dots(Row, frozen=True, tag="ellipsis"):
    """Python's ``...``."""


class Items(Row, frozen=True, tag="list"):
    """A list."""

    items: list["Literal"]


class Tuple(Row, frozen=True, tag="tuple"):
    """A tuple."""

    items: list["Literal"]


class Entries(Row, frozen=True, tag="dict"):
    """A dictionary, in its own order."""

    keys: list["Literal"]
    values: list["Literal"]


class Slice(Row, frozen=True, tag="slice"):
    """A slice."""

    start: "Literal"
    stop: "Literal"
    step: "Literal"


class Shape(Row, frozen=True, tag="shape"):
    """A ``torch.Size``."""

    items: list[int]


class Member(Row, frozen=True, tag="member"):
    """A member of an enumeration: where its class is, and its name."""

    module: str
    qualname: str
    name: str


class Made(Row, frozen=True, tag="made"):
    """A dataclass instance or named tuple: where its class is, and its fields by name, in order."""

    module: str
    qualname: str
    names: list[str]
    values: list["Literal"]


class StoredTensor(Row, frozen=True, tag="tensor"):
    """A tensor in the state of an object, by its place in the manifest's table of tensors."""

    tensor: int


# A runtime union: msgspec resolves the forward references above through this module.
Literal = Union[  # noqa: UP007
    None,
    bool,
    int,
    float,
    str,
    Complex,
    DType,
    Device,
    Layout,
    MemoryFormat,
    OperatorName,
    Dots,
    Items,
    Tuple,
    Entries,
    Slice,
    Shape,
    Member,
    Made,
    StoredTensor,
]
"""A plain value. ``StoredTensor`` is for states of objects alone, and the three before it are for contexts of wrapper
subclasses alone, since classes come with them."""
