"""Tensors as views of the mapped file."""

from __future__ import annotations

import torch

from archive.reading import ArchiveFile
from archive.structure import contiguous_strides
from loader.devices import Devices
from loader.rebuild.literals import torch_constant
from schema.dtypes import CARRIERS
from schema.errors import FormatError
from schema.literals import DType


class TensorBuilder:
    """Builds the tensors of an archive, each storage once.

    Args:
        archive: The archive.
        devices: Where recorded devices are put.
        mmap: Whether tensors are the mapped file (pages are read when touched, and copied when written), or copies.
    """

    def __init__(self, archive: ArchiveFile, devices: Devices, *, mmap: bool = True) -> None:
        self._archive = archive
        self._devices = devices
        self._mmap = mmap
        self._storages: dict[tuple[int, torch.device], torch.Tensor] = {}
        self._tensors: dict[int, torch.Tensor] = {}
        self._alignments: dict[int, int] = {}
        for row in archive.manifest.tensors:
            # Kernels ask for elements at multiples of their size, and crash on complex128 that is not.
            self._alignments[row.storage] = max(CARRIERS[row.dtype].nbytes, self._alignments.get(row.storage, 1))

    def build(self, index: int) -> torch.Tensor:
        """The tensor at a place of the manifest's table, which has been checked when the archive was opened."""
        if index not in self._tensors:
            self._tensors[index] = self._view(index)
        return self._tensors[index]

    def _view(self, index: int) -> torch.Tensor:
        row = self._archive.manifest.tensors[index]
        dtype = torch_constant(DType(row.dtype), ("tensors", row.name))
        storage = self._storage(row.storage, self._devices.place(row.device))
        view = torch.empty(0, dtype=dtype, device=storage.device)
        view.set_(
            storage.untyped_storage(),
            row.offset,
            row.shape,
            contiguous_strides(row.shape) if row.strides is None else row.strides,
        )
        if row.requires_grad and not (dtype.is_floating_point or dtype.is_complex):
            raise FormatError(f"a tensor of {dtype} has no gradient", loc=("tensors", row.name))
        if row.parameter:
            return torch.nn.Parameter(view, requires_grad=row.requires_grad)
        return view.requires_grad_(row.requires_grad)

    def _storage(self, index: int, device: torch.device) -> torch.Tensor:
        if (index, device) not in self._storages:
            self._storages[index, device] = self._bytes(index).to(device)
        return self._storages[index, device]

    def _bytes(self, index: int) -> torch.Tensor:
        storage = self._archive.manifest.storages[index]
        if not storage.nbytes:
            return torch.empty(0, dtype=torch.uint8)
        start = self._archive.entries[storage.name].start
        mapped = torch.frombuffer(self._archive.mapping, dtype=torch.uint8, count=storage.nbytes, offset=start)
        # safetensors aligns to eight bytes at most, and another writer may have aligned to less.
        aligned = start % self._alignments.get(index, 1) == 0
        return mapped if self._mmap and aligned else mapped.clone()
