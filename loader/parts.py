"""Weights that are made of other tensors, taken apart: what is given for them are the tensors that have memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from loader.torch_internals import is_wrapper_class
from schema.dtypes import SPARSE_LAYOUTS
from schema.names import part_name


class Kind(NamedTuple):
    """What a tensor is beside its parts.

    Attributes:
        of: Its class, or the layout of a sparse tensor.
        shape: Its shape.
        context: What its class says of it, or of the coordinate layout, whether its indices are in order.
    """

    of: type | torch.layout
    shape: tuple[int, ...]
    context: Any

    def misfit(self, wanted: Kind) -> tuple[str, str] | None:
        """What is wrong with a tensor of this kind where another is wanted."""
        if self.of is not wanted.of:
            return "of another type", f"{_name(self.of)} instead of {_name(wanted.of)}"
        if self.shape != wanted.shape:
            return "of another shape", f"{list(self.shape)} instead of {list(wanted.shape)}"
        return None if self.context == wanted.context else ("of another type", f"{_name(self.of)} of another context")


PLAIN = Kind(torch.Tensor, (), None)
"""What a tensor is that is made of no others."""


class Parts(NamedTuple):
    """Tensors taken apart: those with memory, and the kinds of those that are made of them, all by name."""

    tensors: Mapping[str, Any]
    kinds: Mapping[str, Kind]


def take_apart(values: Mapping[str, Any]) -> Parts:
    """Take tensors apart; what is no tensor stays as it is."""
    apart = Parts({}, {})
    for name, value in values.items():
        _take_apart(name, value, apart.tensors, apart.kinds)  # type: ignore[arg-type]
    return apart


def _take_apart(name: str, value: Any, tensors: dict[str, Any], kinds: dict[str, Kind]) -> None:
    if isinstance(value, torch.Tensor) and is_wrapper_class(type(value)) and hasattr(value, "__tensor_flatten__"):
        keys, context = value.__tensor_flatten__()
        parts, kind = {key: getattr(value, key) for key in keys}, Kind(type(value), tuple(value.shape), context)
    elif isinstance(value, torch.Tensor) and (layout := _name(value.layout)) in SPARSE_LAYOUTS:
        value = value.detach()
        prefix, ordered = ("_", value.is_coalesced()) if value.layout is torch.sparse_coo else ("", False)
        parts = {key: getattr(value, prefix + key)() for key in SPARSE_LAYOUTS[layout]}
        kind = Kind(value.layout, tuple(value.shape), ordered)
    else:
        tensors[name] = value
        return
    kinds[name] = kind
    for key, part in parts.items():
        _take_apart(part_name(name, key), part, tensors, kinds)


def _name(kind: type | torch.layout) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("torch.")
