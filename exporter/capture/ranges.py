"""The range of every symbol of a program: what the trace found, narrowed by what the specification says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from exporter.capture.artifacts import Leaf, Symbolic
from exporter.capture.paths import loc_of
from exporter.capture.wording import dim_in_words
from exporter.torch_internals import DimHint, ValueRangeError, ValueRanges, free_unbacked_symbols, int_oo
from schema.errors import CaptureError, Loc

Ranges = dict[Any, Any]


def unbacked_ranges(symbolic: Symbolic) -> Ranges:
    """Return the ranges of the data-dependent symbols."""
    return {s: r for s, r in symbolic.shape_env.var_to_range.items() if free_unbacked_symbols(s)}


def range_constraints(symbolic: Symbolic, inputs: Sequence[Any]) -> Ranges:
    """Return the range of each symbol and of each size that is an expression of symbols.

    Args:
        symbolic: The environment after the trace.
        inputs: What the program says of its inputs: fake tensors and symbols, one for each leaf.

    Raises:
        CaptureError: The trace leaves nothing of the range that a hint asks for, or fixes what was to vary.
    """
    ranges = unbacked_ranges(symbolic)
    roots: dict[Any, None] = {}  # in the order of the inputs; torch keeps a set and so an order of chance
    for leaf, fake in zip(symbolic.bound.leaves, inputs, strict=True):
        for size, dim, example, loc in _sizes(leaf, fake):
            if not _is_fixed(size):
                _narrow(ranges, symbolic, size, dim)
                roots |= dict.fromkeys(size.node.expr.free_symbols)
            if isinstance(dim, DimHint):
                _narrow_by_hint(ranges, symbolic, size, dim, example, loc)
    return ranges | {s: symbolic.shape_env.var_to_range[s] for s in roots if s not in ranges}


def _sizes(leaf: Leaf, fake: Any) -> list[tuple[Any, Any, int, Loc]]:
    if isinstance(fake, torch.Tensor):
        return [
            (size, dim, leaf.value.shape[index], loc_of(leaf.path, "shape", index))
            for index, (size, dim) in enumerate(zip(fake.shape, leaf.dims, strict=True))
        ]
    return [(fake, leaf.hint, leaf.value, loc_of(leaf.path))] if leaf.hint is not None else []


def _is_fixed(size: Any) -> bool:
    return isinstance(size, int) or bool(size.node.expr.is_number)


def _narrow(ranges: Ranges, symbolic: Symbolic, size: Any, dim: Any) -> None:
    expr, env = size.node.expr, symbolic.shape_env
    named = isinstance(dim, torch.export.Dim)
    found = ValueRanges(dim.min, dim.max) if named else env.bound_sympy(expr)
    ranges[expr] = ranges.get(expr, ValueRanges(0, int_oo)) & found


def _narrow_by_hint(ranges: Ranges, symbolic: Symbolic, size: Any, dim: Any, example: int, loc: Loc) -> None:
    wanted = ValueRanges(0 if dim.min is None else dim.min, int_oo if dim.max is None else dim.max)
    traced = ValueRanges(int(size), int(size)) if _is_fixed(size) else ranges[size.node.expr]
    try:
        left = traced & wanted
    except ValueRangeError as error:
        raise CaptureError(
            f"{dim_in_words(dim)} was asked for, but the module allows only {traced.lower} to {traced.upper}",
            loc=loc,
            remedy="widen the range of the hint",
        ) from error
    if dim.type.name == "DYNAMIC" and left.lower == left.upper:
        raise CaptureError(
            f"{dim_in_words(dim)} was asked for, but the module fixes this size to {left.lower}",
            loc=loc,
            remedy=f"use Dim.AUTO or Dim.STATIC here, or keep the module from treating {example} specially",
        )
    if not _is_fixed(size):
        ranges[size.node.expr] = left
        symbolic.shape_env.var_to_range[size.node._expr] &= wanted
