"""Calls of operators held against their schemas: once for each way in which one is called, instead of for each node."""

from __future__ import annotations

from functools import lru_cache

from loader.rebuild.tables import Tables
from loader.torch_internals import OpOverload
from schema.errors import FormatError, Loc
from schema.graph import Graph


def check_arguments(graph: Graph, tables: Tables, loc: Loc) -> None:
    """Refuse calls with more, fewer or other arguments than the operator has.

    Raises:
        FormatError: With the first node that calls one so.
    """
    ways = list(zip(graph.targets, graph.arities, graph.keywords, strict=True))
    for way in set(ways):
        target, arity, keywords = way
        function = tables.targets[target]
        if isinstance(function, OpOverload):
            names = tuple(tables.document.keywords[keywords].names)
            if not _takes(function, arity, names):
                node = graph.names[ways.index(way)]
                given = f"{arity} arguments{''.join(f', {name}' for name in names)}"
                raise FormatError(f"{function._schema} cannot be called with {given}"[:400], loc=(*loc, node[:80]))


@lru_cache(maxsize=4096)
def _takes(operator: OpOverload, arity: int, names: tuple[str, ...]) -> bool:
    """Whether an operator can be called with so many positional arguments, and keyword arguments of these names."""
    arguments = operator._schema.arguments
    others = arguments[arity:]
    if arity > len(arguments) or any(argument.kwarg_only for argument in arguments[:arity]):
        return False
    required = {argument.name for argument in others if not argument.has_default_value()}
    return required <= set(names) <= {argument.name for argument in others}
