"""How large what an archive holds may be, and the checks that all sections share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from schema import literals
from schema.errors import FormatError, Loc
from schema.names import check_class

MAX_DEPTH: Final = 64
"""How deep containers, trees and operands may be nested; Python's parser allows about 90 in code."""

MAX_EXPRESSION_SIZE: Final = 5_000
"""How many functions, numbers and symbols an expression may have when it is written out."""

MAX_EXPRESSION_BITS: Final = 4_096
"""How many bits the value of an expression may have, if every symbol in it has 64."""

MAX_STACK_DEPTH: Final = 256
"""How many modules may be inside each other."""

MAX_PARTS: Final = 10_000_000
"""How many values, counted where they are used, the tables of one section may stand for."""

MAX_STACK_TEXT: Final = 1_000_000
"""How many characters one stack trace may have."""

MAX_STACKS_TEXT: Final = 256_000_000
"""How many characters all distinct stack traces may have."""


def check_place(place: int, rows: Sequence[Any] | int, what: str, loc: Loc) -> None:
    """See to it that a place is one of a table's.

    Args:
        place: The place.
        rows: The table, or how many rows it has.
        what: What its rows are.
        loc: Where the place is named.

    Raises:
        FormatError: It is not.
    """
    count = rows if isinstance(rows, int) else len(rows)
    if not 0 <= place < count:
        raise FormatError(f"{what} {place} of {count}", loc=loc)


def check_literal(literal: literals.Literal, loc: Loc, depth: int = 0) -> int:
    """How many parts a literal has.

    Raises:
        FormatError: It is nested too deep, or names what is no class.
    """
    if depth > MAX_DEPTH:
        raise FormatError("a value nested too deep", loc=loc)
    inner: Iterable[literals.Literal] = ()
    match literal:
        case literals.Items(items) | literals.Tuple(items):
            inner = items
        case literals.Entries(keys, values):
            inner = (*keys, *values)
        case literals.Slice(start, stop, step):
            inner = (start, stop, step)
        case literals.Shape(items):
            inner = items
        case literals.Member(module, qualname, _):
            check_class(module, qualname, loc)
        case literals.Made(module, qualname, names, values):
            check_class(module, qualname, loc)
            if len(names) != len(values):
                raise FormatError(f"{len(names)} names for {len(values)} fields", loc=loc)
            inner = values
    return 1 + sum(check_literal(item, loc, depth + 1) for item in inner)
