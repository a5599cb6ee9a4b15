"""Values as people read them: types, shapes, literals and expressions. No text made here is ever parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from schema.constraints import Apply, Infinity, Integer, Rational, Real, SymbolReference, Truth
from schema.dtypes import SHORT_NAMES
from schema.errors import FormatError, Loc
from schema.literals import (
    Complex,
    Device,
    Dots,
    DType,
    Entries,
    Items,
    Layout,
    Made,
    Member,
    MemoryFormat,
    OperatorName,
    Shape,
    Slice,
    StoredTensor,
    Tuple,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from schema.constraints import Constraints, Expression
    from schema.literals import Literal

Item = TypeVar("Item")

_SHORTEST: Final = {name: short for short, name in SHORT_NAMES.items()}
_LONGEST: Final = 2000
"""The most characters that one value takes; tables that share their rows could name any number."""

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def printable(text: str) -> str:
    """The text without characters that could steer a terminal: a file's names are anybody's."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def count_text(number: int, noun: str) -> str:
    """So many of something: ``1 node``, ``2,000 nodes``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def bytes_text(nbytes: int) -> str:
    """A size in bytes, in the unit that keeps it under 1,000."""
    size, unit = float(nbytes), 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{nbytes} B" if unit == 0 else f"{size:.3g} {_UNITS[unit]}"


def seconds_text(seconds: float) -> str:
    """A time in seconds or, under one, in milliseconds."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def tensor_text(dtype: str, shape: Iterable[object]) -> str:
    """A tensor's type as torch's graph printer writes it: ``f32[batch, 10]``."""
    return f"{_SHORTEST.get(dtype, dtype)}[{', '.join(map(str, shape))}]"


def device_text(device: Device) -> str:
    """A device as torch writes it: ``cuda:0``."""
    return device.kind if device.index is None else f"{device.kind}:{device.index}"


def literal_text(value: Literal) -> str:
    """A literal as Python or torch would write it.

    Raises:
        FormatError: It is nested too deeply.
    """
    try:
        return clip(_literal(value))
    except RecursionError as error:
        raise FormatError("a value is nested too deeply") from error


def _literal(value: Literal) -> str:
    return _LITERALS.get(type(value), repr)(value)


def clip(text: str) -> str:
    """The text, cut off where it is longer than anybody reads."""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def join(parts: Iterable[str]) -> str:
    """Parts with commas between them, up to where nobody reads on; what follows is not even made."""
    taken: list[str] = []
    length = 0
    for part in parts:
        if length > _LONGEST:
            return ", ".join([*taken, "…"])
        taken.append(part)
        length += len(part) + 2
    return ", ".join(taken)


def tuple_text(items: Sequence[str]) -> str:
    """A tuple of parts that are text already."""
    return f"({items[0]},)" if len(items) == 1 else f"({join(items)})"


def _entries_text(value: Entries) -> str:
    pairs = zip(value.keys, value.values, strict=False)
    return "{" + join(f"{_literal(key)}: {_literal(item)}" for key, item in pairs) + "}"


def _made_text(value: Made) -> str:
    pairs = zip(value.names, value.values, strict=False)
    return f"{value.qualname}({join(f'{name}={_literal(item)}' for name, item in pairs)})"


_LITERALS: Final[dict[type, Callable[[Any], str]]] = {
    Complex: lambda value: repr(complex(value.real, value.imag)),
    DType: lambda value: f"torch.{value.name}",
    Device: lambda value: f"device({device_text(value)!r})",
    Layout: lambda value: f"torch.{value.name}",
    MemoryFormat: lambda value: f"torch.{value.name}",
    OperatorName: lambda value: target_text(value.name),
    Dots: lambda _: "...",
    Items: lambda value: f"[{join(map(_literal, value.items))}]",
    Tuple: lambda value: tuple_text([_literal(item) for item in value.items]),
    Entries: _entries_text,
    Slice: lambda value: f"slice({', '.join(map(_literal, (value.start, value.stop, value.step)))})",
    Shape: lambda value: f"torch.Size([{join(map(str, value.items))}])",
    Member: lambda value: f"{value.qualname}.{value.name}",
    Made: _made_text,
    StoredTensor: lambda value: f"<tensor {value.tensor}>",
}


def target_text(target: str) -> str:
    """A callable as torch's graph printer writes it: ``aten.add.Tensor``, ``math.ceil``, ``cond``."""
    namespace, _, name = target.partition("::")
    return name if namespace in ("python", "higher_order") else f"{namespace}.{name}"


# Function: how its operands are joined, and how strongly that binds.
_INFIX: Final = {
    "Or": (" | ", 1),
    "And": (" & ", 2),
    "Equality": (" == ", 3),
    "Unequality": (" != ", 3),
    "StrictLessThan": (" < ", 3),
    "LessThan": (" <= ", 3),
    "StrictGreaterThan": (" > ", 3),
    "GreaterThan": (" >= ", 3),
    "LShift": (" << ", 4),
    "RShift": (" >> ", 4),
    "Add": (" + ", 5),
    "Mul": ("*", 6),
    "FloorDiv": ("//", 6),
    "CleanDiv": ("//", 6),
    "IntTrueDiv": ("/", 6),
    "FloatTrueDiv": ("/", 6),
    "Mod": ("%", 6),
    "PythonMod": ("%", 6),
    "Pow": ("**", 7),
    "PowByNatural": ("**", 7),
    "FloatPow": ("**", 7),
}
_ATOM: Final = 8
_ASSOCIATIVE: Final = frozenset({"Or", "And", "Add", "Mul"})
_CLASS_PREFIXES: Final = ("OpaqueUnaryFn_", "BitwiseFn_")


def expression_texts(constraints: Constraints) -> list[str]:
    """Every expression of a table, with symbols by what the user called them, or else their names.

    Raises:
        FormatError: An expression names a symbol that is not there, or an operand that does not stand before it.
    """
    symbols = [symbol.label or symbol.name for symbol in constraints.symbols]
    done: list[tuple[str, int]] = []
    for place, expression in enumerate(constraints.expressions):
        text, level = _expression(expression, symbols, done, ("constraints", "expressions", place))
        done.append((clip(text), level))
    return [text for text, _ in done]


def _expression(expression: Expression, symbols: list[str], done: list[tuple[str, int]], loc: Loc) -> tuple[str, int]:
    """The text of one expression, and how strongly what is outermost in it binds."""
    match expression:
        case Apply(function, operands):
            return _application(function, [at(done, operand, loc) for operand in operands])
        case SymbolReference(symbol):
            return at(symbols, symbol, loc), _ATOM
        case Rational(numerator, denominator):
            return f"{numerator}/{denominator}", _INFIX["IntTrueDiv"][1]
        case Infinity(negative, _):
            return "-oo" if negative else "oo", _ATOM
        case Integer(value) | Real(value) | Truth(value):
            return str(value), _ATOM


def _application(function: str, operands: list[tuple[str, int]]) -> tuple[str, int]:
    if function not in _INFIX:
        for prefix in _CLASS_PREFIXES:
            function = function.removeprefix(prefix)
        return f"{function}({', '.join(text for text, _ in operands)})", _ATOM
    joint, level = _INFIX[function]
    weakest = level if function in _ASSOCIATIVE else level + 1
    return joint.join(text if own >= weakest else f"({text})" for text, own in operands), level


def at(table: Sequence[Item], place: int, loc: Loc) -> Item:
    """An item of a table.

    Raises:
        FormatError: The table has no such place.
    """
    if not 0 <= place < len(table):
        raise FormatError(f"place {place} in a table of {len(table)}", loc=loc)
    return table[place]
