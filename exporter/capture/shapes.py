"""The shape specification: which part of ``dynamic_shapes`` belongs to which leaf.

A container is specified by a container of the same layout; None leaves all below it fixed, and so does leaving a key
or an argument out. torch asks for every key; apart from that the language is the one of ``torch.export``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from exporter.capture.artifacts import Dims, KeyPath, Request
from exporter.capture.paths import key_of, loc_of
from exporter.torch_internals import DimHint
from schema.errors import CaptureError

HOW_TO_SPECIFY = "give each dimension an int, None, Dim.STATIC, Dim.AUTO, Dim.DYNAMIC or a named Dim"


def resolve(request: Request, declared: Mapping[str, Any], signature: inspect.Signature) -> dict[str, Any]:
    """Return the specification of each argument by name.

    Args:
        request: What the user asked for.
        declared: The arguments as ``inspect.Signature.bind`` names them.
        signature: The signature of ``forward``.

    Raises:
        CaptureError: The specification names an argument that does not exist, or has the wrong length.
    """
    shapes = _spelled_out(request)
    if not shapes:
        return {}
    if isinstance(shapes, Mapping):
        return _by_name(shapes, declared, signature)
    if isinstance(shapes, str) or not isinstance(shapes, Sequence):
        raise _malformed(f"dynamic_shapes is a {type(shapes).__name__}", ())
    if len(shapes) != len(declared):
        raise CaptureError(
            f"dynamic_shapes has {len(shapes)} entries for {len(declared)} arguments ({', '.join(declared)})",
            loc=("dynamic_shapes",),
            remedy="give one entry for each argument, or a dict by the arguments' names",
        )
    return dict(zip(declared, shapes, strict=True))


def _spelled_out(request: Request) -> Any:
    shapes = request.dynamic_shapes
    if not isinstance(shapes, torch.export.ShapesCollection | torch.export.AdditionalInputs):
        return shapes
    try:
        return shapes.dynamic_shapes(request.module, request.args, request.kwargs)  # type: ignore[no-untyped-call]
    except (ValueError, AssertionError, TypeError) as error:
        raise CaptureError(
            f"the {type(shapes).__name__} does not fit the example arguments: {error}",
            loc=("dynamic_shapes",),
            remedy="build it from the very tensors that are passed as args and kwargs",
        ) from error


def _by_name(shapes: Mapping[str, Any], declared: Mapping[str, Any], signature: inspect.Signature) -> dict[str, Any]:
    """Sort a dict by name; what ``**kwargs`` collects may stand under its own keyword too."""
    found = {name: shapes[name] for name in declared if name in shapes}
    unknown = [name for name in shapes if name not in declared]
    extra = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
    collected = declared.get(extra, {}) if extra else {}
    for name in [name for name in unknown if name in collected]:
        found.setdefault(str(extra), {})
        found[str(extra)] = {**found[str(extra)], name: shapes[name]}
        unknown.remove(name)
    if unknown:
        raise CaptureError(
            f"dynamic_shapes names {', '.join(map(repr, unknown))}, which is no argument of this call",
            loc=("dynamic_shapes",),
            remedy=f"the arguments are {', '.join([*declared, *collected])}",
        )
    return found


def of_children(spec: Any, keys: Sequence[Any], path: KeyPath) -> list[Any]:
    """Split the specification of a container among its children.

    Args:
        spec: The specification of the container.
        keys: The pytree keys of its children.
        path: Where the container stands.

    Raises:
        CaptureError: The specification has another layout than the container.
    """
    match spec:
        case None:
            return [None] * len(keys)
        case Mapping():
            names = [key_of(key) for key in keys]
            if unknown := [key for key in spec if key not in names]:
                raise _malformed(f"{unknown[0]!r} is in the specification but not in the argument", path)
            return [spec.get(name) for name in names]
        case list() | tuple() if len(spec) == len(keys):
            return list(spec)
        case list() | tuple():
            raise _malformed(f"{len(spec)} specifications for {len(keys)} elements", path)
        case _:
            raise _malformed(f"a container cannot be specified by {spec!r}", path)


def of_tensor(tensor: torch.Tensor, spec: Any, path: KeyPath) -> Dims:
    """Return the specification of each dimension of a tensor.

    Raises:
        CaptureError: An index is out of range, the length is wrong or a dimension is given something else.
    """
    rank = tensor.dim()
    match spec:
        case None:
            return (None,) * rank
        case Mapping():
            if outside := [index for index in spec if not (isinstance(index, int) and 0 <= index < rank)]:
                raise _malformed(f"there is no dimension {outside[0]!r} in a tensor with {rank} dimensions", path)
            given = [spec.get(index) for index in range(rank)]
        case list() | tuple():
            if len(spec) != rank:
                raise _malformed(f"{len(spec)} specifications for a tensor with {rank} dimensions", path)
            given = list(spec)
        case _:
            raise _malformed(f"a tensor cannot be specified by {spec!r}", path)
    for index, dim in enumerate(given):
        if not (dim is None or isinstance(dim, int | torch.export.Dim | DimHint)):
            raise _malformed(f"a dimension cannot be specified by {dim!r}", path, "shape", index)
    return tuple(given)


def of_scalar(value: Any, spec: Any, path: KeyPath) -> Any:
    """Return the hint for an integer that is to vary; None for every input that is fixed.

    Raises:
        CaptureError: The input cannot vary, or not under a name of its own.
    """
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if spec is None or (is_int and type(spec) is int and spec == value):
        return None
    if is_int and isinstance(spec, torch.export.Dim):
        raise _malformed("an integer cannot have a named Dim; use Dim.DYNAMIC or Dim.AUTO", path)
    if is_int and isinstance(spec, DimHint):
        return None if spec.type.name == "STATIC" else spec
    raise _malformed(f"an input of type {type(value).__name__} cannot be specified by {spec!r}", path)


def _malformed(message: str, path: KeyPath, *more: str | int) -> CaptureError:
    return CaptureError(message, loc=("dynamic_shapes", *loc_of(path, *more)), remedy=HOW_TO_SPECIFY)
