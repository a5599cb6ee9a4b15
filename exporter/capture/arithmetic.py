"""The arithmetic of symbolic sizes, done once for each pair of operands while a module is traced.

A fake tensor derives its bytes, contiguity and more from its sizes, in some fifty operations on symbols, and the
tensors of equal layers repeat them all. What is remembered is the result as an expression. Each call still makes a
``SymNode`` of its own, because the trace knows the producer of a number by the identity of its ``SymNode``. torch 2.15
remembers in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from exporter.torch_internals import SYMBOLS_ARE_VERSIONED, ShapeEnv, SymNode, get_proxy_mode

_OPERATIONS = (
    *("_add", "_sub", "_mul", "_int_floordiv", "_sym_max", "_sym_min"),
    *("_eq", "_ne", "_ge", "_gt", "_le", "_lt", "_and_", "_or_"),
)
"""Their results depend on the expressions of their operands alone; that of ``mod`` depends on ranges too."""

_RECORDED = ("_create_fx_call_function", "_suppress_guards_enter", "_suppress_guards_exit")
"""Hot methods that torch wraps in a recorder of events, for a replay that nobody asked for."""

_Operation = Callable[[Any, Any], Any]


@contextmanager
def remembered_arithmetic(shape_env: Any) -> Iterator[None]:
    """Remember results for the symbols of one environment."""
    before: dict[str, Any] = {}
    if SYMBOLS_ARE_VERSIONED and not shape_env._translation_validation_enabled:
        before = {name: vars(SymNode)[name] for name in (*_OPERATIONS, "expr")}
    recorded = () if shape_env.should_record_events else _RECORDED
    try:
        for name, method in before.items():
            setattr(SymNode, name, _sooner(method) if name == "expr" else _remembered(method, shape_env))
        for name in recorded:
            setattr(shape_env, name, MethodType(getattr(ShapeEnv, name).__wrapped__, shape_env))
        yield
    finally:
        for name, method in before.items():
            setattr(SymNode, name, method)
        for name in recorded:
            delattr(shape_env, name)


def _remembered(operation: _Operation, shape_env: Any) -> _Operation:
    results: dict[Any, dict[str, Any]] = {}

    def remembered(left: Any, right: Any) -> Any:
        if left.shape_env is not shape_env or get_proxy_mode() is not None:
            return operation(left, right)
        versions = shape_env._replacements_version_counter, left._optimized_summation, right._optimized_summation
        case = (left._expr, right._expr, left._hint, right._hint, left.pytype, right.pytype, versions)
        known = results.get(case)
        if known is None:
            known = results[case] = dict(vars(operation(left, right)))
        result = object.__new__(SymNode)
        result.__dict__ = known.copy()
        return result

    return remembered


def _sooner(expr: Any) -> property:
    """Read the current expression; torch looks first, through all of it, whether it is a number."""

    def current(node: Any) -> Any:
        version = node.shape_env._replacements_version_counter if node.shape_env else None
        if version == 0:
            return node._expr
        known = node._expr_cache if version == node._expr_ver else None
        return expr.fget(node) if known is None else known

    return property(current)
