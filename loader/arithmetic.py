"""Symbolic expressions in plain numbers: what sizes must be, given those of the inputs at hand. No sympy."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from schema import constraints as documents

Number = int | float | bool

_MAX_EXPONENT = 64
_MAX_TEXT = 200


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > _MAX_EXPONENT:
        raise ValueError
    return base**exponent


def _shift(base: int, distance: int) -> int:
    return int(_power(2, distance)) * base


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda *terms: sum(terms),
    "Mul": lambda *factors: math.prod(factors),
    "Pow": _power,
    "PowByNatural": _power,
    "FloatPow": _power,
    "Abs": abs,
    "floor": math.floor,
    "ceiling": math.ceil,
    "Max": max,
    "Min": min,
    "Equality": operator.eq,
    "Unequality": operator.ne,
    "StrictLessThan": operator.lt,
    "LessThan": operator.le,
    "StrictGreaterThan": operator.gt,
    "GreaterThan": operator.ge,
    "And": lambda *terms: all(terms),
    "Or": lambda *terms: any(terms),
    "Not": operator.not_,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "CeilDiv": lambda base, divisor: -(-base // divisor),
    "ModularIndexing": lambda base, divisor, modulus: base // divisor % modulus,
    "Where": lambda condition, one, other: one if condition else other,
    "Identity": lambda value: value,
    "IntTrueDiv": operator.truediv,
    "FloatTrueDiv": operator.truediv,
    "LShift": _shift,
    "RShift": operator.rshift,
    "ToFloat": float,
    "TruncToInt": math.trunc,
    "TruncToFloat": lambda value: float(math.trunc(value)),
    "FloorToInt": math.floor,
    "CeilToInt": math.ceil,
    "RoundToInt": round,
    "RoundDecimal": round,
    "BitwiseFn_bitwise_and": operator.and_,
    "BitwiseFn_bitwise_or": operator.or_,
    "BitwiseFn_bitwise_xor": operator.xor,
    "OpaqueUnaryFn_sqrt": math.sqrt,
}
"""Functions that conditions on inputs use; a condition with another one is left to the program's own assertions."""


class Arithmetic:
    """Evaluates the expressions of a program for given values of its symbols.

    Args:
        document: The ``constraints`` section.
    """

    def __init__(self, document: documents.Constraints) -> None:
        self._rows: Sequence[documents.Expression] = document.expressions
        self._symbols = document.symbols

    def symbol(self, expression: int) -> int | None:
        """The symbol that an expression is, None if it is something else."""
        row = self._rows[expression]
        return row.symbol if isinstance(row, documents.SymbolReference) else None

    def value(self, expression: int, known: Mapping[int, Number]) -> Number | None:
        """The value of an expression, None if a symbol in it is not known or a function in it is not ours."""
        match self._rows[expression]:
            case documents.SymbolReference(symbol):
                return known.get(symbol)
            case documents.Apply(function, operands):
                values = [self.value(operand, known) for operand in operands]
                compute = _FUNCTIONS.get(function)
                if compute is None or None in values:
                    return None
                try:
                    return compute(*values)  # type: ignore[no-any-return]
                except (ArithmeticError, TypeError, ValueError):
                    return None
            case documents.Infinity(negative):
                return -math.inf if negative else math.inf
            case documents.Rational(numerator, denominator):
                return numerator / denominator
            case documents.Integer(value) | documents.Real(value) | documents.Truth(value):
                return value

    def solve(self, expression: int, value: int, known: Mapping[int, Number]) -> tuple[int, int] | None:
        """The one unknown symbol of an expression and the whole number that gives it a value.

        Only expressions that are linear in the symbol are solved: ``2*s``, ``s + 1``.
        """
        unknown = self.unknown(expression, known)
        if len(unknown) != 1:
            return None
        (symbol,) = unknown
        at_zero, at_one = (self.value(expression, {**known, symbol: number}) for number in (0, 1))
        if at_zero is None or at_one is None or at_zero == at_one:
            return None
        guess = (value - at_zero) // (at_one - at_zero)
        if not isinstance(guess, int):
            return None
        return (symbol, guess) if self.value(expression, {**known, symbol: guess}) == value else None

    def unknown(self, expression: int, known: Mapping[int, Number]) -> set[int]:
        """Symbols of an expression that are not known."""
        match self._rows[expression]:
            case documents.SymbolReference(symbol):
                return {symbol} - set(known)
            case documents.Apply(_, operands):
                return set().union(*(self.unknown(operand, known) for operand in operands))
        return set()

    def text(self, expression: int, names: Mapping[int, str]) -> str:
        """An expression as people read it.

        Args:
            expression: Its place.
            names: What to call its symbols; others go by their own names.
        """
        return self._text(expression, names)[:_MAX_TEXT]

    def _text(self, expression: int, names: Mapping[int, str]) -> str:
        match self._rows[expression]:
            case documents.SymbolReference(symbol):
                return names.get(symbol) or self._symbols[symbol].label or self._symbols[symbol].name
            case documents.Apply(function, operands):
                parts = [self._text(operand, names) for operand in operands]
                infix = _INFIX.get(function)
                return infix.join(parts) if infix else f"{function}({', '.join(parts)})"
            case documents.Infinity(negative):
                return "-oo" if negative else "oo"
            case documents.Rational(numerator, denominator):
                return f"{numerator}/{denominator}"
            case documents.Integer(value) | documents.Real(value) | documents.Truth(value):
                return str(value)


_INFIX = {
    "Add": " + ",
    "Mul": "*",
    "Mod": " % ",
    "PythonMod": " % ",
    "FloorDiv": " // ",
    "Equality": " == ",
    "Unequality": " != ",
    "StrictLessThan": " < ",
    "LessThan": " <= ",
    "StrictGreaterThan": " > ",
    "GreaterThan": " >= ",
}
