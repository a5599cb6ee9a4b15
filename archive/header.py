"""The safetensors header: parsed and checked whole, before anything that it says is believed.

The library that writes the file accepts headers that its own specification forbids (repeated keys, leading spaces,
empty names), and it reports what is wrong without a remedy; hence our own reader.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, NoReturn

import msgspec

from archive.text import count_text
from schema.dtypes import CODE_BYTES
from schema.errors import FormatError
from schema.limits import RAISE_LIMIT
from schema.names import MANIFEST, is_encodable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_HEADER_BYTES: Final = 100_000_000
"""The largest header that safetensors allows; that of an archive is held to a limit of its own."""

MAX_DIMENSIONS: Final = 64
"""How many dimensions a tensor may have; torch has the same limit."""

LARGEST: Final = 2**63 - 1
"""The largest size or offset; torch counts in signed 64 bits."""

_PREFIX_BYTES: Final = 8
_LINE_BYTES: Final = 64
"""A cache line. Kernels take up to a tenth longer for weights that do not begin on one."""

_METADATA: Final = "__metadata__"
_RANKS: Final = {code: rank for rank, code in enumerate(CODE_BYTES)}
METADATA: Final = {"format": "pt"}
"""The whole of the header's metadata: several keys would be written in random order; other libraries expect this."""


class Kind(NamedTuple):
    """What a file is read as.

    Attributes:
        noun: What to call it.
        make: How to come by one.
    """

    noun: str
    make: str


ARCHIVE: Final = Kind("program archive", "make an archive with `archive export`")
WEIGHTS: Final = Kind("safetensors file", "pass its tensors by name, or save them with safetensors")

_STRANGERS: Final = (
    (b"PK\x03\x04", "a zip file, as torch.save and torch.export.save write", "load it with torch, then {make}"),
    (b"\x80\x02", "a pickle file, as torch.save used to write", "load it with torch, then {make}"),
    (b"\x80\x03", "a pickle file", "nothing here unpickles; {make}"),
    (b"\x80\x04", "a pickle file", "nothing here unpickles; {make}"),
    (b"\x80\x05", "a pickle file", "nothing here unpickles; {make}"),
    (b"GGUF", "a GGUF file", "{make}"),
    (b"\x89HDF", "an HDF5 file", "{make}"),
    (b"\x1f\x8b", "a gzip file", "decompress it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "decompress it first"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"),
)
"""First bytes of files that are mistaken for archives, what they are, and what to do."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A stored tensor.

    Attributes:
        code: safetensors dtype code.
        shape: Size of each dimension, in elements.
        start: Where its bytes start, in bytes from the start of the file.
        stop: Where they end.
    """

    code: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.stop - self.start


_Size = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]


