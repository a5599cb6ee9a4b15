"""What a program takes: arguments by name, and for each flat input its type, shape and range."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from msgspec import Struct

from loader.arithmetic import Arithmetic, Number
from loader.rebuild.literals import LiteralBuilder, torch_constant
from loader.rebuild.tables import Tables
from loader.script_classes import ScriptClasses
from loader.structures import flatten_as
from loader.torch_internals import TreeSpec, script_class_name
from schema import graph as documents
from schema.constraints import Constraints, Interval
from schema.errors import FormatError, InputError
from schema.literals import DType, Layout


class TensorInput(Struct, frozen=True):
    """A tensor that the program takes."""

    name: str
    dtype: torch.dtype
    shape: Sequence[documents.Size]
    device: torch.device
    layout: torch.layout = torch.strided


class NumberInput(Struct, frozen=True):
    """A number that the program takes; its value may differ from the example's."""

    name: str
    row: documents.Symbolic


class ConstantInput(Struct, frozen=True):
    """A value that the program was captured for, and that cannot differ."""

    name: str
    value: Any


class ObjectInput(Struct, frozen=True):
    """A script object that the program takes."""

    name: str
    kind: str


FlatInput = TensorInput | NumberInput | ConstantInput | ObjectInput

_NUMBERS: dict[str, type] = {"int": int, "float": float, "bool": bool}


