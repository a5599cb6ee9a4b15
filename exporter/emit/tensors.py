"""Tensors as views of storages, and storages as blobs that point at their memory.

Each distinct storage is stored once. Where one contiguous tensor covers it, it is stored under that tensor's name,
type and shape, so that every reader of safetensors finds it; the others are views of it. A storage that no tensor
covers so (a transposed weight, a slice of something larger) is stored flat under a reserved name, because under the
tensor's own name another reader would take it for what it is not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from msgspec.structs import replace

from archive.composites import is_composite
from archive.structure import contiguous_strides, is_contiguous
from archive.writing import Blob
from exporter.emit.composites import take_apart
from exporter.emit.literals import torch_name
from exporter.torch_internals import FakeTensor, is_traceable_wrapper_subclass, is_zero_tensor
from schema import manifest as documents
from schema.dtypes import CARRIERS, SPARSE_LAYOUTS, stored_shape
from schema.errors import Loc, UnsupportedError
from schema.names import RESERVED, STORAGES, constant_names, part_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class _Memory(NamedTuple):
    """One storage: its first tensor, and where its bytes are on the CPU."""

    first: str
    bytes: torch.Tensor


class TensorTable:
    """Collects tensors by name, and the storages that they are views of."""

    def __init__(self) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        self._places: dict[str, int] = {}
        self._objects: dict[int, int] = {}
        self._storage_places: dict[tuple[str, int], int] = {}
        self._memories: list[_Memory] = []
        self._rows: list[documents.Tensor] = []

    def place(self, name: str, tensor: torch.Tensor, *, reserved: bool = False) -> int:
        """Place of a tensor in the table of tensors, to which it is added if it is new.

        Args:
            name: The name to store it under.
            tensor: The tensor; the same one under the same name is placed once.
            reserved: Whether the name may begin with one of our own prefixes.

        Raises:
            UnsupportedError: It is of a kind that no archive can hold, or another tensor has that name.
        """
        known = self._tensors.get(name)
        if known is not None:
            if not _same_view(known, tensor):
                raise UnsupportedError(f"two tensors are named {name}", loc=(name,))
            return self._places[name]
        if not reserved and name.startswith(RESERVED):
            raise UnsupportedError(f"the name begins with {name.split('/')[0]}/, which is reserved", loc=(name,))
        self._tensors[name] = tensor
        row = self._row(name, tensor)
        self._places[name] = len(self._rows)
        self._objects.setdefault(id(tensor), len(self._rows))
        self._rows.append(row)
        return self._places[name]

    def finish(self) -> tuple[list[documents.Tensor], list[Blob]]:
        """Every tensor, and one blob for every storage in the order of the table of storages."""
        owners: dict[int, documents.Tensor] = {}
        widths: dict[int, int] = {}
        for row in self._rows:
            if is_composite(row):
                continue
            widths[row.storage] = max(CARRIERS[row.dtype].nbytes, widths.get(row.storage, 1))
            whole = row.offset == 0 and _nbytes(row) == self._memories[row.storage].bytes.numel()
            if whole and is_contiguous(row.shape, row.strides) and not (row.conjugate or row.negative):
                owners.setdefault(row.storage, row)
        blobs = [
            _owned_blob(memory, owners[place]) if place in owners else _flat_blob(memory, widths[place])
            for place, memory in enumerate(self._memories)
        ]
        return self._rows, blobs

    def _row(self, name: str, tensor: torch.Tensor) -> documents.Tensor:
        first = self._objects.get(id(tensor))
        if first is not None:
            return replace(self._rows[first], name=name, tied=first)
        _check_storable(tensor, (name,))
        fields: dict[str, Any] = {
            "name": name,
            "dtype": torch_name(tensor.dtype),
            "shape": list(tensor.shape),
            "strides": _strides(tensor),
            "device": str(tensor.device),
            "requires_grad": tensor.requires_grad,
            "parameter": isinstance(tensor, torch.nn.Parameter),
        }
        composite = take_apart(tensor, (name,))
        if composite is None:
            return documents.Tensor(**fields, **self._view(name, tensor))
        places = [self.place(part_name(name, key), part, reserved=True) for key, part in composite.parts.items()]
        return documents.Tensor(**fields, storage=-1, **composite.fields(places))

    def _view(self, name: str, tensor: torch.Tensor) -> dict[str, Any]:
        return {
            "storage": self._storage(name, tensor),
            "offset": int(tensor.storage_offset()),
            "conjugate": tensor.is_conj(),
            "negative": tensor.is_neg(),
        }

    def _storage(self, name: str, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        # An empty storage has no address of its own, so none is shared.
        key = (str(tensor.device), storage.data_ptr()) if storage.nbytes() else (name, 0)
        place = self._storage_places.setdefault(key, len(self._memories))
        if place == len(self._memories):
            content = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
            self._memories.append(_Memory(name, content.cpu()))
        return place


def _strides(tensor: torch.Tensor) -> list[int] | None:
    """Strides of a tensor, None if they are those of elements that follow each other, or if its layout has none."""
    if tensor.layout is not torch.strided:
        return None
    strides = list(tensor.stride())
    return None if strides == contiguous_strides(tensor.shape) else strides


def _same_view(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (
        {type(one), type(other)} <= set(_PLAIN_TYPES)
        and one.layout is other.layout is torch.strided
        and one.data_ptr() == other.data_ptr()
        and _geometry(one) == _geometry(other)
    )


def _geometry(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.device, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg()


_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
_LAYOUTS = ("strided", *SPARSE_LAYOUTS)

_NOT_STORED: tuple[tuple[Callable[[torch.Tensor], bool], Callable[[torch.Tensor], str], str], ...] = (
    (
        lambda t: t.is_meta or isinstance(t, FakeTensor),
        lambda t: f"tensor without data ({'device meta' if t.is_meta else 'a fake one'})",
        "give the program its weights first",
    ),
    (lambda t: t.is_nested, lambda _: "nested tensor", "store its values and offsets"),
    (
        lambda t: type(t) not in _PLAIN_TYPES and not is_traceable_wrapper_subclass(t),
        lambda t: f"tensor of type {type(t).__qualname__}",
        "convert it to a plain tensor first, or let its class define __tensor_flatten__",
    ),
    (
        lambda t: t.is_quantized,
        lambda t: f"quantized tensor of {t.dtype}",
        "store its int_repr(), scale and zero point, and compute with those",
    ),
    (
        lambda t: torch_name(t.layout) not in _LAYOUTS,
        lambda t: f"tensor of layout {torch_name(t.layout)}",
        "convert it to a plain tensor first",
    ),
    (is_zero_tensor, lambda _: "tensor of zeros without memory", "clone it first"),
    (
        lambda t: torch_name(t.dtype) not in CARRIERS,
        lambda t: f"tensor of type {t.dtype}",
        "convert it to another type first",
    ),
)
"""What no archive can hold, in the order in which it is asked, how to say so, and what to do about it."""


def _check_storable(tensor: torch.Tensor, loc: Loc) -> None:
    for holds, describe, remedy in _NOT_STORED:
        if holds(tensor):
            raise UnsupportedError(f"a {describe(tensor)} cannot be stored", loc=loc, remedy=remedy)


def _nbytes(row: documents.Tensor) -> int:
    return math.prod(row.shape) * CARRIERS[row.dtype].nbytes


def _owned_blob(memory: _Memory, owner: documents.Tensor) -> Blob:
    """A storage as the tensor that covers it."""
    code, shape, content = CARRIERS[owner.dtype].code, stored_shape(owner.dtype, owner.shape), memory.bytes
    return Blob(owner.name, code, shape, content.data_ptr(), content.numel(), content)


def _flat_blob(memory: _Memory, width: int) -> Blob:
    """A storage that no tensor covers, as integers of its views' width, so that safetensors aligns it for them."""
    content, nbytes = memory.bytes, memory.bytes.numel()
    width = next(size for size in (8, 4, 2, 1) if size <= width and nbytes % size == 0)
    return Blob(STORAGES + memory.first, f"U{8 * width}", (nbytes // width,), content.data_ptr(), nbytes, content)


def constant_name(method: str, fqn: str, taken: Mapping[str, torch.Tensor], tensor: torch.Tensor) -> str:
    """The name to store a constant under: its FQN, with the method's name before it if another has that one."""
    known = taken.get(fqn)
    shared, own = constant_names(method, fqn)
    return shared if known is None or _same_view(known, tensor) else own
