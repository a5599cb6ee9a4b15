"""What an archive stores of a method beside its graphs: tensors by name, and recorded values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch

from loader.opening import OpenMethod
from loader.rebuild.trees import TreeBuilder
from loader.torch_internals import TreeSpec, pytree
from schema.calls import Calls
from schema.errors import FormatError, Loc
from schema.manifest import ExampleValue, NamedTensor
from schema.names import check_fqns


def build_named(opened: OpenMethod, table: Literal["state", "constants"]) -> dict[str, torch.Tensor]:
    """The tensors of a method's state dictionary or constants, by FQN.

    Raises:
        FormatError: A key is no FQN.
    """
    rows: list[NamedTensor] = getattr(opened.method, table)
    check_fqns([row.key for row in rows], (opened.method.name, table))
    return {row.key: opened.tensors.build(row.tensor) for row in rows}


def build_constants(opened: OpenMethod) -> dict[str, Any]:
    """The constants of a method by FQN, tensors and script objects in the order that they had.

    Raises:
        FormatError: A key is no FQN, or an object cannot be made.
        ClassError: The class of an object is not admitted, or not there.
    """
    tensors = build_named(opened, "constants")
    if not opened.method.objects:
        return tensors
    check_fqns([row.key for row in opened.method.objects], (opened.method.name, "objects"))
    objects = {row.at: (row.key, opened.objects.build(row.object)) for row in opened.method.objects}
    others = iter(tensors.items())
    return dict(objects.get(place) or next(others) for place in range(len(objects) + len(tensors)))


def build_values(opened: OpenMethod, rows: list[ExampleValue]) -> list[Any]:
    """Recorded flat values."""
    return [_build_value(opened, row, ("example", index)) for index, row in enumerate(rows)]


def _build_value(opened: OpenMethod, row: ExampleValue, loc: Loc) -> Any:
    if row.object is not None:
        return opened.objects.build(row.object)
    return opened.literals.build(row.value, loc) if row.tensor is None else opened.tensors.build(row.tensor)


def build_example(opened: OpenMethod, calls: Calls, trees: TreeBuilder) -> Any:
    """The recorded example inputs as (args, kwargs), None if there are none.

    Raises:
        FormatError: They do not fit their tree.
    """
    if opened.method.example is None or calls.example is None:
        return None
    spec = trees.build(calls.example, ("calls", "example"), inputs=True)
    flat = build_values(opened, opened.method.example)
    if len(flat) != spec.num_leaves:
        raise FormatError("the example does not fit its tree", loc=("calls", "example"))
    try:
        return _unflatten(iter(flat), spec)
    except Exception as error:  # a user's class may refuse in whatever way
        raise FormatError(f"the example does not fit its classes: {error}", loc=("calls", "example")) from error


def _unflatten(leaves: Iterator[Any], spec: TreeSpec) -> Any:
    """Put a value together as torch does, but for ``torch.Size``, of which torch makes a tuple."""
    if spec.is_leaf():
        return next(leaves)
    parts = [_unflatten(leaves, child) for child in spec.children()]
    if spec.type is torch.Size:
        return torch.Size(parts)
    return pytree.tree_unflatten(parts, TreeSpec(spec.type, spec.context, [pytree.treespec_leaf()] * len(parts)))
