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

from archive.composites import is_composite, is_plain
from archive.structure import contiguous_strides, is_contiguous, most_absent
from archive.writing import Blob
from exporter.emit.composites import take_apart
from exporter.emit.literals import torch_name
from exporter.torch_internals import FakeTensor, is_functorch_wrapped, is_traceable_wrapper_subclass, is_zero_tensor
from schema import manifest as documents
from schema.dtypes import CARRIERS, SPARSE_LAYOUTS, stored_shape
from schema.errors import Loc, UnsupportedError
from schema.names import RESERVED, STORAGES, constant_names, part_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class _Memory(NamedTuple):
    """One storage: its first tensor, its size in bytes, and whether the archive leaves them out."""

    first: str
    storage: torch.UntypedStorage
    nbytes: int
    absent: bool


class Stored(NamedTuple):
    """What the tensors of some programs are written from: two tables of the manifest, and the bytes."""

    tensors: list[documents.Tensor]
    storages: list[documents.Storage]
    blobs: list[Blob]


class TensorTable:
    """Collects tensors by name, and the storages that they are views of.

    Args:
        weights: Whether bytes of parameters and persistent buffers are stored. Tensors on the meta device have none.
    """

    def __init__(self, *, weights: bool = True) -> None:
        self._weights = weights
        self._tensors: dict[str, torch.Tensor] = {}
        self._places: dict[str, int] = {}
        self._objects: dict[int, int] = {}
        self._storage_places: dict[tuple[torch.device | str, int], int] = {}
        self._memories: list[_Memory] = []
        self._rows: list[documents.Tensor] = []
        self._absent: set[str] = set()

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
        return self._add(name, tensor, absent=not (reserved or self._weights))

    def _add(self, name: str, tensor: torch.Tensor, *, absent: bool) -> int:
        self._tensors[name] = tensor
        row = self._row(name, tensor, absent=absent)
        if absent:
            self._absent.add(name)
        self._places[name] = len(self._rows)
        self._objects.setdefault(id(tensor), len(self._rows))
        self._rows.append(row)
        return self._places[name]

    def finish(self) -> Stored:
        """Every tensor, every storage, and a blob for each storage that is not left out.

        Raises:
            UnsupportedError: What is left out cannot be made up from weights that are given later.
        """
        owners: dict[int, documents.Tensor] = {}
        widths: dict[int, int] = {}
        for row in self._rows:
            if is_composite(row):
                continue
            widths[row.storage] = max(CARRIERS[row.dtype].nbytes, widths.get(row.storage, 1))
            if self._is_whole(row):
                owners.setdefault(row.storage, row)
        blobs = {
            place: _owned_blob(memory, owners[place]) if place in owners else _flat_blob(memory, widths[place])
            for place, memory in enumerate(self._memories)
            if not memory.absent
        }
        storages = [
            documents.Storage(
                name=owners[place].name if place in owners else STORAGES + memory.first,
                nbytes=memory.nbytes,
                blake3=b"",
                absent=memory.absent,
            )
            for place, memory in enumerate(self._memories)
        ]
        self._check_absent()
        return Stored(self._rows, storages, list(blobs.values()))

    def _check_absent(self) -> None:
        """Refuse to leave out what the weights that are given later do not make up again."""
        weights: dict[int, list[documents.Tensor]] = {}
        views = [row for row in self._rows if not is_composite(row)]
        for row in views:
            if row.name in self._absent:
                weights.setdefault(row.storage, []).append(row)
        for row in views:
            memory, given = self._memories[row.storage], weights.get(row.storage, [])
            if not memory.absent or _is_hollow(memory.storage) or any(self._is_whole(each) for each in given):
                continue
            if all(_place(each) != _place(row) for each in given):
                message = f"it shares memory with {given[0].name}, which is left out and does not hold it"
                raise UnsupportedError(message, loc=(row.name,), remedy="clone it, or keep the weights")
            if memory.nbytes > most_absent(sum(map(_nbytes, given))):
                message = f"it is a small part of {memory.nbytes} bytes, and left out"
                raise UnsupportedError(message, loc=(row.name,), remedy="clone it, or keep the weights")

    def _is_whole(self, row: documents.Tensor) -> bool:
        """Whether a tensor is its whole storage, in order and as it is."""
        whole = row.offset == 0 and _nbytes(row) == self._memories[row.storage].nbytes
        return whole and is_contiguous(row.shape, row.strides) and is_plain(row)

    def _row(self, name: str, tensor: torch.Tensor, *, absent: bool) -> documents.Tensor:
        first = self._objects.get(id(tensor))
        if first is not None:
            return replace(self._rows[first], name=name, tied=first)
        _check_storable(tensor, (name,))
        if isinstance(tensor, FakeTensor) and not absent:
            remedy = "leave the weights out with weights=False" if not name.startswith(RESERVED) else ""
            raise UnsupportedError("a fake tensor has no memory to store", loc=(name,), remedy=remedy)
        return documents.Tensor(
            name=name,
            dtype=torch_name(tensor.dtype),
            shape=list(tensor.shape),
            strides=_strides(tensor),
            device=str(tensor.device),
            requires_grad=tensor.requires_grad,
            parameter=isinstance(tensor, torch.nn.Parameter),
            **self._content(name, tensor, absent=absent),
        )

    def _content(self, name: str, tensor: torch.Tensor, *, absent: bool) -> dict[str, Any]:
        """What a tensor is a view of, or made of."""
        composite = take_apart(tensor, (name,))
        if composite is not None:
            places = [self._add(part_name(name, key), part, absent=absent) for key, part in composite.parts.items()]
            return {"storage": -1, **composite.fields(places)}
        return {
            "storage": self._storage(name, tensor, absent=absent),
            "offset": int(tensor.storage_offset()),
            "conjugate": tensor.is_conj(),
            "negative": tensor.is_neg(),
        }

    def _storage(self, name: str, tensor: torch.Tensor, *, absent: bool) -> int:
        storage = tensor.untyped_storage()
        nbytes = storage.nbytes()
        # An empty storage has no address of its own, so none is shared.
        key = (tensor.device, _address(storage)) if nbytes else (name, 0)
        place = self._storage_places.setdefault(key, len(self._memories))
        if place == len(self._memories):
            self._memories.append(_Memory(name, storage, nbytes, absent or _is_hollow(storage)))
        elif absent:
            self._memories[place] = self._memories[place]._replace(absent=True)
        return place


