"""The ``constraints`` section: symbols, expressions over them, ranges and guards.

Expressions are opcodes, not text: a row names its function and its operands by their place in the table, and every
operand stands before the row that uses it. Nothing in an archive is ever parsed as an expression.
"""

from typing import Final, Union

from msgspec import Struct

from schema.literals import Row

FUNCTIONS: Final = (
    # sympy's own
    *("Add", "Mul", "Pow", "Abs", "floor", "ceiling", "Max", "Min"),
    *("Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"),
    *("And", "Or", "Not", "Piecewise", "ExprCondPair"),
    # torch's, of integers and floats with Python's semantics
    *("Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "ModularIndexing", "Where", "Identity"),
    *("IntTrueDiv", "FloatTrueDiv", "PowByNatural", "FloatPow", "LShift", "RShift", "ToFloat"),
    *("TruncToFloat", "TruncToInt", "FloorToInt", "CeilToInt", "RoundToInt", "RoundDecimal"),
    *("BitwiseFn_bitwise_and", "BitwiseFn_bitwise_or", "BitwiseFn_bitwise_xor"),
    *("IsNonOverlappingAndDenseIndicator",),
    *(f"OpaqueUnaryFn_{name}" for name in ("sqrt", "cos", "cosh", "sin", "sinh", "tan", "tanh")),
    *(f"OpaqueUnaryFn_{name}" for name in ("asin", "acos", "atan", "exp", "log", "log2", "asinh")),
)
"""Every function that an expression may apply, by the name of the class that torch or sympy gives it."""

ASSUMPTIONS: Final = (
    "integer",
    "positive",
    "nonnegative",
    "negative",
    "zero",
    "real",
    "even",
    "odd",
    "finite",
)
"""What can be assumed of a symbol."""


class Integer(Row, frozen=True, tag="integer"):
    """A whole number."""

    value: int


class Rational(Row, frozen=True, tag="rational"):
    """A fraction."""

    numerator: int
    denominator: int


class Real(Row, frozen=True, tag="real"):
    """A floating-point number."""

    value: float


class Truth(Row, frozen=True, tag="truth"):
    """True or false."""

    value: bool


class Infinity(Row, frozen=True, tag="infinity"):
    """An unbounded end of a range; ``integer`` tells torch's integer infinity from sympy's real one."""

    negative: bool
    integer: bool


class SymbolReference(Row, frozen=True, tag="symbol"):
    """A symbol, by its place in the table of symbols."""

    symbol: int


class Apply(Row, frozen=True, tag="apply"):
    """A function of earlier expressions."""

    function: str
    operands: list[int]


Expression = Union[Integer, Rational, Real, Truth, Infinity, SymbolReference, Apply]  # noqa: UP007


class Interval(Row, frozen=True):
    """A closed interval; both ends by their place in the table of expressions."""

    lower: int
    upper: int


class Step(Row, frozen=True):
    """One step from an input to the value in it.

    Attributes:
        kind: ``item`` (index or key), ``attribute``, or at the end ``size``, ``stride`` or ``offset`` of a tensor.
        key: The index, key, attribute or dimension.
    """

    kind: str
    key: int | str


class Source(Row, frozen=True):
    """Where a symbol's value is found when the program is called: an argument of ``forward``, and steps from it."""

    argument: str
    steps: list[Step]


class Symbol(Row, frozen=True):
    """A size, or another number, that is not known before the program runs.

    Attributes:
        name: Its name, such as ``s77`` (backed by an input) or ``u0`` (unbacked: found while running).
        assumptions: Which of :data:`ASSUMPTIONS` hold.
        interval: What the shape environment knows of it; None if nothing.
        hint: Its value in the example, None if it is unbacked.
        sources: Where inputs carry it; the first is the one that guards are written with.
        label: What the user called it, such as ``batch``; empty if nothing.
    """

    name: str
    assumptions: list[str]
    interval: Interval | None
    hint: int | float | None
    sources: list[Source]
    label: str = ""


class RangeConstraint(Row, frozen=True):
    """The range that the program promises for an expression, which need not be the one of its symbol's interval."""

    expression: int
    interval: Interval


class Guard(Row, frozen=True):
    """A condition that inputs must fulfil, beyond ranges."""

    condition: int


class Constraints(Struct, frozen=True, kw_only=True):
    """The whole section.

    Attributes:
        symbols: Table of symbols.
        expressions: Table of expressions; operands stand before their users.
        ranges: Range constraints, in the program's order.
        guards: Guards, in the program's order.
    """

    symbols: list[Symbol] = []
    expressions: list[Expression] = []
    ranges: list[RangeConstraint] = []
    guards: list[Guard] = []
