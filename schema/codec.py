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

MAX_DECODED_BYTES: Final = 64 * 1024 * 1024
"""The largest section that is decompressed; 1,000,000 nodes need about a third of it."""

MAX_RATIO: Final = 2_000
"""How many bytes one stored byte may stand for, beyond the first mebibyte; real graphs come to some hundred."""

_ALWAYS_ALLOWED_BYTES: Final = 1024 * 1024
_LEVEL: Final = 3
_MAX_WINDOW_BYTES: Final = 8 * 1024 * 1024
_ENCODER: Final = msgspec.msgpack.Encoder()


class _Own(threading.local):
    """What each thread has for itself: decompressors are not safe to share, and slow to make."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)


_OWN: Final = _Own()

Document = TypeVar("Document", bound=msgspec.Struct)


def encode(document: msgspec.Struct) -> bytes:
    """Canonical msgpack bytes of a document."""
    return _ENCODER.encode(document)


def decode(data: bytes, kind: type[Document], loc: Loc, *, canonical: bool = True) -> Document:
    """The document in some bytes.

    Args:
        data: msgpack bytes.
        kind: The document's type.
        loc: Where the bytes come from, for errors.
        canonical: Whether to refuse bytes that differ from what :func:`encode` gives. A reader of another minor
            version, which has other fields, cannot ask for this.

    Raises:
        FormatError: The bytes are not such a document.
    """
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


def most_decoded(nbytes: int) -> int:
    """How many bytes a frame of some size may decompress to."""
    return min(MAX_DECODED_BYTES, _ALWAYS_ALLOWED_BYTES + MAX_RATIO * nbytes)


def compress(data: bytes) -> bytes:
    """One zstd frame that declares its content size and ends in a checksum."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True).compress(data)


def decompress(frame: bytes, size: int, loc: Loc) -> bytes:
    """The content of one zstd frame.

    Args:
        frame: The frame.
        size: The size in bytes that its content must have.
        loc: Where the bytes come from, for errors.

    Raises:
        FormatError: The frame does not have that size, is too large, damaged or followed by more bytes.
    """
    try:
        # python-zstandard ignores max_output_size when a frame declares its size: judge the declaration first.
        declared = zstandard.frame_content_size(frame)
        most = most_decoded(len(frame))
        if declared != size or size > most:
            due = f"{size} of at most {most}"
            raise FormatError(f"declares {declared} bytes where {due} are due", loc=loc)
        parameters = zstandard.get_frame_parameters(frame)
        if not parameters.has_checksum or parameters.dict_id:
            raise FormatError("a zstd frame without checksum, or with a dictionary", loc=loc)
        content = _OWN.decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"not a valid zstd frame: {error}", loc=loc) from error
    if len(content) != size:
        raise FormatError(f"holds {len(content)} bytes where {size} are due", loc=loc)
    return content
