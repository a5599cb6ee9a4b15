"""The check of tensors that are made of other tensors, and of names for what is the same tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from archive.bounds import MAX_DEPTH, check_literal
from schema.dtypes import SPARSE_LAYOUTS
from schema.errors import FormatError, Loc
from schema.names import check_class, check_identifier, part_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from schema.manifest import Manifest, Sparse, Subclass, Tensor


def is_composite(tensor: Tensor) -> bool:
    """Whether a tensor is made of others, and so has no storage of its own."""
    return tensor.sparse is not None or tensor.subclass is not None


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is no more than a view of its storage."""
    return not (tensor.conjugate or tensor.negative) and tensor.sparse is None and tensor.subclass is None


def parts_of(tensor: Tensor) -> list[int]:
    """Places of the tensors that a tensor is made of."""
    sparse = tensor.sparse.parts if tensor.sparse else []
    return sparse + [part.tensor for part in (tensor.subclass.parts if tensor.subclass else [])]


def made_of(tensors: Sequence[Tensor], name: str, place: int) -> Iterator[tuple[str, int]]:
    """A tensor and all that it is made of: places of them, and names as those of its parts begin with its own."""
    yield name, place
    row = tensors[place]
    for key, part in zip(_part_keys(row), parts_of(row), strict=True):
        yield from made_of(tensors, part_name(name, key), part)


def _part_keys(tensor: Tensor) -> Sequence[str]:
    if tensor.sparse is not None:
        return SPARSE_LAYOUTS[tensor.sparse.layout]
    return [part.key for part in tensor.subclass.parts] if tensor.subclass else []


def absent_tensors(manifest: Manifest) -> list[bool]:
    """Of each tensor, whether the file leaves out bytes of it."""
    absent: list[bool] = []
    for row in manifest.tensors:
        composite = is_composite(row)
        absent.append(
            any(absent[part] for part in parts_of(row)) if composite else manifest.storages[row.storage].absent
        )
    return absent


def check_composites(tensors: Sequence[Tensor], loc: Loc) -> None:
    """Refuse tensors whose parts do not stand before them, or that no layout or class could have.

    Raises:
        FormatError: The first thing that is wrong.
    """
    depths: dict[int, int] = {}
    parts: set[int] = set()
    for place, tensor in enumerate(tensors):
        if is_composite(tensor):
            depths[place] = _check_composite(tensor, place, depths, (*loc, place))
        if tensor.tied is not None:
            _check_tie(tensors, place, tensor.tied, (*loc, place))
        elif place in depths:
            own = parts_of(tensor)
            if len(set(own)) < len(own) or not parts.isdisjoint(own):
                raise FormatError("made of a tensor that is part of another, or twice of one", loc=(*loc, place))
            parts.update(own)


def _check_composite(tensor: Tensor, place: int, depths: Mapping[int, int], loc: Loc) -> int:
    """How deep the parts of a tensor are nested, from the depths of composites before it."""
    parts = parts_of(tensor)
    if not all(0 <= part < place for part in parts):
        raise FormatError("made of tensors that do not stand before it", loc=loc)
    depth = 1 + max((depths.get(part, 1) for part in parts), default=0)
    if depth > MAX_DEPTH:
        raise FormatError("tensors nested too deep", loc=loc)
    if tensor.sparse is not None:
        _check_sparse(tensor, tensor.sparse, loc)
    if tensor.subclass is not None:
        _check_subclass(tensor.subclass, loc)
    if tensor.storage != -1 or tensor.offset or tensor.conjugate or tensor.negative:
        raise FormatError("made of other tensors, and a view of a storage", loc=loc)
    return depth


def _check_sparse(tensor: Tensor, sparse: Sparse, loc: Loc) -> None:
    names = SPARSE_LAYOUTS.get(sparse.layout)
    if names is None or len(names) != len(sparse.parts) or tensor.subclass or tensor.strides is not None:
        raise FormatError(f"a malformed sparse tensor of layout {sparse.layout[:40]!r}", loc=loc)


def _check_subclass(subclass: Subclass, loc: Loc) -> None:
    check_class(subclass.module, subclass.qualname, loc)
    keys = [check_identifier(part.key, loc) for part in subclass.parts]
    if len(set(keys)) != len(keys) or not keys:
        raise FormatError("a wrapper of no tensors, or of two of one name", loc=loc)
    check_literal(subclass.context, loc)


def _check_tie(tensors: Sequence[Tensor], place: int, first: int, loc: Loc) -> None:
    """Names of one tensor describe one tensor, and the first of them says so of itself."""
    if not 0 <= first < place or tensors[first].tied is not None:
        raise FormatError("another name for a tensor that does not stand before it", loc=loc)
    if replace(tensors[place], name=tensors[first].name, tied=None) != tensors[first]:
        raise FormatError(f"another name for {tensors[first].name[:80]!r}, which differs", loc=loc)
