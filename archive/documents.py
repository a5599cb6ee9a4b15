"""The check of a section's own structure, before anything is built of it: places that exist, sizes that are bounded.

Tables refer to each other by place. Rows may refer to one row many times, so a small table can stand for something
enormous; what each row stands for is therefore bounded here, in one pass and without recursion over what is shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from archive.bounds import (
    MAX_DEPTH,
    MAX_EXPRESSION_BITS,
    MAX_EXPRESSION_SIZE,
    MAX_STACK_TEXT,
    MAX_STACKS_TEXT,
    check_literal,
    check_place,
)
from archive.graph_document import check_graph
from schema import calls, constraints, debug, graph
from schema.errors import FormatError, Loc

_SYMBOL_BITS: Final = 64
_POWERS: Final = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})
_STEEP: Final = _POWERS | {f"OpaqueUnaryFn_{name}" for name in ("exp", "cosh", "sinh", "tan")}
_FLAT: Final = frozenset(f"OpaqueUnaryFn_{name}" for name in ("log", "log2", "asinh", "tanh", "sin", "cos", "atan"))
"""Functions whose value has few digits, as exponents that programs have: ``2 ** ceil(log2(n))``."""


def check_document(document: msgspec.Struct, loc: Loc) -> None:
    """Refuse a document whose rows refer to what is not there, or stand for too much.

    Raises:
        FormatError: The first thing that is wrong.
    """
    if check := _CHECKS.get(type(document)):
        check(document, loc)


def _check_constraints(document: constraints.Constraints, loc: Loc) -> None:
    _check_expressions(document, (*loc, "expressions"))
    expressions = document.expressions
    intervals = [
        *((symbol.interval, ("symbols", index)) for index, symbol in enumerate(document.symbols)),
        *((row.interval, ("ranges", index)) for index, row in enumerate(document.ranges)),
    ]
    for interval, where in intervals:
        if interval is not None:
            for bound in (interval.lower, interval.upper):
                check_place(bound, expressions, "expression", (*loc, *where))
    for index, row in enumerate(document.ranges):
        check_place(row.expression, expressions, "expression", (*loc, "ranges", index))
    for index, guard in enumerate(document.guards):
        check_place(guard.condition, expressions, "expression", (*loc, "guards", index))


def _check_expressions(document: constraints.Constraints, loc: Loc) -> None:
    """Sizes, depths and bits of all expressions, each from those of its operands."""
    sizes: list[int] = []
    depths: list[int] = []
    bits: list[float] = []
    exponents: list[float] = []
    for place, row in enumerate(document.expressions):
        where = (*loc, place)
        operands: list[int] = []
        if isinstance(row, constraints.Apply):
            operands = row.operands
            for operand in operands:
                check_place(operand, place, "expression", where)
            if row.function not in constraints.FUNCTIONS:
                raise FormatError(f"unknown function {row.function[:80]!r}", loc=where)
        elif isinstance(row, constraints.SymbolReference):
            check_place(row.symbol, document.symbols, "symbol", where)
        elif isinstance(row, constraints.Rational) and row.denominator <= 0:
            raise FormatError(f"a fraction over {row.denominator}", loc=where)
        sizes.append(1 + sum(sizes[operand] for operand in operands))
        depths.append(1 + max((depths[operand] for operand in operands), default=0))
        exponents.append(_as_exponent(row, document, exponents))
        bits.append(_bits(row, bits, exponents))
        if sizes[-1] > MAX_EXPRESSION_SIZE or depths[-1] > MAX_DEPTH or bits[-1] > MAX_EXPRESSION_BITS:
            raise FormatError("an expression that is too large", loc=where)


def _bits(row: constraints.Expression, bits: Sequence[float], exponents: Sequence[float]) -> float:
    """How many bits the value of an expression may have."""
    if isinstance(row, constraints.Integer):
        return row.value.bit_length()
    if not isinstance(row, constraints.Apply) or not row.operands:
        return _SYMBOL_BITS
    of_operands = [bits[operand] for operand in row.operands]
    if row.function in _POWERS:
        return of_operands[0] * (1 + max((exponents[operand] for operand in row.operands[1:]), default=1))
    if row.function == "Mul":
        return sum(of_operands)
    return max(of_operands) + len(of_operands).bit_length()


def _as_exponent(row: constraints.Expression, document: constraints.Constraints, exponents: Sequence[float]) -> float:
    """How large an expression may be where it is an exponent; a symbol is as large as in the example."""
    match row:
        case constraints.Integer(value) | constraints.Real(value):
            return abs(value)
        case constraints.Rational(numerator, denominator):
            return abs(numerator) / denominator
        case constraints.SymbolReference(symbol):
            return abs(document.symbols[symbol].hint or 1)
        case constraints.Apply(function, operands) if function in _STEEP:
            return math.inf
        case constraints.Apply(function, operands):
            combine = math.prod if function == "Mul" else sum
            return _SYMBOL_BITS if function in _FLAT else combine(float(exponents[operand]) for operand in operands)
    return 1


def _check_calls(document: calls.Calls, loc: Loc) -> None:
    for entry in document.entries:
        if entry.signature is not None:
            for tree in (entry.signature.in_spec, entry.signature.out_spec):
                _check_tree(tree, document.types, (*loc, entry.fqn[:80]), 0)
    if document.example is not None:
        _check_tree(document.example, document.types, (*loc, "example"), 0)


def _check_tree(tree: calls.Tree, types: Sequence[calls.TreeType], loc: Loc, depth: int) -> None:
    if isinstance(tree, calls.Branch):
        if depth > MAX_DEPTH:
            raise FormatError("a tree nested too deep", loc=loc)
        check_place(tree.container, types, "type", loc)
        check_literal(tree.context, loc)
        for child in tree.children:
            _check_tree(child, types, loc, depth + 1)


def _check_debug(document: debug.Debug, loc: Loc) -> None:
    lengths = [len(frame) for frame in document.frames]
    total = 0
    for place, stack in enumerate(document.stacks):
        for frame in stack:
            check_place(frame, lengths, "frame", (*loc, "stacks", place))
        length = sum(lengths[frame] for frame in stack)
        total += length
        if length > MAX_STACK_TEXT or total > MAX_STACKS_TEXT:
            raise FormatError("a stack trace that is too long", loc=(*loc, "stacks", place))


_CHECKS: Final[dict[type, Callable[[Any, Loc], None]]] = {
    constraints.Constraints: _check_constraints,
    graph.ProgramGraph: check_graph,
    calls.Calls: _check_calls,
    debug.Debug: _check_debug,
}
