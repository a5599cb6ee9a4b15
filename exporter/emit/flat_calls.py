"""What ``flat_apply`` calls and how it puts arguments together: tree specs that graphs read by name, to rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.emit.literals import emit_literal
from exporter.torch_internals import CALLS_AUTOGRAD_FUNCTION, TreeSpec, constant_function, is_wrapper_class, pytree
from schema.errors import Loc, UnsupportedError
from schema.graph import Callee, Skeleton
from schema.names import is_class

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN = frozenset({tuple, list, dict})


def emit_callees(specs: Mapping[str, TreeSpec], loc: Loc) -> list[Callee]:
    """Those of some tree specs that hold a function.

    Args:
        specs: The tree specs that a graph reads, by name.
        loc: Where the graph is.

    Raises:
        UnsupportedError: It is one that an archive cannot name.
    """
    functions = {name: function for name, spec in specs.items() if (function := constant_function(spec))}
    return [_callee(name, function, (*loc, name)) for name, function in functions.items()]


def emit_skeletons(specs: Mapping[str, TreeSpec], loc: Loc) -> list[Skeleton]:
    """The others, which say how arguments are put together.

    Raises:
        UnsupportedError: One has containers that are not plain.
    """
    others = {name: spec for name, spec in specs.items() if not constant_function(spec)}
    return [_skeleton(name, spec, (*loc, name)) for name, spec in others.items()]


def _callee(name: str, function: object, loc: Loc) -> Callee:
    if function is CALLS_AUTOGRAD_FUNCTION:
        return Callee(name)
    if isinstance(function, type) and is_wrapper_class(function):
        made = function.__module__, function.__qualname__
        if is_class(*made):
            return Callee(name, made)
    shown = getattr(function, "__qualname__", None) or type(function).__qualname__
    remedy = 'register it as an operator with torch.library.custom_op, or capture with ir="inference"'
    raise UnsupportedError(f"the graph calls the Python function {shown}", loc=loc, remedy=remedy)


def _skeleton(name: str, spec: TreeSpec, loc: Loc) -> Skeleton:
    _check_plain(spec, loc)
    return Skeleton(name, emit_literal(pytree.tree_unflatten([None] * spec.num_leaves, spec), loc))


def _check_plain(spec: TreeSpec, loc: Loc) -> None:
    if spec.is_leaf():
        return
    if spec.type not in _PLAIN:
        remedy = 'pass it tensors and plain values in plain containers, or capture with ir="inference"'
        message = f"a {spec.type.__qualname__} among the arguments of a Python function that the graph calls"
        raise UnsupportedError(message, loc=loc, remedy=remedy)
    for child in spec.children():
        _check_plain(child, loc)
