"""Symbols, expressions over them, ranges and guards: the ``constraints`` section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy

from exporter.emit.shape_environment import backed_hints, user_labels
from exporter.emit.tables import Table
from exporter.torch_internals import (
    AttrSource,
    GetItemSource,
    LocalSource,
    ShapeEnv,
    TensorPropertySource,
    int_oo,
)
from schema import constraints
from schema.errors import UnsupportedError
from schema.names import is_identifier, is_plain_text

if TYPE_CHECKING:
    import torch

    from exporter.emit.guards import Guards

_PROPERTIES = {"SIZE": "size", "STRIDE": "stride", "STORAGE_OFFSET": "offset"}


class SymbolTable:
    """Collects what a program says about sizes and numbers that are not known before it runs.

    Args:
        shape_env: What knows the symbols; None if there are none.
        guards: The program's guards.
    """

    def __init__(self, shape_env: ShapeEnv | None, guards: Guards) -> None:
        self._shape_env = shape_env
        self._guards = guards
        self._hints = backed_hints(shape_env) if shape_env else {}
        self._labels = user_labels(shape_env) if shape_env else {}
        self._symbols: list[constraints.Symbol] = []
        self._symbol_places: dict[Any, int] = {}
        self._expressions: Table[constraints.Expression] = Table()
        self._expression_places: dict[Any, int] = {}

    def symbol(self, symbol: Any) -> int:
        """Place of a sympy symbol in the table of symbols."""
        place = self._symbol_places.get(symbol)
        if place is None:
            place = self._symbol_places[symbol] = len(self._symbols)
            self._symbols.append(self._describe(symbol))
        return place

    def expression(self, expression: Any) -> int:
        """Place of a sympy expression, or a Python number, in the table of expressions."""
        key = (type(expression), expression)
        place = self._expression_places.get(key)
        if place is None:
            place = self._expression_places[key] = self._expressions.place(self._row(expression))
        return place

    def interval(self, interval: Any) -> constraints.Interval:
        """A value range."""
        return constraints.Interval(self.expression(interval.lower), self.expression(interval.upper))

    def document(self, program: torch.export.ExportedProgram) -> constraints.Constraints:
        """The whole section, with everything that was placed so far and the program's own ranges and guards."""
        ranges = [
            constraints.RangeConstraint(self.expression(expression), self.interval(interval))
            for expression, interval in program.range_constraints.items()
        ]
        guards = [constraints.Guard(self.expression(condition)) for condition in self._guards.conditions]
        return constraints.Constraints(
            symbols=self._symbols, expressions=self._expressions.rows, ranges=ranges, guards=guards
        )

    def _describe(self, symbol: Any) -> constraints.Symbol:
        held = symbol._assumptions_orig
        known = self._shape_env.var_to_range.get(symbol) if self._shape_env else None
        hint = self._hints.get(symbol)
        return constraints.Symbol(
            name=symbol.name,
            assumptions=[name for name in constraints.ASSUMPTIONS if held.get(name)],
            interval=self.interval(known) if known else None,
            hint=None if hint is None else _plain(hint),
            sources=self._sources(symbol),
            label=self._labels.get(symbol, ""),
        )

    def _sources(self, symbol: Any) -> list[constraints.Source]:
        known = self._shape_env.var_to_sources if self._shape_env else {}
        sources = known.get(symbol) or self._guards.sources.get(symbol, [])
        return [emitted for source in sources if (emitted := _emit_source(source))]

    def _row(self, expression: Any) -> constraints.Expression:
        if isinstance(expression, (bool, int, float)):
            expression = sympy.sympify(expression)
        for test, emit in _LEAVES:
            if test(expression):
                row: constraints.Expression = emit(expression)
                return row
        if expression.is_Symbol:
            return constraints.SymbolReference(self.symbol(expression))
        name = type(expression).__name__
        if name not in constraints.FUNCTIONS:
            raise UnsupportedError(
                f"the function {name} of a symbolic expression cannot be stored", loc=(str(expression),)
            )
        return constraints.Apply(name, [self.expression(operand) for operand in expression.args])


def _is_text(key: Any) -> bool:
    return isinstance(key, str) and is_plain_text(key)


def _plain(number: Any) -> int | float:
    return float(number) if isinstance(number, float) or getattr(number, "is_Float", False) else int(number)


_LEAVES: tuple[tuple[Any, Any], ...] = (
    (lambda e: e is sympy.true or e is sympy.false, lambda e: constraints.Truth(bool(e))),
    (lambda e: e is int_oo or e is -int_oo, lambda e: constraints.Infinity(e is not int_oo, True)),
    (lambda e: e is sympy.oo or e is -sympy.oo, lambda e: constraints.Infinity(e is not sympy.oo, False)),
    (lambda e: e.is_Integer, lambda e: constraints.Integer(int(e))),
    (lambda e: e.is_Rational, lambda e: constraints.Rational(int(e.p), int(e.q))),
    (lambda e: e.is_Float, lambda e: constraints.Real(float(e))),
)
"""Expressions without operands: which they are, and their rows."""


def _emit_source(source: Any) -> constraints.Source | None:
    """The way from an argument of ``forward`` to a value; None for what is no input, or cannot be written into code."""
    steps: list[constraints.Step] = []
    while not isinstance(source, LocalSource):
        match source:
            case TensorPropertySource():
                step = constraints.Step(_PROPERTIES[source.prop.name], 0 if source.idx is None else source.idx)
            case GetItemSource() if isinstance(source.index, int) or _is_text(source.index):
                step = constraints.Step("item", source.index)
            case AttrSource() if is_identifier(source.member) and not source.member.startswith("_"):
                step = constraints.Step("attribute", source.member)
            case _:
                return None
        steps.append(step)
        source = source.base
    return constraints.Source(source.local_name, steps[::-1])
