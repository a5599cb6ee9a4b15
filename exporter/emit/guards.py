"""Guards that a program has only as text, read back as conditions on its symbols.

The programs that ``torch.export.load`` gives are such: their shape environments know no guards, nor where symbols come
from. A text is parsed, never run: numbers, comparisons, arithmetic and places in the inputs are all that it may hold.
What was read counts only if torch writes it as the same text again.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from exporter.emit.shape_environment import find_shape_env, print_guard
from exporter.torch_internals import (
    AttrSource,
    GetItemSource,
    LocalSource,
    Source,
    TensorProperty,
    TensorPropertySource,
    guards_only_as_text,
    pytree,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.And: operator.and_,
    ast.Or: operator.or_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
"""Operators between two numbers, which give symbolic ones of symbolic ones."""

_UNARY: dict[type[ast.AST], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.Not: torch.sym_not}

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "max": lambda *values: functools.reduce(torch.sym_max, values),
    "min": lambda *values: functools.reduce(torch.sym_min, values),
    "round": round,
    "math.floor": math.floor,
    "math.ceil": math.ceil,
    "math.trunc": math.trunc,
    "torch.sym_float": torch.sym_float,
}
"""Functions that torch writes into guards."""

_PROPERTIES = {"size": TensorProperty.SIZE, "stride": TensorProperty.STRIDE}


class Guards(NamedTuple):
    """The guards of a program.

    Attributes:
        conditions: Expressions over its symbols, in its order.
        sources: Where inputs carry the symbols of which its shape environment does not know it.
        dropped: Guards that are text in which no condition could be read.
    """

    conditions: list[Any]
    sources: dict[Any, list[Source]]
    dropped: list[str]


def read_guards(program: torch.export.ExportedProgram) -> Guards:
    """The guards of a program, those included that it has only as text."""
    shape_env = find_shape_env(program.graph_module)
    guards = Guards([guard.expr for guard in shape_env.guards] if shape_env else [], {}, [])
    for text in guards_only_as_text(program):
        try:
            condition, sources = _Reader(program).read(text)
        except Exception:  # not in the grammar, or not about these inputs; symbolic numbers raise whatever they do
            guards.dropped.append(text)
        else:
            guards.conditions.append(condition)
            guards.sources.update(sources)
    return guards


class _Reader:
    """Reads one guard."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self._inputs = _inputs(program)
        self._sources: dict[Any, list[Source]] = {}

    def read(self, text: str) -> tuple[Any, dict[Any, list[Source]]]:
        """The condition that a text says, and where it says that its symbols come from."""
        condition = self._value(ast.parse(text, mode="eval").body)
        if not isinstance(condition, torch.SymBool) or print_guard(condition.node.expr, self._sources) != text:
            raise ValueError(text)
        return condition.node.expr, self._sources

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.BinOp(left, kind, right) | ast.Compare(left, [kind], [right]):
                return _BINARY[type(kind)](self._value(left), self._value(right))
            case ast.BoolOp(kind, values):
                return functools.reduce(_BINARY[type(kind)], map(self._value, values))
            case ast.UnaryOp(kind, operand):
                return _UNARY[type(kind)](self._value(operand))
            case ast.IfExp(test, body, orelse):
                return torch.sym_ite(*map(self._value, (test, body, orelse)))  # type: ignore[no-untyped-call]
            case ast.Call(function, [*arguments], []) if (name := ast.unparse(function)) in _FUNCTIONS:
                return _FUNCTIONS[name](*map(self._value, arguments))
        number, source = self._place(node)
        self._sources[number.node.expr] = [source]
        return number

    def _place(self, node: ast.expr) -> tuple[Any, Source]:
        """What an input has at a place, and the place as torch describes it."""
        match node:
            case ast.Subscript(ast.Name("L"), ast.Constant(str(name))):
                return self._inputs[name], LocalSource(name, is_input=True)
            case ast.Subscript(
                ast.Call(ast.Attribute(base, ("size" | "stride") as name), [], []), ast.Constant(int(n))
            ):
                value, source = self._place(base)
                return getattr(value, name)()[n], TensorPropertySource(source, _PROPERTIES[name], n)
            case ast.Call(ast.Attribute(base, "storage_offset"), [], []):
                value, source = self._place(base)
                return value.storage_offset(), TensorPropertySource(source, TensorProperty.STORAGE_OFFSET)
            case ast.Subscript(base, ast.Constant(int() | str() as key)):
                value, source = self._place(base)
                return value[key], GetItemSource(source, key)
            case ast.Attribute(base, name):
                value, source = self._place(base)
                return getattr(value, name), AttrSource(source, name)
        raise ValueError(ast.unparse(node))


def _inputs(program: torch.export.ExportedProgram) -> dict[str, Any]:
    """What is known of the inputs, by name of argument, nested as they are passed."""
    specs = program.graph_signature.input_specs
    nodes = program.graph.find_nodes(op="placeholder")
    call = program.module_call_graph[0].signature
    values = [n.meta["val"] for n, spec in zip(nodes, specs, strict=True) if spec.kind.name == "USER_INPUT"]
    args, kwargs = pytree.tree_unflatten(values, call.in_spec)
    named = dict(zip(call.forward_arg_names, (*args, *kwargs.values()), strict=True))
    starred: dict[str, Any] = {}  # those of *args are named args_0, args_1, ...
    for name, value in named.items():
        prefix, _, number = name.rpartition("_")
        if number.isdigit():
            starred.setdefault(prefix, {})[int(number)] = value
    return {**starred, **named}