class _Row(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    dtype: str
    shape: Annotated[tuple[_Size, ...], msgspec.Meta(max_length=MAX_DIMENSIONS)]
    data_offsets: tuple[_Size, _Size]


_ROWS: Final = msgspec.json.Decoder(dict[str, _Row])
_COMPACT_START: Final = b'{"__metadata__":{"format":"pt"},'
"""How the headers begin that are written without spaces, with the metadata of an archive."""


def read_header(
    read: Callable[[int, int], bytes], size: int, kind: Kind = ARCHIVE, most: int = MAX_HEADER_BYTES
) -> dict[str, Entry]:
    """Every tensor of a safetensors file, in the order of their bytes.

    Args:
        read: Gives the bytes of the file from a start to a stop.
        size: Size of the file in bytes.
        kind: ``ARCHIVE`` for one that holds an archive, ``WEIGHTS`` for any.
        most: The most bytes that the header may have.

    Raises:
        FormatError: The file is no safetensors file, is truncated, breaks the rules or is not of the kind.
    """
    first = _PREFIX_BYTES + _header_length(read(0, min(size, 64)), size, kind, most)
    header = read(_PREFIX_BYTES, first)
    rows = _archive_rows(header) if kind is ARCHIVE else _plain_rows(header)
    return _entries(rows, first, size, kind)


def _header_length(start: bytes, size: int, kind: Kind, most: int) -> int:
    """Length of the header in bytes, from the first bytes of the file."""
    if not start:
        raise FormatError("the file is empty", remedy=kind.make)
    if start[_PREFIX_BYTES : _PREFIX_BYTES + 1] not in (b"{", b""):
        _refuse_stranger(start, kind)
    if len(start) <= _PREFIX_BYTES:
        raise FormatError(f"not a {kind.noun}: only {size} bytes", remedy=kind.make)
    length = int.from_bytes(start[:_PREFIX_BYTES], "little")
    if length > most:
        remedy = RAISE_LIMIT.format("header_bytes") if kind is ARCHIVE else ""
        raise FormatError(f"declares a header of {length} bytes, more than {most}", loc=("header",), remedy=remedy)
    if length > size - _PREFIX_BYTES:
        _refuse_truncated(_PREFIX_BYTES + length - size, "at least ")
    return length


def _refuse_stranger(start: bytes, kind: Kind) -> NoReturn:
    for magic, what, remedy in _STRANGERS:
        if start.startswith(magic):
            raise FormatError(f"{what}, not a {kind.noun}", remedy=remedy.format(make=kind.make))
    raise FormatError(f"not a {kind.noun}: no safetensors header", remedy=kind.make)


def _refuse_truncated(missing: int, about: str = "") -> NoReturn:
    remedy = "copy or download it again"
    are = "is" if missing == 1 else "are"
    raise FormatError(f"the file is truncated: {about}{count_text(missing, 'byte')} {are} missing", remedy=remedy)


def _archive_rows(header: bytes) -> dict[str, _Row]:
    """The rows of a header in the one form in which archives have it; what has another shape is not made first."""
    if json.dumps(MANIFEST).encode() not in header:
        raise FormatError(f"a safetensors file, not a {ARCHIVE.noun}", remedy=ARCHIVE.make)
    if not header.startswith(_COMPACT_START):
        raise FormatError(f"does not begin with the {_METADATA} {METADATA}", loc=("header",))
    try:
        rows = _compact_rows(header)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not a valid safetensors header: {error}", loc=("header",)) from error
    if rows is None:
        raise FormatError("not in canonical form (repeated keys, spaces or escapes)", loc=("header",))
    return rows


def _compact_rows(header: bytes) -> dict[str, _Row] | None:
    """The rows of a header just as safetensors writes one for us; None of any other that can be read.

    That they give the same bytes again shows that nothing is repeated or unknown.
    """
    fields = b"{" + header[len(_COMPACT_START) :].rstrip(b" ")
    rows = _ROWS.decode(fields)
    return rows if _METADATA not in rows and msgspec.json.encode(rows) == fields else None


def _plain_rows(header: bytes) -> dict[str, _Row]:
    """The rows of a header that another writer may have written."""
    try:
        if header.startswith(_COMPACT_START) and (rows := _compact_rows(header)):
            return rows
        fields: dict[str, object] = json.loads(str(header, "utf-8"), object_pairs_hook=without_repeats)
        _check_metadata(fields.pop(_METADATA, {}))
        return msgspec.convert(fields, type=dict[str, _Row])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not a valid safetensors header: {error}", loc=("header",)) from error


def _check_metadata(metadata: object) -> None:
    """Other writers' metadata are pairs of texts."""
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{_METADATA} is not of texts", loc=("header",))


def without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object without a repeated key.

    Raises:
        ValueError: A key is repeated.
    """
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is repeated")
    return fields


def _entries(rows: dict[str, _Row], first: int, size: int, kind: Kind) -> dict[str, Entry]:
    """The tensors in the order of their bytes, which must fill the file from ``first`` without hole or overlap."""
    if "" in rows:
        raise FormatError("a tensor without a name", loc=("header",))
    if not is_encodable("".join(rows)):
        raise FormatError("a name that is not text", loc=("header",))
    entries, end = {}, 0
    for name, row in sorted(rows.items(), key=lambda item: item[1].data_offsets):
        start, stop = row.data_offsets
        itemsize = CODE_BYTES.get(row.dtype)
        if itemsize is None or stop - start != math.prod(row.shape) * itemsize:
            _check_misfit(name, row, kind)
        if start != end:
            fault = "overlaps another tensor" if start < end else "leaves bytes before it unused"
            raise FormatError(fault, loc=("header", name))
        entries[name] = Entry(row.dtype, row.shape, first + start, first + stop)
        end = stop
    if first + end > size:
        _refuse_truncated(first + end - size)
    if first + end < size:
        raise FormatError(f"{size - first - end} bytes follow the last tensor", remedy="copy or download it again")
    return entries


def _check_misfit(name: str, row: _Row, kind: Kind) -> None:
    """Refuse a tensor whose bytes are not as many as its type and shape say, but for types that other writers have."""
    start, stop = row.data_offsets
    if row.dtype in CODE_BYTES or stop < start:
        raise FormatError(f"{stop - start} bytes do not hold {row.dtype}{list(row.shape)}", loc=("header", name))
    if kind is ARCHIVE:
        raise FormatError(f"an archive holds no tensors of dtype {row.dtype[:20]!r}", loc=("header", name))


def layout_key(name: str, code: str, nbytes: int) -> tuple[bool, int, str]:
    """What tensors are sorted by in a file: first those after which the next begins on a cache line, as they do.

    Else it is the safetensors library's order, in which each begins at a multiple of the size of its elements.
    """
    return nbytes % _LINE_BYTES != 0, -_RANKS[code], name


def encode_header(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """The first bytes of a file, as the safetensors library writes them, filled up to the end of a cache line.

    Args:
        tensors: Name, dtype code, shape and size in bytes of each, in their order in the file.
    """
    fields: dict[str, object] = {_METADATA: METADATA}
    stop = 0
    for name, code, shape, nbytes in tensors:
        start, stop = stop, stop + nbytes
        fields[name] = {"dtype": code, "shape": shape, "data_offsets": (start, stop)}
    text = msgspec.json.encode(fields)
    padded = text.ljust((_PREFIX_BYTES + len(text)) // -_LINE_BYTES * -_LINE_BYTES - _PREFIX_BYTES)
    return len(padded).to_bytes(_PREFIX_BYTES, "little") + padded
