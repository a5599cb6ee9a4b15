"""How much a reader spends on a file at most, before it knows what is in it."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

_MEBIBYTE: Final = 1024 * 1024

RAISE_LIMIT: Final = "if you trust the file, pass limits=Limits({}=…)"
"""The remedy of an error that says that a limit is exceeded, but for the limit's name."""


class Limits(Struct, frozen=True, kw_only=True):
    """What a file may ask of a reader; one that asks for more is refused.

    By default a reader spends at most about 200 MB before it refuses a file, and reads programs of 50,000 tensors and
    some hundred thousand nodes. Who serves smaller ones can set less.

    Attributes:
        header_bytes: Size of the header.
        manifest_bytes: Size of the manifest.
        section_bytes: Size of a section when it is decompressed.
        containers: How many lists, maps and records one document may have.
    """

    header_bytes: int = 8 * _MEBIBYTE
    manifest_bytes: int = 16 * _MEBIBYTE
    section_bytes: int = 16 * _MEBIBYTE
    containers: int = 500_000


DEFAULT_LIMITS: Final = Limits()
