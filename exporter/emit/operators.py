"""Callables to the names under which an archive calls them."""

from __future__ import annotations

import builtins
import math
import operator
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from exporter.torch_internals import HigherOrderOperator, OpOverload, predispatch
from schema.errors import Loc, UnsupportedError
from schema.operators import FORBIDDEN, HIGHER_ORDER, PYTHON_FUNCTIONS, RUNS_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

_MODULES: dict[str, Any] = {
    "operator": operator,
    "math": math,
    "builtins": builtins,
    "torch": torch,
    "predispatch": predispatch,
}


@cache
def _python_names() -> dict[Callable[..., object], str]:
    """Every Python function that an archive may call, with its name."""
    names: dict[Callable[..., object], str] = {}
    for target in sorted(PYTHON_FUNCTIONS):
        module, _, name = target.removeprefix("python::").partition(".")
        if function := getattr(_MODULES[module], name, None):
            names.setdefault(function, target)
    return names


def emit_operator(function: object, loc: Loc) -> str:
    """The name of a callable.

    Raises:
        UnsupportedError: An archive cannot name it, or must not.
    """
    if isinstance(function, OpOverload):
        if function._schema.name in FORBIDDEN:
            remedy = "remove it from the module: it does more than to compute from its inputs"
            raise UnsupportedError(f"no archive may call the operator {function}", loc=loc, remedy=remedy)
        return f"{function._schema.name}.{function._overloadname}"
    if isinstance(function, HigherOrderOperator) and function.__name__ in HIGHER_ORDER | RUNS_TEXT:
        return f"higher_order::{function.__name__}"
    try:
        return _python_names()[function]  # type: ignore[index]
    except (KeyError, TypeError):
        shown = getattr(function, "__qualname__", None) or str(function)
        remedy = "register it as an operator with torch.library.custom_op"
        raise UnsupportedError(f"the graph calls {shown}, which is no operator", loc=loc, remedy=remedy) from None
