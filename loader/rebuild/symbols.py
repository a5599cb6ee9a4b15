"""Symbols and expressions to sympy's, and a shape environment that knows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loader.lazily import lazily
from loader.torch_internals import (
    captured_traceback,
    set_backed_value,
    shape_guard,
    source_types,
    symbolic,
    symbolic_functions,
    unbacked_numbers,
    value_range,
)
from schema import constraints as documents
from schema.errors import ArchiveError, FormatError, Loc
from schema.graph import Symbolic
from schema.names import check_identifier, check_plain_text

_SYMPY = frozenset(
    {
        *("Add", "Mul", "Pow", "Abs", "floor", "ceiling", "Piecewise", "ExprCondPair", "And", "Or", "Not"),
        *("Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"),
    }
)
"""Functions that are sympy's; the others of the format are torch's."""


class SymbolBuilder:
    """Builds the symbols, expressions, ranges and guards of one program in one shape environment.

    A program without any needs neither sympy nor the environment, and gets none.

    Args:
        document: The ``constraints`` section.
        mode: The mode of the program's fake tensors, whose shape environment is told of them.

    Raises:
        FormatError: An expression is not what its function takes, or a symbol not possible.
    """

    def __init__(self, document: documents.Constraints, mode: Any) -> None:
        self._mode = mode
        self._document = document
        self._numbers: dict[tuple[str, int, Any], Any] = {}
        self.symbols = [_refusing(self._symbol, row, index) for index, row in enumerate(document.symbols)]
        self.expressions: list[Any] = []
        for index, expression in enumerate(document.expressions):
            self.expressions.append(self._expression(expression, ("constraints", "expressions", index)))
        for index, row in enumerate(document.symbols):
            _refusing(self._register, row, index)

    @lazily
    def _shape_env(self) -> Any:
        return self._mode.shape_env

    @lazily
    def _sympy(self) -> Any:
        import sympy

        return sympy

    @lazily
    def _functions(self) -> Any:
        return symbolic_functions()[0]

    @lazily
    def _leaves(self) -> dict[type, Callable[[Any], Any]]:
        sympy = self._sympy
        return {
            documents.Integer: lambda row: sympy.Integer(row.value),
            documents.Rational: lambda row: sympy.Rational(row.numerator, row.denominator),
            documents.Real: lambda row: sympy.Float(row.value),
            documents.Truth: lambda row: sympy.true if row.value else sympy.false,
            documents.Infinity: self._infinity,
        }

    def ranges(self) -> dict[Any, Any]:
        """The program's range constraints."""
        return {self.expressions[row.expression]: self._interval(row.interval) for row in self._document.ranges}

    @property
    def guarded(self) -> bool:
        """Whether the program has guards."""
        return bool(self._document.guards)

    def guard(self) -> None:
        """Tell the shape environment the program's guards, and no others, once all values are made."""
        if not self.symbols:
            return
        conditions = [self.expressions[row.condition] for row in self._document.guards]
        self._shape_env.guards[:] = map(shape_guard, conditions)
        used = [row.expression for row in self._document.ranges] + [expression for _, expression, _ in self._numbers]
        live = set().union(*(self.expressions[place].free_symbols for place in used))
        for condition in conditions:
            if isinstance(condition, self._sympy.Equality):
                self._replace(condition, live)

    def _replace(self, equality: Any, live: set[Any]) -> None:
        """Let what equals a symbol that only guards speak of stand in for it, as when it was captured."""
        for symbol, other in (equality.args, equality.args[::-1]):
            if symbol.is_Symbol and symbol not in live | other.free_symbols:
                self._shape_env.replacements[symbol] = other
                return

    def number(self, row: Symbolic, loc: Loc) -> Any:
        """A symbolic int, float or bool; the same one for equal rows."""
        key = (row.kind, row.expression, row.hint)
        if key not in self._numbers:
            makers = {
                "int": self._shape_env.create_symintnode,
                "float": self._shape_env.create_symfloatnode,
                "bool": lambda expression, hint: self._shape_env.create_symboolnode(expression),  # noqa: ARG005
            }
            if row.kind not in makers:
                raise FormatError(f"no symbolic number is a {row.kind[:80]!r}", loc=loc)
            expression = self._at(row.expression, loc)
            wanted = self._sympy.logic.boolalg.Boolean if row.kind == "bool" else self._sympy.Expr
            if not isinstance(expression, wanted):
                raise FormatError(f"a symbolic {row.kind} cannot be {expression}", loc=loc)
            try:
                number = makers[row.kind](expression, hint=row.hint)
                self._numbers[key] = symbolic(number, expression, self._shape_env)
            except Exception as error:  # sympy and torch refuse with whatever comes to hand
                raise FormatError(f"no number is {expression} with the example {row.hint}", loc=loc) from error
        return self._numbers[key]

    def _symbol(self, row: documents.Symbol, index: int) -> Any:
        loc: Loc = ("constraints", "symbols", index)
        unknown = set(row.assumptions) - set(documents.ASSUMPTIONS)
        if unknown:
            raise FormatError(f"unknown assumption {sorted(unknown)[0][:80]!r}", loc=loc)
        return self._sympy.Symbol(check_identifier(row.name, loc), **dict.fromkeys(row.assumptions, True))

    def _register(self, row: documents.Symbol, index: int) -> None:
        shape_env, symbol = self._shape_env, self.symbols[index]
        if isinstance(row.hint, int):
            set_backed_value(shape_env, symbol, row.hint)
        if row.interval:
            known = self._interval(row.interval)
            shape_env.constrain_symbol_range(symbol, compiler_min=known.lower, compiler_max=known.upper)
        shape_env.var_to_stack[symbol] = captured_traceback()
        unbacked_numbers(shape_env, row.name)
        loc: Loc = ("constraints", "symbols", index)
        label = check_identifier(row.label, loc) if row.label else ""
        if row.sources:
            sources = [_build_source(source, loc) for source in row.sources]
            shape_env.var_to_sources[symbol] = sources
            if label:
                shape_env.source_name_to_debug_name[sources[0].name] = label
        elif label:  # the root of a derived dimension, which is no size of an input itself
            shape_env.var_to_sources[symbol] = [source_types().ConstantSource(label)]

    def _expression(self, row: documents.Expression, loc: Loc) -> Any:
        if isinstance(row, documents.SymbolReference):
            return self.symbols[row.symbol]
        if not isinstance(row, documents.Apply):
            return self._leaves[type(row)](row)
        operands = [self.expressions[operand] for operand in row.operands]
        try:
            return self._function(row.function)(*operands)
        except Exception as error:  # sympy and torch refuse wrong operands with whatever comes to hand
            message = f"{row.function} cannot take {len(operands)} such operands: {error}"
            raise FormatError(message, loc=loc) from error

    def _function(self, name: str) -> Any:
        if name == "ExprCondPair":
            return self._sympy.functions.elementary.piecewise.ExprCondPair
        return getattr(self._sympy if name in _SYMPY else self._functions, name)

    def _infinity(self, row: documents.Infinity) -> Any:
        infinity = symbolic_functions()[1] if row.integer else self._sympy.oo
        return -infinity if row.negative else infinity

    def _interval(self, row: documents.Interval) -> Any:
        lower, upper = self.expressions[row.lower], self.expressions[row.upper]
        try:
            return value_range(lower, upper)
        except Exception as error:  # torch raises what its assertions and sympy's comparisons happen to
            raise FormatError(f"no range from {lower} to {upper}", loc=("constraints",)) from error

    def _at(self, index: int, loc: Loc) -> Any:
        if not 0 <= index < len(self.expressions):
            raise FormatError(f"no expression {index} before this", loc=loc)
        return self.expressions[index]


