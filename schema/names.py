"""Names: where things lie in the file, and which strings may become part of generated code."""

from __future__ import annotations

import keyword
from typing import Final

from schema.errors import FormatError, Loc

MANIFEST: Final = "__program__/manifest"
MANIFEST_DIGEST: Final = "__program__/manifest.sha256"
CONSTANTS: Final = "__constants__/"
STORAGES: Final = "__storages__/"
RESERVED: Final = ("__program__/", CONSTANTS, STORAGES)
"""Prefixes of tensor names that are ours; no parameter may be named so."""

SECTIONS: Final = ("graph", "signature", "constraints", "calls", "debug")
"""The sections of one method, in the order in which they are written."""


def section_name(method: str, section: str) -> str:
    """Name of the tensor that holds one section of one method."""
    return f"__program__/{method}/{section}"


def example_name(method: str, index: int) -> str:
    """Name of one recorded example value of a method: inputs first, then expected outputs."""
    return f"__program__/{method}/example/{index}"


def is_identifier(name: str) -> bool:
    """Whether a name can stand in generated Python code: an ASCII identifier that is no keyword."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)


def check_identifier(name: str, loc: Loc) -> str:
    """Return the name if generated code may contain it.

    Raises:
        FormatError: It is not an identifier.
    """
    if not is_identifier(name):
        raise FormatError(f"{name[:80]!r} is not an identifier", loc=loc)
    return name


def check_fqn(name: str, loc: Loc) -> str:
    """Return the fully qualified name if it can be an attribute path.

    torch's code generator writes parts that are no identifiers between double quotes, so nothing that could end a
    quoted string may be in one.

    Raises:
        FormatError: A part is empty, or holds a quote, a backslash or a control character.
    """
    parts = name.split(".")
    if not all(part and part.isprintable() and not set(part) & set("\"'\\") for part in parts):
        raise FormatError(f"{name[:80]!r} is not a qualified name", loc=loc)
    return name
