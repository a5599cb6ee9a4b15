"""Names: where things lie in the file, and which strings may become part of generated code."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING, Final

from schema.errors import FormatError, Loc

if TYPE_CHECKING:
    from collections.abc import Sequence

MANIFEST: Final = "__program__/manifest"
MANIFEST_DIGEST: Final = "__program__/manifest.sha256"
CONSTANTS: Final = "__constants__/"
STORAGES: Final = "__storages__/"
PARTS: Final = "__parts__/"
OBJECTS: Final = "__objects__/"
RESERVED: Final = ("__program__/", CONSTANTS, STORAGES, PARTS, OBJECTS)
"""Prefixes of tensor names that are ours; no parameter may be named so."""

SECTIONS: Final = ("graph", "signature", "constraints", "calls", "debug")
"""The sections of one method, in the order in which they are written."""

SCRIPT_CLASSES: Final = "torch.classes."
"""What the names of classes that libraries register with torch begin with; a namespace and a name follow."""

_NO_NAMES: Final = frozenset({*keyword.kwlist, "__debug__"})
"""What looks like an identifier, and code cannot give a value."""


def section_name(method: str, section: str) -> str:
    """Name of the tensor that holds one section of one method."""
    return f"__program__/{method}/{section}"


def constant_names(method: str, fqn: str) -> tuple[str, str]:
    """Names that the tensor of a constant can have: shared by methods, or one method's own."""
    return CONSTANTS + fqn, f"{CONSTANTS}{method}/{fqn}"


def example_name(method: str, index: int) -> str:
    """Name of one recorded example value of a method: inputs first, then expected outputs."""
    return f"__program__/{method}/example/{index}"


def part_name(name: str, part: str) -> str:
    """Name of one of the tensors that a sparse tensor or wrapper subclass is made of."""
    return f"{PARTS}{name}/{part}"


def state_name(place: int, index: int) -> str:
    """Name of one of the tensors in the state of an object, by the object's place in the manifest's table."""
    return f"{OBJECTS}{place}/{index}"


def is_identifier(name: str) -> bool:
    """Whether a name can stand in generated Python code: an ASCII identifier that is no keyword."""
    return name.isascii() and name.isidentifier() and name not in _NO_NAMES


def is_module_name(name: str) -> bool:
    """Whether a name can be that of a Python module: identifiers between dots."""
    return len(name) <= 200 and all(map(is_identifier, name.split(".")))


def check_identifier(name: str, loc: Loc) -> str:
    """Return the name if generated code may contain it.

    Raises:
        FormatError: It is not an identifier.
    """
    if not is_identifier(name):
        raise FormatError(f"{name[:80]!r} is not an identifier", loc=loc)
    return name


def check_identifiers(names: Sequence[str], loc: Loc) -> None:
    """Refuse names of which generated code must not contain one; many of them at once.

    Raises:
        FormatError: One is not an identifier.
    """
    if not ("".join(names).isascii() and all(map(str.isidentifier, names)) and _NO_NAMES.isdisjoint(names)):
        for name in names:
            check_identifier(name, (*loc, name[:80]))


def is_class(module: str, name: str) -> bool:
    """Whether a class can be found under a name in a module: not one that was defined in a function."""
    return all(is_identifier(part) for part in (*module.split("."), *name.split(".")))


def check_class(module: str, name: str, loc: Loc) -> None:
    """Refuse the name of a class under which none can be found.

    Raises:
        FormatError: It, or that of its module, is no path of identifiers.
    """
    if not is_class(module, name):
        raise FormatError(f"{module[:80]!r} and {name[:80]!r} name no class", loc=loc)


def is_script_class(name: str) -> bool:
    """Whether a name can be that of a class which a library registers with torch."""
    parts = name.removeprefix(SCRIPT_CLASSES).split(".")
    return name.startswith(SCRIPT_CLASSES) and len(parts) == 2 and all(map(is_identifier, parts))


def check_script_class(name: str, loc: Loc) -> None:
    """Refuse what cannot be the name of a class which a library registers with torch.

    Raises:
        FormatError: It is no namespace and name after :data:`SCRIPT_CLASSES`.
    """
    if not is_script_class(name):
        raise FormatError(f"{name[:80]!r} is no class of script objects", loc=loc)


def is_method_name(name: object) -> bool:
    """Whether a graph may call the method of an object under a name: not those that Python gives every object."""
    return isinstance(name, str) and is_identifier(name) and not name.startswith("__")


def is_encodable(text: str) -> bool:
    """Whether a text is Unicode: JSON can write halves of surrogate pairs, which nothing can print."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def is_stack_text(text: str) -> bool:
    """Whether a text can be in a module stack: between double quotes in generated code, and there alone.

    Dynamo calls a module that is found in a dictionary by the expression that finds it: ``G['activations'].gelu``.
    """
    return text.isprintable() and not ('"' in text or "\\" in text)


def is_plain_text(text: str) -> bool:
    """Whether a text can stand between quotes in generated code: printable, without quotes and backslashes."""
    return is_stack_text(text) and "'" not in text


def check_plain_text(text: str, loc: Loc) -> str:
    """Return the text if generated code may contain it between quotes.

    Raises:
        FormatError: It is not printable, or holds a quote or backslash.
    """
    if not is_plain_text(text):
        raise FormatError(f"{text[:80]!r} holds a quote, a backslash or a control character", loc=loc)
    return text


def check_plain_texts(texts: Sequence[str], loc: Loc) -> None:
    """Refuse texts of which generated code must not contain one between quotes; many of them at once.

    Raises:
        FormatError: One is not printable, or holds a quote or backslash.
    """
    if not is_plain_text("".join(texts)):
        for text in texts:
            check_plain_text(text, loc)


def is_fqn(name: str) -> bool:
    """Whether a name can be an attribute path: parts between dots that are plain text and not empty."""
    return is_plain_text(name) and ".." not in f".{name}."


def are_fqns(names: Sequence[str]) -> bool:
    """Whether each of some names can be an attribute path; put together they have the parts that they have each."""
    return not names or is_fqn(".".join(names))


def check_stack_texts(texts: Sequence[str], loc: Loc) -> None:
    """Refuse texts of which a module stack must not hold one; many of them at once.

    Raises:
        FormatError: One is not printable, or holds a double quote or backslash.
    """
    if not is_stack_text("".join(texts)):
        wrong = next(text for text in texts if not is_stack_text(text))
        raise FormatError(f"{wrong[:80]!r} holds a double quote, a backslash or a control character", loc=loc)


def check_fqn(name: str, loc: Loc) -> str:
    """Return the fully qualified name if it can be an attribute path.

    torch's code generator writes parts that are no identifiers between double quotes, so nothing that could end a
    quoted string may be in one.

    Raises:
        FormatError: A part is empty, or holds a quote, a backslash or a control character.
    """
    if not is_fqn(name):
        raise FormatError(f"{name[:80]!r} is not a qualified name", loc=loc)
    return name


def check_fqns(names: Sequence[str], loc: Loc) -> None:
    """Refuse names of which one cannot be an attribute path; many of them at once.

    Raises:
        FormatError: A part of one is empty, or holds a quote, a backslash or a control character.
    """
    if not are_fqns(names):
        for name in names:
            check_fqn(name, (*loc, name[:80]))