def _refusing(act: Callable[[documents.Symbol, int], Any], row: documents.Symbol, index: int) -> Any:
    """Do something with a symbol, and refuse it where sympy or torch does."""
    try:
        return act(row, index)
    except ArchiveError:
        raise
    except Exception as error:  # assumptions that contradict each other, a hint outside the range, and so on
        loc: Loc = ("constraints", "symbols", index)
        raise FormatError(f"no such symbol: {type(error).__name__} {error}", loc=loc) from error


def _build_source(row: documents.Source, loc: Loc) -> Any:
    types = source_types()
    source = types.LocalSource(check_identifier(row.argument, loc), is_input=True)
    for step in row.steps:
        match step.kind, step.key:
            case "item", int(key):
                source = types.GetItemSource(source, key)
            case "item", str(key):
                source = types.GetItemSource(source, check_plain_text(key, loc))
            case "attribute", str(key) if not key.startswith("_"):
                source = types.AttrSource(source, check_identifier(key, loc))
            case "size", int(key):
                source = types.TensorPropertySource(source, types.TensorProperty.SIZE, key)
            case "stride", int(key):
                source = types.TensorPropertySource(source, types.TensorProperty.STRIDE, key)
            case "offset", _:
                source = types.TensorPropertySource(source, types.TensorProperty.STORAGE_OFFSET)
            case _:
                raise FormatError(f"no step {step.kind[:80]!r}", loc=loc)
    return source