class Contract:
    """Turns the arguments of a call into the flat inputs of a program, and refuses those that do not fit.

    Args:
        arguments: Name and tree of each argument, in the order in which they are flattened.
        inputs: What each flat input must be.
        constraints: The ``constraints`` section.

    Raises:
        FormatError: Two arguments have one name, or a size is an expression that is not there.
    """

    def __init__(
        self, arguments: Sequence[tuple[str, TreeSpec]], inputs: Sequence[FlatInput], constraints: Constraints
    ) -> None:
        self._arguments = dict(arguments)
        if len(self._arguments) != len(arguments):
            raise FormatError("two arguments have one name", loc=("calls",))
        self._inputs = inputs
        self._arithmetic = Arithmetic(constraints)
        self._ranges = {row.expression: self._bounds(row.interval) for row in constraints.ranges}
        self._guards = [row.condition for row in constraints.guards]
        self._check_expressions(len(constraints.expressions))
        self._names = self._symbol_names(constraints)

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The flat inputs of a call.

        Raises:
            InputError: An argument is missing, unknown, or not what the program was captured for.
        """
        flat: list[Any] = []
        for name, value in self._bind(args, kwargs).items():
            spec = self._arguments[name]
            flat += [value] if spec.is_leaf() else flatten_as(spec, value, name)
        self.check(flat)
        return flat

    def check(self, flat: Sequence[Any]) -> None:
        """See to it that flat inputs are what the program was captured for.

        Raises:
            InputError: One is not.
        """
        known: dict[int, Number] = {}
        sizes: list[tuple[str, int, int]] = []
        for expected, value in zip(self._inputs, flat, strict=True):
            sizes += _CHECKS[type(expected)](expected, value)
        pending = [size for size in sizes if not self._learn(*size, known)]
        for _, expression, size in pending:
            if solved := self._arithmetic.solve(expression, size, known):
                known[solved[0]] = solved[1]
        self._check_sizes(sizes, known)
        self._check_guards(known)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = list(self._arguments)
        if len(args) > len(names):
            raise InputError(f"{len(args)} arguments, expected {len(names)}: {', '.join(names) or 'none'}")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if repeated := set(names[: len(args)]) & set(kwargs):
            raise InputError(f"{min(repeated)} is given twice")
        for what, wrong in (("missing", set(names) - set(given)), ("unknown", set(given) - set(names))):
            if wrong:
                raise InputError(f"{what} argument {min(wrong)}, expected {', '.join(names) or 'none'}")
        return {name: given[name] for name in names}

    def _learn(self, name: str, expression: int, size: int, known: dict[int, Number]) -> bool:
        symbol = self._arithmetic.symbol(expression)
        if symbol is None:
            return False
        if known.setdefault(symbol, size) != size:
            raise InputError(f"{name} is {size}, expected {known[symbol]} as elsewhere in the inputs")
        return True

    def _check_sizes(self, sizes: list[tuple[str, int, int]], known: dict[int, Number]) -> None:
        for name, expression, size in sizes:
            expected = self._arithmetic.value(expression, known)
            if expected is None and len(self._arithmetic.unknown(expression, known)) == 1:
                raise InputError(f"{name} is {size}, which is not {self._text(expression)} for any whole number")
            if expected is not None and expected != size:
                raise InputError(f"{name} is {size}, expected {self._text(expression)} = {expected}")
            lower, upper = self._ranges.get(expression, (None, None))
            if lower is not None and upper is not None and not lower <= size <= upper:
                bounds = f"at least {lower}" if upper == math.inf else f"{lower} to {upper}"
                raise InputError(f"{name} is {size}, expected {bounds}")

    def _bounds(self, interval: Interval) -> tuple[Number | None, Number | None]:
        """The ends of a range as numbers, None where the arithmetic here cannot tell."""
        return self._arithmetic.value(interval.lower, {}), self._arithmetic.value(interval.upper, {})

    def _check_guards(self, known: dict[int, Number]) -> None:
        for condition in self._guards:
            if self._arithmetic.value(condition, known) is False:
                raise InputError(f"the inputs do not fulfil {self._text(condition)}")

    def _text(self, expression: int) -> str:
        return self._arithmetic.text(expression, self._names)

    def _check_expressions(self, count: int) -> None:
        for name, size in self._symbolic_sizes():
            if not 0 <= size.expression < count:
                raise FormatError(f"expression {size.expression} of {count}", loc=(name,))

    def _symbolic_sizes(self) -> Iterator[tuple[str, documents.Symbolic]]:
        """Every number of the inputs that may vary, and what to call it."""
        for given in self._inputs:
            if isinstance(given, NumberInput):
                yield given.name, given.row
            elif isinstance(given, TensorInput):
                for dimension, size in enumerate(given.shape):
                    if isinstance(size, documents.Symbolic):
                        yield f"{given.name}.shape[{dimension}]", size

    def _symbol_names(self, constraints: Constraints) -> dict[int, str]:
        """What to call symbols: as the user did, or else by an input that has them."""
        names: dict[int, str] = {}
        for name, size in self._symbolic_sizes():
            symbol = self._arithmetic.symbol(size.expression)
            if symbol is not None and not constraints.symbols[symbol].label:
                names.setdefault(symbol, name)
        return names


def flat_inputs(
    tables: Tables, names: Sequence[str], paths: Sequence[str], literals: LiteralBuilder, classes: ScriptClasses
) -> list[FlatInput]:
    """What the flat inputs of a program must be.

    Args:
        tables: The tables of the program.
        names: Placeholders of the user's inputs, in order.
        paths: What people call each.
        literals: Builds devices.
        classes: Says which classes of script objects are admitted.

    Raises:
        FormatError: A placeholder is missing or has no valid value.
        ClassError: The class of a script object is not admitted, or not there.
    """
    document = tables.document
    values = dict(zip(document.graphs[0].names, document.graphs[0].values, strict=True))
    found: list[FlatInput] = []
    for name, path in zip(names, paths, strict=True):
        place = values.get(name, documents.ABSENT)
        row = document.values[place] if 0 <= place < len(document.values) else None
        row = document.values[row.outer] if isinstance(row, documents.SubclassValue) else row
        match row:
            case documents.TensorValue() | documents.SparseValue():
                dtype, layout = (
                    torch_constant(each, ("graph", name)) for each in (DType(row.dtype), Layout(row.layout))
                )
                found.append(TensorInput(path, dtype, row.shape, literals.device(row.device), layout))
            case documents.Symbolic():
                found.append(NumberInput(path, row))
            case documents.ObjectValue():
                classes.check(row.kind, ("graph", name))
                found.append(ObjectInput(path, row.kind))
            case documents.LiteralValue(literal):
                found.append(ConstantInput(path, tables.arguments[literal]))
            case _:
                raise FormatError("an input without a value", loc=("graph", name))
    return found


def _check_tensor(expected: TensorInput, value: Any) -> list[tuple[str, int, int]]:
    name = expected.name
    if not isinstance(value, torch.Tensor):
        raise InputError(f"{name} is of type {type(value).__name__}, expected a tensor of {expected.dtype}")
    if value.dtype != expected.dtype:
        raise InputError(f"{name} is of {value.dtype}, expected {expected.dtype}")
    if value.layout is not expected.layout:
        raise InputError(f"{name} is of layout {value.layout}, expected {expected.layout}")
    shape = list(value.shape)
    if len(shape) != len(expected.shape):
        raise InputError(f"{name} has {len(shape)} dimensions (shape {shape}), expected {len(expected.shape)}")
    if value.device.type != expected.device.type and shape:
        raise InputError(f"{name} is on {value.device}, expected {expected.device}")
    sizes: list[tuple[str, int, int]] = []
    for dimension, (size, wanted) in enumerate(zip(shape, expected.shape, strict=True)):
        place = f"dimension {dimension} of {name} (shape {shape})"
        if isinstance(wanted, documents.Symbolic):
            sizes.append((place, wanted.expression, size))
        elif size != wanted:
            raise InputError(f"{place} is {size}, expected {wanted}")
    return sizes


def _check_number(expected: NumberInput, value: Any) -> list[tuple[str, int, int]]:
    kind = expected.row.kind
    if not isinstance(value, _NUMBERS.get(kind, ())) or (kind == "int" and isinstance(value, bool)):
        raise InputError(f"{expected.name} is of type {type(value).__name__}, expected {kind}")
    return [(expected.name, expected.row.expression, value)] if isinstance(value, int) and kind == "int" else []


def _check_constant(expected: ConstantInput, value: Any) -> list[tuple[str, int, int]]:
    same_type = type(value) is type(expected.value)  # asked first: the comparison of a tensor is no truth value
    if not same_type or not (value == expected.value or (value != value and expected.value != expected.value)):
        raise InputError(f"{expected.name} is {value!r:.80}, and the program was captured for {expected.value!r:.80}")
    return []


def _check_object(expected: ObjectInput, value: Any) -> list[tuple[str, int, int]]:
    if not isinstance(value, torch.ScriptObject):
        raise InputError(f"{expected.name} is of type {type(value).__name__}, expected a {expected.kind}")
    if script_class_name(value) != expected.kind:
        raise InputError(f"{expected.name} is a {script_class_name(value)}, expected a {expected.kind}")
    return []


_CHECKS: dict[type, Callable[[Any, Any], list[tuple[str, int, int]]]] = {
    TensorInput: _check_tensor,
    NumberInput: _check_number,
    ConstantInput: _check_constant,
    ObjectInput: _check_object,
}
