"""Arguments with the structure that a program was captured for, taken apart as forgivingly as that allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from loader.stand_ins import StandIn, field_names
from loader.torch_internals import TreeSpec, pytree
from schema.errors import InputError


def flatten_as(spec: TreeSpec, value: Any, name: str) -> list[Any]:
    """The leaves of a value, in the order of a tree spec.

    Dictionaries may have their keys in another order. A named tuple stands for any of the same fields. For a class
    that is not known here, a mapping of its fields or anything with such attributes will do; for a module, any that
    has tensors of the same names.

    Args:
        spec: The tree spec.
        value: The value.
        name: What to call the value in errors.

    Raises:
        InputError: The value has another structure.
    """
    if spec.is_leaf():
        return [value]
    children = list(spec.children())
    keys = _keys(spec, len(children))
    if keys is not None:
        parts = _parts_by_key(spec, value, keys, name)
        steps = [f"[{key!r}]" if isinstance(value, Mapping) else f".{key}" for key in keys]
    else:
        parts = _parts_in_order(spec, value, len(children), name)
        steps = [f"[{index}]" for index in range(len(children))]
    return [
        leaf
        for child, part, step in zip(children, parts, steps, strict=True)
        for leaf in flatten_as(child, part, f"{name}{step}")
    ]


def _keys(spec: TreeSpec, count: int) -> list[Any] | None:
    """Keys or fields of a container that has any."""
    if isinstance(spec.type, type) and issubclass(spec.type, dict) and isinstance(spec.context, list):
        return list(spec.context) if len(spec.context) == count else None
    if isinstance(spec.type, type) and issubclass(spec.type, StandIn):
        return list(field_names(spec.context, count))
    if pytree.is_namedtuple_class(spec.context):
        return list(spec.context._fields)
    return None


def _parts_by_key(spec: TreeSpec, value: Any, keys: list[Any], name: str) -> list[Any]:
    is_dict = isinstance(spec.type, type) and issubclass(spec.type, dict)
    if isinstance(value, torch.nn.Module) and _stands_for_module(spec):
        value = dict(value.named_parameters()) | dict(value.named_buffers())
    if isinstance(value, Mapping):
        if set(value) == set(keys):
            return [value[key] for key in keys]
        found = f"keys {', '.join(map(str, value))}" if value else "no keys"
    else:
        if not is_dict and list(getattr(value, "_fields", keys)) == keys and all(hasattr(value, key) for key in keys):
            return [getattr(value, key) for key in keys]
        found = f"type {type(value).__name__}"
    raise InputError(f"{name} has {found}, expected {_describe(spec)} with {', '.join(map(str, keys)) or 'nothing'}")


def _stands_for_module(spec: TreeSpec) -> bool:
    cls = spec.type
    return isinstance(cls, type) and issubclass(cls, StandIn) and cls.__archive_type__.kind == "module"


def _parts_in_order(spec: TreeSpec, value: Any, count: int, name: str) -> list[Any]:
    if spec.type is tuple and isinstance(value, torch.Size):
        value = tuple(value)  # torch records the one as the other
    leaves, found = pytree.tree_flatten(value, is_leaf=lambda part: part is not value)
    if found.is_leaf() or found.type is not spec.type or found.context != spec.context:
        raise InputError(f"{name} is of type {type(value).__name__}, expected {_describe(spec)}")
    if len(leaves) != count:
        raise InputError(f"{name} has {len(leaves)} parts, expected {count}")
    return list(leaves)


def _describe(spec: TreeSpec) -> str:
    cls = spec.context if pytree.is_namedtuple_class(spec.context) else spec.type
    return f"a {getattr(cls, '__name__', cls)}"
