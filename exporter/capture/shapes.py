"""The shape specification: which part of ``dynamic_shapes`` belongs to which leaf.

A container is specified by a container of the same layout; None leaves all below it fixed, and so does leaving a key
or an argument out. torch asks for every key; apart from that the language is the one of ``torch.export``. Where nothing
is specified, the marks of ``torch._dynamo.mark_dynamic`` and ``maybe_mark_dynamic`` count, as they do in torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from exporter.capture.artifacts import Dims, KeyPath, Request
from exporter.capture.paths import key_of, loc_of
from exporter.capture.wording import dim_in_words
from exporter.torch_internals import DimHint, is_traceable_wrapper_subclass, marked_dims, pytree
from schema.errors import CaptureError

_DIMENSION = "an int, None, Dim.STATIC, Dim.AUTO, Dim.DYNAMIC or a named Dim"
_TENSOR = f"give a dict such as {{0: Dim('n')}}, or a tuple with one entry for each dimension: {_DIMENSION}"
_SCALAR = "give None; of what is no tensor, only integers can vary, by Dim.DYNAMIC or Dim.AUTO"


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
        raise CaptureError(
            f"dynamic_shapes is of type {type(shapes).__name__}",
            loc=("dynamic_shapes",),
            remedy="give a dict by the arguments' names, or a tuple with one entry for each argument",
        )
    if len(shapes) != len(declared):
        raise CaptureError(
            f"dynamic_shapes has {len(shapes)} entries for {len(declared)} arguments ({', '.join(declared)})",
            loc=("dynamic_shapes",),
            remedy="give one entry for each argument, or a dict by the arguments' names",
        )
    return dict(zip(declared, shapes, strict=True))


def _spelled_out(request: Request) -> Any:
    shapes: Any = request.dynamic_shapes
    if shapes is None or (isinstance(shapes, Mapping | Sequence) and not shapes):
        shapes = _marks(request)
    if not isinstance(shapes, torch.export.ShapesCollection | torch.export.AdditionalInputs):
        return shapes
    try:
        return shapes.dynamic_shapes(request.method, request.args, request.kwargs)  # type: ignore[no-untyped-call]
    except (ValueError, AssertionError, TypeError) as error:
        collected = isinstance(shapes, torch.export.ShapesCollection)
        raise CaptureError(
            f"the {type(shapes).__name__} does not fit the example arguments: {error}",
            loc=("dynamic_shapes",),
            remedy="build it from the very tensors that are passed as args and kwargs"
            if collected
            else "pass the same structure as in args and kwargs; only sizes of tensors and integers may differ",
        ) from error


def _marks(request: Request) -> torch.export.ShapesCollection | None:
    """What the example tensors themselves are marked with."""
    leaves = pytree.tree_leaves((request.args, request.kwargs))
    marked = [(leaf, dims) for leaf in leaves if isinstance(leaf, torch.Tensor) and (dims := marked_dims(leaf))]
    if not marked:
        return None
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor, dims in marked:
        shapes[tensor].update(dims)
    return shapes


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


def of_children(spec: Any, container: Any, keys: Sequence[Any], path: KeyPath) -> list[Any]:
    """Split the specification of a container among its children.

    Args:
        spec: The specification of the container.
        container: The container.
        keys: The pytree keys of its children.
        path: Where the container stands.

    Raises:
        CaptureError: The specification has another layout than the container.
    """
    names = [key_of(key) for key in keys]
    by_name = not any(isinstance(key, pytree.SequenceKey) for key in keys)
    by_order = not isinstance(container, Mapping)
    match spec:
        case None:
            return [None] * len(keys)
        case Mapping() if by_name and all(key in names for key in spec):
            return [spec.get(name) for name in names]
        case Sequence() if by_order and len(spec) == len(keys) and not isinstance(spec, str):
            return list(spec)
    ways = [f"a dict with keys of {names}"] * by_name + [f"a list with {len(keys)} entries"] * by_order
    raise _malformed(
        f"{dim_in_words(spec)} has another layout than the {type(container).__name__} that it is to specify",
        f"give {' or '.join(ways)}, or None where nothing varies",
        path,
    )


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
            if outside := [index for index in spec if index not in range(rank) or type(index) is not int]:
                what = f"there is no dimension {outside[0]!r} in a tensor with {rank} dimensions"
                raise _malformed(what, f"dimensions are counted from 0; {_TENSOR}", path)
            given = [spec.get(index) for index in range(rank)]
        case list() | tuple():
            if len(spec) != rank:
                raise _malformed(f"{len(spec)} specifications for a tensor with {rank} dimensions", _TENSOR, path)
            given = list(spec)
        case _:
            raise _malformed(f"a tensor cannot be specified by {dim_in_words(spec)}", _TENSOR, path)
    for index, dim in enumerate(given):
        if not (dim is None or type(dim) is int or isinstance(dim, torch.export.Dim | DimHint)):
            raise _malformed(f"a dimension cannot be specified by {dim!r}", f"give {_DIMENSION}", path, "shape", index)
        if isinstance(dim, torch.export.Dim) and is_traceable_wrapper_subclass(tensor):
            what = f"a dimension of a {type(tensor).__name__} cannot vary under a name: the tensors inside have others"
            raise _malformed(what, "use Dim.DYNAMIC or Dim.AUTO", path, "shape", index)
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
        raise _malformed("an integer cannot have a named Dim", _SCALAR, path)
    if is_int and isinstance(spec, DimHint):
        return None if spec.type.name == "STATIC" else spec
    what = f"an input of type {type(value).__name__} cannot be specified by {dim_in_words(spec)}"
    raise _malformed(what, _SCALAR, path)


def _malformed(message: str, remedy: str, path: KeyPath, *more: str | int) -> CaptureError:
    return CaptureError(message, loc=("dynamic_shapes", *loc_of(path, *more)), remedy=remedy)
