"""Tensors that are made of other tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from loader.rebuild.literals import torch_constant
from schema.errors import FormatError, Loc
from schema.literals import Layout
from schema.manifest import Sparse


def build_sparse(sparse: Sparse, shape: Sequence[int], parts: list[torch.Tensor], loc: Loc) -> torch.Tensor:
    """A sparse tensor of its indices and values, which are not copied.

    Raises:
        FormatError: An index is out of range, or the parts do not fit each other.
    """
    coordinates = sparse.layout == "sparse_coo"
    layout = torch_constant(Layout(sparse.layout), loc)
    make: Any = torch.sparse_coo_tensor if coordinates else torch.sparse_compressed_tensor
    options = {"is_coalesced": sparse.coalesced} if coordinates else {"layout": layout}
    checked = not parts[0].is_meta  # indices that are not there lead nowhere
    try:
        return make(*parts, shape, **options, check_invariants=checked)  # type: ignore[no-any-return]
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise FormatError(f"not a valid sparse tensor: {error}", loc=loc) from error


def build_subclass(
    kind: Any, parts: dict[str, torch.Tensor], context: Any, shape: Any, strides: Any, loc: Loc
) -> torch.Tensor:
    """A wrapper subclass of its inner tensors.

    Raises:
        FormatError: Its class cannot be made of them.
    """
    try:
        made = kind.__tensor_unflatten__(parts, context, torch.Size(shape), tuple(strides))
    except Exception as error:  # whatever the class raises
        message = f"{kind.__qualname__} cannot be made of its parts: {type(error).__name__} {error}"
        raise FormatError(message, loc=loc) from error
    if type(made) is not kind:
        raise FormatError(f"{kind.__qualname__} made a {type(made).__qualname__} of its parts", loc=loc)
    return made  # type: ignore[no-any-return]
