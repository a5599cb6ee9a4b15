"""Tensors that are made of other tensors: what they are made of, and how they are put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from exporter.emit.contexts import emit_class, emit_context
from exporter.emit.literals import torch_name
from exporter.torch_internals import is_traceable_wrapper_subclass, validate_sparse
from schema import manifest as documents
from schema.dtypes import SPARSE_LAYOUTS
from schema.errors import Loc, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from schema.literals import Literal


class Composite(NamedTuple):
    """A tensor taken apart.

    Attributes:
        parts: The tensors that it is made of, by name.
        fields: Fields of its row in the manifest, made from the places of its parts.
    """

    parts: dict[str, torch.Tensor]
    fields: Callable[[list[int]], dict[str, Any]]


class Flattened(NamedTuple):
    """A wrapper subclass taken apart: where its class is, its inner tensors by attribute, and its context."""

    module: str
    qualname: str
    parts: dict[str, torch.Tensor]
    context: Literal


def take_apart(tensor: torch.Tensor, loc: Loc) -> Composite | None:
    """What a tensor is made of, None if it is not made of others.

    Raises:
        UnsupportedError: What it is made of cannot be stored, or does not make up a valid tensor.
    """
    if is_traceable_wrapper_subclass(tensor):
        return _subclass(tensor, loc)
    return _sparse(tensor, loc) if tensor.layout is not torch.strided else None


def plain_parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors with storages of their own that a tensor is made of; of a plain one, itself.

    Raises:
        UnsupportedError: What it is made of cannot be stored.
    """
    composite = take_apart(tensor, ())
    if composite is None:
        yield tensor
    else:
        for part in composite.parts.values():
            yield from plain_parts(part)


def flatten(tensor: torch.Tensor, loc: Loc) -> Flattened:
    """Take a wrapper subclass apart.

    Raises:
        UnsupportedError: Its class cannot be found by name, its context holds what cannot be stored, or what it names
            as an inner tensor is none.
    """
    kind = type(tensor)
    module, qualname = emit_class(kind, loc)
    names, context = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    parts = {name: getattr(tensor, name) for name in names}
    if odd := [name for name, part in parts.items() if not isinstance(part, torch.Tensor)]:
        raise UnsupportedError(f"{kind.__qualname__}.{odd[0]} is no tensor", loc=loc)
    try:
        literal = emit_context(context, (*loc, "__tensor_flatten__"))
    except UnsupportedError as error:
        remedy = "let __tensor_flatten__ give plain values, members of enumerations, dataclasses or named tuples"
        raise UnsupportedError(error.message, loc=error.loc, remedy=remedy) from error
    return Flattened(module, qualname, parts, literal)


def sparse_parts(tensor: torch.Tensor, loc: Loc) -> dict[str, torch.Tensor]:
    """The tensors that a sparse tensor is made of, by name.

    Raises:
        UnsupportedError: Its layout is of another kind.
    """
    names = SPARSE_LAYOUTS.get(torch_name(tensor.layout))
    if names is None:
        raise UnsupportedError(f"a tensor of layout {torch_name(tensor.layout)} cannot be stored", loc=loc)
    # Those of the coordinate layout are public only once it is coalesced.
    prefix = "_" if tensor.layout is torch.sparse_coo else ""
    return {name: getattr(tensor, prefix + name)() for name in names}


def _sparse(tensor: torch.Tensor, loc: Loc) -> Composite:
    parts = sparse_parts(tensor.detach(), loc)
    coalesced = tensor.layout is torch.sparse_coo and tensor.is_coalesced()
    try:
        validate_sparse(tensor, list(parts.values()))
    except RuntimeError as error:
        message = f"an invalid sparse tensor cannot be stored: {error}"
        raise UnsupportedError(message, loc=loc, remedy="make it with check_invariants=True") from error

    def fields(places: Sequence[int]) -> dict[str, Any]:
        return {"sparse": documents.Sparse(layout=torch_name(tensor.layout), parts=list(places), coalesced=coalesced)}

    return Composite(parts, fields)


def _subclass(tensor: torch.Tensor, loc: Loc) -> Composite:
    flat = flatten(tensor, loc)

    def fields(places: Sequence[int]) -> dict[str, Any]:
        named = [documents.NamedTensor(key=key, tensor=place) for key, place in zip(flat.parts, places, strict=True)]
        subclass = documents.Subclass(module=flat.module, qualname=flat.qualname, parts=named, context=flat.context)
        return {"subclass": subclass}

    return Composite(flat.parts, fields)
