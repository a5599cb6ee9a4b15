"""The cross-check of the manifest against the header: whether the one speaks of what the other holds."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from archive.bounds import check_literal, check_place
from archive.composites import check_composites, is_composite, is_plain
from archive.header import LARGEST, MAX_DIMENSIONS
from schema.dtypes import CARRIERS, stored_shape
from schema.errors import FormatError, Loc
from schema.manifest import Storage
from schema.names import (
    MANIFEST,
    MANIFEST_DIGEST,
    RESERVED,
    SECTIONS,
    STORAGES,
    check_identifier,
    check_script_class,
    constant_names,
    is_module_name,
    section_name,
)
from schema.version import ABSENT_STORAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from archive.header import Entry
    from schema.manifest import ExampleValue, Manifest, Method, NamedTensor, Object, Section, Tensor

_DIGEST_BYTES: Final = 32
_OPTIONAL: Final = frozenset({"debug"})
_CODES: Final = {dtype: carrier.code for dtype, carrier in CARRIERS.items() if carrier.parts == 1}


def check_structure(manifest: Manifest, entries: Mapping[str, Entry]) -> set[str]:
    """Refuse a manifest that does not describe exactly what the file holds.

    Args:
        manifest: The manifest.
        entries: What the header lists, by name.

    Returns:
        Names of tensors that are just what the header has under their names, and the whole of a storage.

    Raises:
        FormatError: The first thing that is wrong.
    """
    if not manifest.methods:
        raise FormatError("no methods", loc=("manifest", "methods"))
    _unique((method.name for method in manifest.methods), ("manifest", "methods"))
    for method in manifest.methods:
        _check_method(method, manifest, ("manifest", "methods", method.name))
    for place, row in enumerate(manifest.objects):
        _check_object(row, ("manifest", "objects", place))
    _check_stored(manifest, entries)
    _check_absent(manifest, entries)
    _unique((tensor.name for tensor in manifest.tensors), ("manifest", "tensors"))
    stored = _stored_as_they_are(manifest, entries)
    for index, tensor in enumerate(manifest.tensors):
        if tensor.name not in stored:
            _check_tensor(tensor, manifest.storages, ("manifest", "tensors", index))
    check_composites(manifest.tensors, ("manifest", "tensors"))
    _check_owners(manifest, entries, stored)
    for method in manifest.methods:
        _check_names(method, manifest.tensors, ("manifest", "methods", method.name))
    return stored


def _check_stored(manifest: Manifest, entries: Mapping[str, Entry]) -> None:
    """Every stored tensor is described once, and every description has its stored tensor."""
    described = list(_described(manifest))
    names = _unique((name for name, _, _ in described), ("manifest",))
    for name, row, loc in described:
        entry = entries.get(name)
        if entry is None:
            raise FormatError("described, but not in the file", loc=(*loc, row.name))
        if entry.nbytes != row.nbytes:
            raise FormatError(f"{row.nbytes} bytes described, {entry.nbytes} in the file", loc=(*loc, row.name))
        digest = row.blake3 if isinstance(row, Storage) else row.sha256
        if len(digest) != _DIGEST_BYTES:
            raise FormatError(f"a digest of {len(digest)} bytes", loc=(*loc, row.name))
    if stray := entries.keys() - names - {MANIFEST, MANIFEST_DIGEST}:
        raise FormatError(f"{len(stray)} stored tensors are not in the manifest", loc=("header", min(stray)))


def _check_absent(manifest: Manifest, entries: Mapping[str, Entry]) -> None:
    """What is absent is not in the file, and the archive says that it needs a reader who knows of it."""
    absent = [storage for storage in manifest.storages if storage.absent]
    if bool(absent) != (ABSENT_STORAGES in manifest.features):
        raise FormatError(f"the feature {ABSENT_STORAGES!r} does not fit the storages", loc=("manifest", "features"))
    _unique((storage.name for storage in manifest.storages), ("manifest", "storages"))
    for storage in absent:
        loc = ("manifest", "storages", storage.name)
        if storage.name in entries or storage.blake3:
            raise FormatError("absent, but in the file or with a digest", loc=loc)
        if not 0 <= storage.nbytes <= LARGEST:
            raise FormatError(f"{storage.nbytes} bytes", loc=loc)


def most_absent(given: int) -> int:
    """The largest absent storage for which memory is made when tensors of so many bytes are given for it."""
    return 4096 + 64 * given


def _described(manifest: Manifest) -> Iterator[tuple[str, Storage | Section, Loc]]:
    """Everything that the manifest says is stored: its name in the file, its row and the table that has the row."""
    for storage in manifest.storages:
        if not storage.absent:
            yield storage.name, storage, ("manifest", "storages")
    for method in manifest.methods:
        loc = ("manifest", "methods", method.name)
        for section in method.sections:
            yield section_name(method.name, section.name), section, loc


def _stored_as_they_are(manifest: Manifest, entries: Mapping[str, Entry]) -> set[str]:
    """Tensors that are just what the header has under their names, and so as sound as the header is: most are.

    What holds no elements is not among them: nothing limits its sizes.
    """
    storages = manifest.storages
    names: set[str] = set()
    for tensor in manifest.tensors:
        entry = entries.get(tensor.name)
        if (
            entry is not None
            and entry.code == _CODES.get(tensor.dtype)
            and entry.shape == tuple(tensor.shape)
            and entry.start < entry.stop
            and 0 <= tensor.storage < len(storages)
            and storages[tensor.storage].name == tensor.name
            and tensor.strides is None
            and not tensor.offset
            and is_plain(tensor)
        ):
            names.add(tensor.name)
    return names


def _check_tensor(tensor: Tensor, storages: list[Storage], loc: Loc) -> None:
    """The tensor has an element type and a shape, and if it is a view of a storage, it lies inside it."""
    if tensor.dtype not in CARRIERS:
        raise FormatError(f"unknown element type {tensor.dtype[:40]!r}", loc=loc)
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise FormatError(f"{len(tensor.shape)} dimensions", loc=loc)
    strides = strides_of(tensor)
    if len(strides) != len(tensor.shape):
        raise FormatError(f"{len(strides)} strides for {len(tensor.shape)} dimensions", loc=loc)
    itemsize = CARRIERS[tensor.dtype].nbytes
    composite = is_composite(tensor)  # a sparse tensor may stand for more elements than any memory holds
    numbers = (*tensor.shape, *strides, tensor.offset, 0 if composite else math.prod(tensor.shape) * itemsize)
    if min(numbers) < 0 or max(numbers) > LARGEST:
        raise FormatError("a size, stride or offset is out of range", loc=loc)
    if composite:
        return
    check_place(tensor.storage, storages, "storage", loc)
    if tensor.conjugate and "complex" not in tensor.dtype:
        raise FormatError(f"a conjugate of {tensor.dtype}", loc=loc)
    needed = (tensor.offset + _extent(tensor.shape, strides)) * itemsize
    if needed > storages[tensor.storage].nbytes:
        room = storages[tensor.storage].nbytes
        raise FormatError(f"needs {needed} bytes of a storage of {room} bytes", loc=loc)


def _check_owners(manifest: Manifest, entries: Mapping[str, Entry], stored: set[str]) -> None:
    """What other readers find under a tensor's name is that tensor; other storages are under names of our own."""
    tensors = {tensor.name: tensor for tensor in manifest.tensors}
    for place, storage in enumerate(manifest.storages):
        if storage.name in stored or storage.name.startswith(STORAGES):
            continue
        owner = tensors.get(storage.name)
        if owner is None or owner.storage != place or owner.offset or not _is_plain(owner):
            raise FormatError("a storage under the name of a tensor that is not it", loc=("header", storage.name))
        if storage.absent:
            continue
        entry = entries[storage.name]
        if (entry.code, entry.shape) != (CARRIERS[owner.dtype].code, stored_shape(owner.dtype, owner.shape)):
            found = f"{entry.code}{list(entry.shape)}"
            raise FormatError(f"{owner.dtype}{owner.shape} stored as {found}", loc=("header", storage.name))


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is what its bytes say: in order, and neither conjugated nor negated."""
    return is_contiguous(tensor.shape, tensor.strides) and not (tensor.conjugate or tensor.negative)


def _check_names(method: Method, tensors: Sequence[Tensor], loc: Loc) -> None:
    """Parameters, buffers and constants are the tensors of their names."""
    for item in method.state:
        if tensors[item.tensor].name != item.key or item.key.startswith(RESERVED):
            raise FormatError("a parameter that is not the tensor of its name", loc=(*loc, "state", item.key))
    for item in method.constants:
        if tensors[item.tensor].name not in constant_names(method.name, item.key):
            raise FormatError("a constant that is not the tensor of its name", loc=(*loc, "constants", item.key))


def contiguous_strides(shape: Iterable[int]) -> list[int]:
    """Strides of a tensor whose elements follow each other, in elements; a dimension of size 0 counts as 1."""
    strides, step = [], 1
    for size in reversed(list(shape)):
        strides.append(step)
        step *= size or 1
    return strides[::-1]


def strides_of(tensor: Tensor) -> list[int]:
    """Strides of a tensor, in elements, also where the table leaves them out."""
    return contiguous_strides(tensor.shape) if tensor.strides is None else tensor.strides


def is_contiguous(shape: Sequence[int], strides: Sequence[int] | None) -> bool:
    """Whether elements follow each other; strides of dimensions of one element, or of nothing, do not matter."""
    if strides is None or 0 in shape:
        return True
    canonical = contiguous_strides(shape)
    return all(size == 1 or stride == wanted for size, stride, wanted in zip(shape, strides, canonical, strict=True))


def _extent(shape: list[int], strides: list[int]) -> int:
    """How many elements from its first a view reaches over."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _check_object(row: Object, loc: Loc) -> None:
    check_script_class(row.name, loc)
    check_literal(row.state, (*loc, "state"))
    _check_provider(row.provider, loc)


