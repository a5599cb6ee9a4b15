"""Do the examples themselves satisfy the shape specification? Decided before anything is traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from exporter.capture.artifacts import Leaf
from exporter.capture.paths import loc_of
from exporter.capture.wording import dim_in_words
from exporter.torch_internals import DerivedDim, DimHint
from schema.errors import CaptureError, Loc

_NOT_VARIED = "torch takes sizes 0 and 1 for fixed"

Sized = tuple[Any, int, Loc]
"""The specification of a dimension, its size in the example, and where it is."""


def check_sizes(leaves: Iterable[Leaf]) -> None:
    """Check every specified size against the example.

    Args:
        leaves: All the leaves, in the order in which their arguments are declared.

    Raises:
        CaptureError: A size is outside its range, contradicts another one, or cannot vary.
    """
    leaves = list(leaves)
    _check_repeated_tensors(leaves)
    for leaf in leaves:
        if leaf.hint is not None:
            _check_range(leaf.hint, leaf.value, loc_of(leaf.path))
    sized = list(_specified(leaves))
    for dim, size, loc in sized:
        _check_size(dim, size, loc)
    _check_named([(dim, size, loc) for dim, size, loc in sized if isinstance(dim, torch.export.Dim)])


def _specified(leaves: Iterable[Leaf]) -> Iterator[Sized]:
    for leaf in leaves:
        for index, dim in enumerate(leaf.dims):
            if dim is not None:
                yield dim, leaf.value.shape[index], loc_of(leaf.path, "shape", index)


def _check_size(dim: Any, size: int, loc: Loc) -> None:
    if isinstance(dim, int):
        if dim != size:
            raise CaptureError(
                f"the specification fixes this size to {dim}, the example has {size}",
                loc=loc,
                remedy=f"pass an example of size {dim}, or specify {size} or a Dim",
            )
        return
    _check_range(dim, size, loc)
    if size in (0, 1) and not (isinstance(dim, DimHint) and dim.type.name != "DYNAMIC"):
        raise CaptureError(
            f"the example has {size} where {dim_in_words(dim)} is to vary, and {_NOT_VARIED}",
            loc=loc,
            remedy="pass an example of size 2 or more, or leave this dimension fixed",
        )


def _check_range(dim: Any, value: int, loc: Loc) -> None:
    low, high = _range_of(dim, loc)
    if not ((low is None or value >= low) and (high is None or value <= high)):
        raise CaptureError(
            f"the example has {value}, outside the range of {dim_in_words(dim)}",
            loc=loc,
            remedy="pass an example inside the range, or widen the range",
        )
    if isinstance(dim, DimHint) and dim.type.name == "DYNAMIC" and low == high is not None:
        raise CaptureError(
            f"{dim_in_words(dim)} is to vary, but its range has one value",
            loc=loc,
            remedy="widen the range, or use Dim.STATIC",
        )


def _range_of(dim: Any, loc: Loc) -> tuple[Any, Any]:
    try:
        return dim.min, dim.max
    except AssertionError as error:  # a derived Dim computes its range, and refuses a negative one
        raise CaptureError(
            f"{dim_in_words(dim)} may become negative or too large",
            loc=loc,
            remedy="narrow the range of the Dim it derives from",
        ) from error


def _check_named(sized: list[Sized]) -> None:
    """One name means one range and, in one set of examples, one size."""
    roots: dict[str, tuple[torch.export.Dim, int, Loc]] = {}
    for dim, size, loc in sized:
        root, value = (dim.root, _solve(dim, size, loc)) if isinstance(dim, DerivedDim) else (dim, size)
        known, first, there = roots.setdefault(root.__name__, (root, value, loc))
        if (known.min, known.max) != (root.min, root.max):
            raise CaptureError(
                f"{root.__name__!r} names both {dim_in_words(known)} and {dim_in_words(root)}",
                loc=loc,
                remedy="use one Dim object for one name, or two names",
            )
        if first != value:
            raise CaptureError(
                f"{root.__name__!r} is {first} at {'.'.join(map(str, there))}, but here it is {value}",
                loc=loc,
                remedy="make the example sizes agree, or use two Dims",
            )


def _solve(dim: Any, size: int, loc: Loc) -> int:
    """Return the root's value for which a derived dimension, always ``a * root + b``, has this size."""
    offset = dim.fn(0)
    value, rest = divmod(size - offset, dim.fn(1) - offset)
    if rest:
        raise CaptureError(
            f"a size of {size} is not {dim_in_words(dim)} for any integer {dim.root.__name__}",
            loc=loc,
            remedy="pass an example of such a size, or specify another Dim",
        )
    if value in (0, 1):
        raise CaptureError(
            f"{dim.root.__name__} is {value} where {dim_in_words(dim)} is {size}, and {_NOT_VARIED}",
            loc=loc,
            remedy=f"pass an example of size {dim.fn(2)} or more",
        )
    return int(value)


def _check_repeated_tensors(leaves: Iterable[Leaf]) -> None:
    """Torch keeps one specification per tensor object, so one object cannot have two."""
    seen: dict[int, Leaf] = {}
    for leaf in leaves:
        if isinstance(leaf.value, torch.Tensor):
            first = seen.setdefault(id(leaf.value), leaf)
            if [repr(d) for d in first.dims] != [repr(d) for d in leaf.dims]:
                raise CaptureError(
                    "the same tensor is passed twice, under two different specifications",
                    loc=loc_of(leaf.path),
                    remedy="pass a copy for one of the two, for example tensor.clone()",
                )
