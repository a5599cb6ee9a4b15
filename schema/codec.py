"""Documents to bytes and back: canonical msgpack, and the zstd frame of a section.

The same document always gives the same bytes. A reader of the very same version refuses bytes that are not the
canonical ones, so no two readers can understand one file differently (repeated keys, padded numbers).
"""

from __future__ import annotations

import threading
from typing import Final, TypeVar

import msgspec
import zstandard

from schema.errors import FormatError, Loc
from schema.limits import DEFAULT_LIMITS, RAISE_LIMIT, Limits

MAX_RATIO: Final = 2_000
"""How many bytes one stored byte may stand for, beyond the first mebibyte; real graphs come to some hundred."""

_ALWAYS_ALLOWED_BYTES: Final = 1024 * 1024
_LEVEL: Final = 3
_MAX_WINDOW_BYTES: Final = 8 * 1024 * 1024
_ENCODER: Final = msgspec.msgpack.Encoder()

_CONTAINER_BYTES: Final = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""What a list, map or record begins with in msgpack; other bytes may be like it."""


class _Own(threading.local):
    """What each thread has for itself: decompressors are not safe to share, and slow to make."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)


_OWN: Final = _Own()

Document = TypeVar("Document", bound=msgspec.Struct)


def learn(*kinds: type) -> None:
    """Make msgspec learn types when they are imported: it crashes where several threads are the first to decode one."""
    for kind in kinds:
        msgspec.msgpack.Decoder(kind)


def encode(document: msgspec.Struct) -> bytes:
    """Canonical msgpack bytes of a document."""
    return _ENCODER.encode(document)


def decode(
    data: bytes, kind: type[Document], loc: Loc, *, canonical: bool = True, limits: Limits = DEFAULT_LIMITS
) -> Document:
    """The document in some bytes.

    Args:
        data: msgpack bytes.
        kind: The document's type.
        loc: Where the bytes come from, for errors.
        canonical: Whether to refuse bytes that differ from what :func:`encode` gives. A reader of another minor
            version, which has other fields, cannot ask for this.
        limits: How many containers it may have: an empty one takes a byte here and fifty in memory.

    Raises:
        FormatError: The bytes are not such a document, or one of too many containers.
    """
    if len(data) > limits.containers and most_containers(data) > limits.containers:
        message = f"holds more than {limits.containers} lists, maps and records"
        raise FormatError(message, loc=loc, remedy=RAISE_LIMIT.format("containers"))
    try:
        document = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise FormatError(f"not a valid {kind.__name__} document: {error}", loc=loc) from error
    if canonical:
        check_canonical(document, data, loc)
    return document


def check_canonical(document: msgspec.Struct, data: bytes, loc: Loc) -> None:
    """Refuse bytes that are not those which :func:`encode` gives for the document in them.

    Raises:
        FormatError: They are others.
    """
    if encode(document) != data:
        raise FormatError("not in canonical form (repeated keys, padding or unknown fields)", loc=loc)


def most_containers(data: bytes) -> int:
    """How many containers a document has at most."""
    return len(data) - len(data.translate(None, _CONTAINER_BYTES))


def most_decoded(nbytes: int, limits: Limits = DEFAULT_LIMITS) -> int:
    """How many bytes a frame of some size may decompress to."""
    return min(limits.section_bytes, _ALWAYS_ALLOWED_BYTES + MAX_RATIO * nbytes)


def compress(data: bytes) -> bytes:
    """One zstd frame that declares its content size and ends in a checksum."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True).compress(data)


def decompress(frame: bytes, size: int, loc: Loc, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The content of one zstd frame.

    Args:
        frame: The frame.
        size: The size in bytes that its content must have.
        loc: Where the bytes come from, for errors.
        limits: How large it may be.

    Raises:
        FormatError: The frame does not have that size, is too large, damaged or followed by more bytes.
    """
    try:
        # python-zstandard ignores max_output_size when a frame declares its size: judge the declaration first.
        declared = zstandard.frame_content_size(frame)
        if declared != size:
            raise FormatError(f"declares {declared} bytes where {size} are due", loc=loc)
        if size > (most := most_decoded(len(frame), limits)):
            remedy = RAISE_LIMIT.format("section_bytes") if most == limits.section_bytes else ""
            raise FormatError(f"declares {size} bytes, more than {most}", loc=loc, remedy=remedy)
        parameters = zstandard.get_frame_parameters(frame)
        if not parameters.has_checksum or parameters.dict_id:
            raise FormatError("a zstd frame without checksum, or with a dictionary", loc=loc)
        content = _OWN.decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"not a valid zstd frame: {error}", loc=loc) from error
    if len(content) != size:
        raise FormatError(f"holds {len(content)} bytes where {size} are due", loc=loc)
    return content