def _check_provider(provider: str, loc: Loc) -> None:
    if provider and not is_module_name(provider):
        raise FormatError(f"{provider[:80]!r} is no module", loc=loc)


def _check_method(method: Method, manifest: Manifest, loc: Loc) -> None:
    check_identifier(method.name, loc)
    for section in method.sections:
        if section.name not in SECTIONS:
            raise FormatError(f"unknown section {section.name[:80]!r}", loc=loc)
        if section.decoded_nbytes < 0:
            raise FormatError(f"decodes to {section.decoded_nbytes} bytes", loc=(*loc, section.name))
    if missing := set(SECTIONS) - _OPTIONAL - {section.name for section in method.sections}:
        raise FormatError(f"section {min(missing)!r} is missing", loc=loc)
    for use in method.operators:
        _check_provider(use.provider, (*loc, "operators", use.name[:80]))
    for table in ("state", "constants"):
        _check_named(getattr(method, table), len(manifest.tensors), (*loc, table))
    if method.objects:
        _check_named_objects(method, len(manifest.objects), (*loc, "objects"))
    for table in ("example", "expected"):
        _check_values(getattr(method, table) or [], manifest, (*loc, table))


def _check_named(table: list[NamedTensor], tensors: int, loc: Loc) -> None:
    _unique((item.key for item in table), loc)
    for item in table:
        check_place(item.tensor, tensors, "tensor", (*loc, item.key))


def _check_named_objects(method: Method, objects: int, loc: Loc) -> None:
    """Every constant has a name and a place of its own."""
    _unique([*(item.key for item in method.constants), *(item.key for item in method.objects)], loc)
    places = [item.at for item in method.objects]
    if places != sorted(set(places)) or places[0] < 0 or places[-1] >= len(method.constants) + len(places):
        raise FormatError("not each in a place of its own among the constants", loc=loc)
    for item in method.objects:
        check_place(item.object, objects, "object", (*loc, item.key))


def _check_values(values: list[ExampleValue], manifest: Manifest, loc: Loc) -> None:
    for index, item in enumerate(values):
        if item.tensor is not None:
            check_place(item.tensor, manifest.tensors, "tensor", (*loc, index))
        if item.object is not None:
            check_place(item.object, manifest.objects, "object", (*loc, index))
        check_literal(item.value, (*loc, index))


def _unique(names: Iterable[str], loc: Loc) -> set[str]:
    """The names, no two of which are the same."""
    names = list(names)
    distinct = set(names)
    if len(distinct) != len(names):
        [(name, _)] = Counter(names).most_common(1)
        raise FormatError(f"{name[:80]!r} is there twice", loc=loc)
    return distinct
