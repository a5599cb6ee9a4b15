"""Tensors as views of the mapped file."""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from archive.composites import is_composite
from archive.reading import ArchiveFile
from archive.structure import strides_of
from loader.devices import Devices
from loader.lazily import lazily
from loader.rebuild.composites import build_sparse, build_subclass
from loader.rebuild.contexts import ContextBuilder
from loader.rebuild.literals import DTYPES, check_gradient, torch_constant
from loader.tensor_classes import TensorClasses
from loader.torch_internals import set_lazy_bits
from schema.dtypes import CARRIERS
from schema.errors import FormatError, Loc
from schema.literals import DType, Layout
from schema.manifest import Tensor

_CPU = torch.device("cpu")


class TensorBuilder:
    """Builds the tensors of an archive, each storage once.

    Args:
        archive: The archive.
        devices: Where recorded devices are put.
        contexts: Builds the contexts of wrapper subclasses.
        classes: Finds their classes.
        mmap: Whether tensors are the mapped file (pages are read when touched, and copied when written), or copies.
        hollow: Whether a tensor that is absent is put on the meta device, so that a program is whole but for running.
    """

    def __init__(
        self,
        archive: ArchiveFile,
        devices: Devices,
        contexts: ContextBuilder,
        classes: TensorClasses,
        *,
        mmap: bool = True,
        hollow: bool = False,
    ) -> None:
        self._archive = archive
        self._contexts = contexts
        self._classes = classes
        self._devices = devices
        self._mmap = mmap
        self._hollow = hollow
        self._given: dict[int, torch.Tensor] = {}
        self._storages: dict[tuple[int, torch.device], torch.Tensor] = {}
        self._tensors: dict[int, torch.Tensor] = {}

    def give(self, weights: Mapping[int, torch.Tensor]) -> None:
        """Use other bytes for some storages, by their place, than what the archive has."""
        self._given.update(weights)

    def build(self, index: int) -> torch.Tensor:
        """The tensor at a place of the manifest's table, which has been checked when the archive was opened."""
        made = self._tensors.get(index)
        if made is None:
            made = self._tensors[index] = self._build(self._archive.manifest.tensors[index])
        return made

    def at(self, index: int, loc: Loc) -> torch.Tensor:
        """The tensor at a place of the manifest's table that a section names.

        Raises:
            FormatError: There is none.
        """
        if not 0 <= index < len(self._archive.manifest.tensors):
            raise FormatError(f"no tensor {index}", loc=loc)
        return self.build(index)

    def kind(self, index: int) -> tuple[type | torch.layout, tuple[int, ...], Any]:
        """What the tensor at a place, which is made of others, is beside its parts: see :class:`loader.parts.Kind`."""
        row = self._archive.manifest.tensors[index]
        if row.sparse is not None:
            layout = torch_constant(Layout(row.sparse.layout), ("tensors", row.name))
            return layout, tuple(row.shape), row.sparse.coalesced
        return self._described(row)

    def _build(self, row: Tensor) -> torch.Tensor:
        if row.tied is not None:
            return self.build(row.tied)
        made = self._mapped(row)
        if made is None:
            made = self._made_of_parts(row) if is_composite(row) else self._view(row)
        if row.requires_grad:
            check_gradient(made.dtype, ("tensors", row.name))
        if row.parameter:
            return torch.nn.Parameter(made, row.requires_grad)
        return made.requires_grad_(row.requires_grad)

    def _mapped(self, row: Tensor) -> torch.Tensor | None:
        """A tensor that can be the mapped file with nothing more to do, as most can; None of any other."""
        if row.name not in self._alone or self._devices.place(row.device) != _CPU:
            return None
        dtype, entry = DTYPES.get(row.dtype), self._archive.entries[row.name]
        if dtype is None or entry.start % dtype.itemsize:
            return None
        mapped = torch.frombuffer(self._mapping, dtype=dtype, count=math.prod(entry.shape), offset=entry.start)
        # Not view, which would make it a view of another tensor.
        return mapped if len(entry.shape) == 1 else mapped.resize_(entry.shape)

    def _view(self, row: Tensor) -> torch.Tensor:
        device = self._devices.place(row.device)
        # What was on the meta device has no bytes to put elsewhere, unless it is a weight and was given.
        storage = self._storage(row.storage, device, hollow=self._hollow or "meta" in (row.device, device.type))
        view = torch.empty(0, dtype=_dtype(row), device=storage.device)
        view.set_(storage.untyped_storage(), row.offset, row.shape, strides_of(row))
        set_lazy_bits(view, conjugate=row.conjugate, negative=row.negative)
        return view

    def _made_of_parts(self, row: Tensor) -> torch.Tensor:
        loc: Loc = ("tensors", row.name)
        made = self._sparse_or_subclass(row, loc)
        if made.dtype is not _dtype(row) or list(made.shape) != row.shape:
            raise FormatError(f"a tensor of {made.dtype}{list(made.shape)}", loc=loc)
        return made

    def _sparse_or_subclass(self, row: Tensor, loc: Loc) -> torch.Tensor:
        if row.sparse is not None:
            return build_sparse(row.sparse, row.shape, [self.build(part) for part in row.sparse.parts], loc)
        assert row.subclass is not None
        kind, _, context = self._described(row)
        parts = {part.key: self.build(part.tensor) for part in row.subclass.parts}
        return build_subclass(kind, parts, context, row.shape, strides_of(row), loc)

    def _described(self, row: Tensor) -> tuple[Any, tuple[int, ...], Any]:
        """The class, shape and context of a wrapper subclass."""
        assert row.subclass is not None
        loc: Loc = ("tensors", row.name)
        kind = self._classes.resolve(row.subclass.module, row.subclass.qualname, loc)
        return kind, tuple(row.shape), self._contexts.build(row.subclass.context, loc)

    def _storage(self, index: int, device: torch.device, *, hollow: bool) -> torch.Tensor:
        if (index, device) not in self._storages:
            self._storages[index, device] = self._place(index, device, hollow=hollow)
        return self._storages[index, device]

    def _place(self, index: int, device: torch.device, *, hollow: bool) -> torch.Tensor:
        if index in self._given:
            given = self._given[index].to(device)
            return given if self._mmap else given.clone()
        row = self._archive.manifest.storages[index]
        if not row.absent:
            return self.stored(index).to(device)
        if not hollow:
            raise FormatError("absent, and no weight", loc=("storages", row.name))
        return torch.empty(row.nbytes, dtype=torch.uint8, device="meta")

    def stored(self, index: int) -> torch.Tensor:
        """The bytes of a storage that the archive has."""
        storage = self._archive.manifest.storages[index]
        if not storage.nbytes:
            return torch.empty(0, dtype=torch.uint8)
        start = self._archive.entries[storage.name].start
        # safetensors aligns to eight bytes at most, and another writer may have aligned to less.
        if self._mmap and start % self._alignments.get(index, 1) == 0:
            return torch.frombuffer(self._mapping, dtype=torch.uint8, count=storage.nbytes, offset=start)
        # Read, and not copied from the mapping: of a file that is cut meanwhile, that would end the process.
        return torch.frombuffer(self._archive.copy(storage.name), dtype=torch.uint8)

    @lazily
    def _mapping(self) -> mmap.mmap:
        return self._archive.mapping

    @lazily
    def _alone(self) -> set[str]:
        """Names of tensors that are, each alone, what a storage of the archive holds, if that is to be mapped."""
        rows, stored = self._archive.manifest.tensors if self._mmap else [], self._archive.stored
        uses = Counter([row.storage for row in rows])
        others = {storage for storage, count in uses.items() if count > 1} | self._given.keys()
        return {row.name for row in rows if row.name in stored and row.storage not in others}

    @lazily
    def _alignments(self) -> dict[int, int]:
        """What the address of each storage must be a multiple of."""
        alignments: dict[int, int] = {}
        for row in self._archive.manifest.tensors:
            if not is_composite(row):
                # Kernels ask for elements at multiples of their size, and crash on complex128 that is not.
                alignments[row.storage] = max(CARRIERS[row.dtype].nbytes, alignments.get(row.storage, 1))
        return alignments


def _dtype(row: Tensor) -> torch.dtype:
    return torch_constant(DType(row.dtype), ("tensors", row.name))  # type: ignore[no-any-return]
