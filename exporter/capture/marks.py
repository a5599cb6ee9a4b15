"""Marks on the user's tensors: how Dynamo is told which sizes vary, and what it notes itself. All are taken away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from exporter.capture.artifacts import Bound
from exporter.torch_internals import DimHint, is_traceable_wrapper_subclass, mark_dynamic, maybe_mark_dynamic, pytree

_MARKS = {"DYNAMIC": mark_dynamic, "AUTO": maybe_mark_dynamic}
"""Named dimensions are told in constraints, and all others are fixed."""


@contextmanager
def marked(bound: Bound) -> Iterator[None]:
    """Mark the dimensions that vary by a hint.

    Where there is a specification, it replaces marks of the user's own. On the way out, the attributes of every
    tensor of the module and of the arguments are as before.
    """
    kept = {id(tensor): (tensor, dict(vars(tensor))) for tensor in _tensors(bound)}
    try:
        if bound.shapes:
            _mark(bound)
        yield
    finally:
        for tensor, attributes in kept.values():
            vars(tensor).clear()
            vars(tensor).update(attributes)


def _tensors(bound: Bound) -> Iterator[torch.Tensor]:
    for owner in bound.request.module.modules():
        yield from _and_inner(pytree.tree_leaves(vars(owner)))
    yield from _and_inner([leaf.value for leaf in bound.leaves])


def _and_inner(values: list[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
            if is_traceable_wrapper_subclass(value):
                inner: Any = value
                yield from _and_inner([getattr(inner, name) for name in inner.__tensor_flatten__()[0]])


def _mark(bound: Bound) -> None:
    tensors = [leaf for leaf in bound.leaves if isinstance(leaf.value, torch.Tensor)]
    for tensor in _and_inner([leaf.value for leaf in tensors]):
        for name in [name for name in vars(tensor) if name.startswith("_dynamo_")]:
            delattr(tensor, name)
    for leaf in tensors:
        for index, dim in enumerate(leaf.dims):
            if isinstance(dim, DimHint) and dim.type.name in _MARKS:
                _MARKS[dim.type.name](leaf.value, index)
