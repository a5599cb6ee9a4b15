"""Texts that end up in code that torch generates: what a loader must refuse is not written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schema.errors import Loc, UnsupportedError
from schema.literals import Entries, Items, Literal, Tuple
from schema.names import are_fqns, is_fqn, is_identifier, is_plain_text, is_stack_text

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_text(text: str, loc: Loc) -> str:
    """Return the text if code may contain it between quotes.

    Raises:
        UnsupportedError: It holds a quote, a backslash or a control character.
    """
    if not is_plain_text(text):
        message = f"{text[:80]!r} holds a quote, a backslash or a control character"
        raise UnsupportedError(message, loc=loc, remedy="rename it, or pass it in another form")
    return text


def check_stack_text(text: str, loc: Loc) -> str:
    """Return the text if a module stack may hold it.

    Raises:
        UnsupportedError: It holds a double quote, a backslash or a control character.
    """
    if not is_stack_text(text):
        message = f"{text[:80]!r} holds a double quote, a backslash or a control character"
        raise UnsupportedError(message, loc=loc, remedy="rename the module")
    return text


def check_fqn(name: str, loc: Loc) -> str:
    """Return the name if it can be an attribute path.

    Raises:
        UnsupportedError: A part is empty or no plain text.
    """
    if not is_fqn(name):
        raise UnsupportedError(
            f"{name[:80]!r} cannot be an attribute's name in an archive", loc=loc, remedy="rename it"
        )
    return name


def check_fqns(names: Sequence[str], loc: Loc) -> None:
    """Refuse names of which one cannot be an attribute path; many of them at once.

    Raises:
        UnsupportedError: A part of one is empty or no plain text.
    """
    if not are_fqns(names):
        for name in names:
            check_fqn(name, loc)


def check_argument_name(name: object, loc: Loc) -> None:
    """Refuse the name of an argument that no code can have.

    Raises:
        UnsupportedError: It is no identifier.
    """
    if not isinstance(name, str) or not is_identifier(name):
        raise UnsupportedError(f"{name!r} cannot be an argument's name", loc=loc, remedy="rename it")


def check_keys(context: Literal, loc: Loc) -> None:
    """Refuse keys of inputs that code cannot contain.

    Raises:
        UnsupportedError: One holds a quote, a backslash or a control character.
    """
    match context:
        case str():
            check_text(context, loc)
        case Items(items) | Tuple(items):
            for item in items:
                check_keys(item, loc)
        case Entries(keys, values):
            for item in (*keys, *values):
                check_keys(item, loc)
