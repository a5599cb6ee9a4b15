"""New weights in a program that is loaded already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from loader.given import Weights, given_tensors
from loader.parts import Parts, take_apart
from loader.weights import Slot, Wanted, fit, misfit_of, write
from schema.errors import UsageError


def swap_weights(program: torch.export.ExportedProgram | torch.nn.Module, weights: Weights) -> None:
    """Put other weights into a loaded program or module, in place: into the memory of its parameters and buffers.

    Everything that holds them sees the new ones, as a compiled module does. Either all weights fit and are copied, or
    nothing changes. Calls that run in other threads meanwhile may see some of both.

    Args:
        program: What :func:`loader.load` or :func:`loader.load_module` gave, or any module with a state dictionary.
        weights: A safetensors file, the ``.json`` index of its shards, or tensors by name: all of them, as for
            :func:`loader.load`.

    Raises:
        AccessError: A file cannot be read.
        FormatError: A file is malformed.
        WeightsError: The weights do not fit, with everything that does not.
        UsageError: The program has no memory for weights.
    """
    tensors, kinds = _state(program)
    slots = [_slot(name, tensor) for name, tensor in tensors.items()]
    memories = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    with given_tensors(weights) as given, torch.no_grad():
        made = fit(Wanted(slots, kinds), given)
        # A program's own tensors may be given, for others of their kind: none may be overwritten before it is read.
        made = {key: each.clone() if each.data_ptr() in memories else each for key, each in made.items()}
        views = {slot[1:]: (slot, tensors[slot.name]) for slot in slots}
        for slot, tensor in views.values():
            write(tensor, slot.view(made[slot.storage]))


def _state(program: torch.export.ExportedProgram | torch.nn.Module) -> Parts:
    state: Mapping[str, Any] = (
        program.state_dict(keep_vars=True) if isinstance(program, torch.nn.Module) else program.state_dict
    )
    parts = take_apart(state)
    # Kernels trust the indices of a sparse tensor, which are checked when one is made.
    unfit = [name for name, kind in parts.kinds.items() if isinstance(kind.of, torch.layout)]
    if unfit := unfit + [name for name, tensor in parts.tensors.items() if misfit_of(tensor)]:
        raise UsageError(f"{unfit[0]} has no plain memory to copy into", remedy="pass weights= at load")
    return parts


def _slot(name: str, tensor: torch.Tensor) -> Slot:
    storage = tensor.untyped_storage()
    # An empty storage has no address of its own, so none is shared.
    key = (tensor.device, storage.data_ptr()) if storage.nbytes() else name
    shape, strides = tuple(tensor.shape), tensor.stride()
    view = shape, strides, int(tensor.storage_offset()), tensor.is_conj(), tensor.is_neg()
    return Slot(name, key, storage.nbytes(), tensor.dtype, *view)