def _strides(tensor: torch.Tensor) -> list[int] | None:
    """Strides of a tensor, None if they are those of elements that follow each other, or if its layout has none."""
    if tensor.layout is not torch.strided:
        return None
    strides = list(tensor.stride())
    return None if strides == contiguous_strides(tensor.shape) else strides


def _is_hollow(storage: torch.UntypedStorage) -> bool:
    """Whether a storage has a size but no memory: on the meta device, or of a fake tensor."""
    return storage.device != _CPU and storage.device.type == "meta"  # to ask for the type takes ten times as long


def _address(storage: torch.UntypedStorage) -> int:
    return storage._cdata if _is_hollow(storage) else storage.data_ptr()


def _same_view(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (
        {type(one), type(other)} <= _PLAIN_TYPES
        and one.layout is other.layout is torch.strided
        and _start(one) == _start(other)
        and _geometry(one) == _geometry(other)
    )


def _start(tensor: torch.Tensor) -> int:
    return _address(tensor.untyped_storage()) + int(tensor.storage_offset()) * tensor.itemsize


def _geometry(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.device, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg()


_CPU = torch.device("cpu")
_PLAIN_TYPES = frozenset({torch.Tensor, torch.nn.Parameter, torch.nn.Buffer})
_LAYOUTS = frozenset(getattr(torch, name) for name in ("strided", *SPARSE_LAYOUTS))

_NOT_STORED: tuple[tuple[Callable[[torch.Tensor], bool], Callable[[torch.Tensor], str], str], ...] = (
    (is_functorch_wrapped, lambda _: "tensor that torch.func made, which has no data,", "compute it in forward"),
    (lambda t: t.is_nested, lambda _: "nested tensor", "store its values and offsets"),
    (
        lambda t: not (type(t) in _PLAIN_TYPES or type(t) is FakeTensor or is_traceable_wrapper_subclass(t)),
        lambda t: f"tensor of type {type(t).__qualname__}",
        "convert it to a plain tensor first, or let its class define __tensor_flatten__",
    ),
    (
        lambda t: t.is_quantized,
        lambda t: f"quantized tensor of {t.dtype}",
        "store its int_repr(), scale and zero point, and compute with those",
    ),
    (
        lambda t: t.layout not in _LAYOUTS,
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


def _place(row: documents.Tensor) -> tuple[object, ...]:
    """Which elements of its storage a tensor has."""
    return row.dtype, row.offset, row.shape, row.strides


def _in_memory(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    return storage if storage.device == _CPU else storage.cpu()  # type: ignore[no-untyped-call]


def _owned_blob(memory: _Memory, owner: documents.Tensor) -> Blob:
    """A storage as the tensor that covers it."""
    code, shape = CARRIERS[owner.dtype].code, stored_shape(owner.dtype, owner.shape)
    content = _in_memory(memory.storage)
    return Blob(owner.name, code, shape, content.data_ptr(), memory.nbytes, content)


def _flat_blob(memory: _Memory, width: int) -> Blob:
    """A storage that no tensor covers, as integers of its views' width, so that safetensors aligns it for them."""
    content, nbytes = _in_memory(memory.storage), memory.nbytes
    width = next(size for size in (8, 4, 2, 1) if size <= width and nbytes % size == 0)
    return Blob(STORAGES + memory.first, f"U{8 * width}", (nbytes // width,), content.data_ptr(), nbytes, content)


def constant_name(method: str, fqn: str, taken: Mapping[str, torch.Tensor], tensor: torch.Tensor) -> str:
    """The name to store a constant under: its FQN, with the method's name before it if another has that one."""
    known = taken.get(fqn)
    shared, own = constant_names(method, fqn)
    return shared if known is None or _same_view(known, tensor) else own
