"""Nodes held against what they are: the arguments of calls against the schemas of operators, and those of other nodes.

That is done once for each way in which an operator is called, instead of for each node.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import Final

from loader.rebuild.tables import Tables
from loader.torch_internals import OpOverload
from schema.errors import FormatError, Loc
from schema.graph import Graph, names_read
from schema.names import check_identifiers

_ARITIES: Final = {"placeholder": 0, "get_attr": 1, "output": 1}
"""How many arguments a node has that calls nothing."""


def check_arguments(graph: Graph, tables: Tables, loc: Loc) -> None:
    """Refuse nodes with more, fewer or other arguments than they can have.

    Raises:
        FormatError: With the first node that has such.
    """
    ways = list(zip(graph.targets, graph.arities, graph.keywords, strict=True))
    for way in set(ways):
        target, arity, keywords = way
        function = tables.targets[target]
        names = tuple(tables.document.keywords[keywords].names)
        if isinstance(function, OpOverload):
            if not _takes(function, arity, names):
                node = graph.names[ways.index(way)]
                given = f"{arity} arguments{''.join(f', {name}' for name in names)}"
                raise FormatError(f"{function._schema} cannot be called with {given}"[:400], loc=(*loc, node[:80]))
        elif isinstance(function, str) and (names or arity != _ARITIES.get(function)):
            raise FormatError(f"a malformed {function[:80]} node", loc=(*loc, graph.names[ways.index(way)][:80]))
    if "get_attr" in tables.targets:
        _check_attributes(graph, tables, loc)


def _check_attributes(graph: Graph, tables: Tables, loc: Loc) -> None:
    """Nodes that read by name read what the graph reaches."""
    reached = names_read(graph)
    check_identifiers(reached, loc)
    names, starts = set(reached), accumulate(graph.arities, initial=0)
    for name, target, start in zip(graph.names, graph.targets, starts, strict=False):
        if tables.targets[target] == "get_attr":
            place = graph.operands[start]
            attribute = tables.arguments[place] if place >= 0 else None
            if not isinstance(attribute, str) or attribute not in names:
                raise FormatError("a malformed get_attr node: it names nothing", loc=(*loc, name[:80]))


@lru_cache(maxsize=4096)
def _takes(operator: OpOverload, arity: int, names: tuple[str, ...]) -> bool:
    """Whether an operator can be called with so many positional arguments, and keyword arguments of these names."""
    arguments = operator._schema.arguments
    others = arguments[arity:]
    if arity > len(arguments) or any(argument.kwarg_only for argument in arguments[:arity]):
        return False
    required = {argument.name for argument in others if not argument.has_default_value()}
    return required <= set(names) <= {argument.name for argument in others}
