"""What torch's verifier asks of the graphs of a program, asked of their tables: once for each row instead of each node.

What it asks of signature and module call graph is asked by torch's own code, see
:func:`loader.torch_internals.verify_borders`; :func:`loader.verify` has torch check everything itself as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from loader.rebuild.arguments import check_arguments
from loader.rebuild.tables import Tables
from loader.torch_internals import LazyGraphModule, OpOverload, load_verifier
from schema.errors import FormatError, Loc
from schema.graph import ABSENT, Graph, LiteralValue, ProgramGraph
from schema.literals import Complex, Dots, OperatorName, Slice

_NO_VALUES = (Complex, Dots, OperatorName, Slice)
"""Literals that torch does not take for the value of a node."""


def verify_graphs(tables: Tables) -> Any:
    """Refuse graphs that torch's verifier refuses; the verifier, which stays with the program.

    Raises:
        FormatError: This torch has no such dialect, or its verifier would refuse a graph.
    """
    document = tables.document
    verifier = load_verifier(document.dialect)
    if verifier is None:
        raise FormatError(f"torch {torch.__version__} has no dialect {document.dialect[:80]!r}", loc=("graph",))
    _check_operators([target for target in tables.targets if callable(target)], verifier)
    _check_kinds_of_values(document)
    for place, graph in enumerate(document.graphs):
        _check_end(graph, tables)
        _check_has_values(graph, tables, ("graph", "graphs", place))
        check_arguments(graph, tables, ("graph", "graphs", place))
    if document.graphs and document.graphs[0].attributes:
        raise FormatError("the program's own graph reads a tensor by name", loc=("graph", "graphs", 0, "attributes"))
    return verifier


def _check_operators(targets: list[Callable[..., Any]], verifier: Any) -> None:
    """Each operator may stand in a graph of the dialect."""
    rules = verifier()
    types, builtins = rules.allowed_op_types(), rules.allowed_builtin_ops()
    others = []
    for target in targets:
        if isinstance(target, OpOverload) and rules.dialect != "TRAINING" and target._schema.is_mutable:
            raise FormatError(f"{target} writes to its arguments, in a graph of {rules.dialect}", loc=("graph",))
        if not isinstance(target, types) and target not in builtins:
            others.append(target)
    if others:
        _check_functions(others, rules)


def _check_functions(functions: list[Callable[..., Any]], rules: Any) -> None:
    """Torch's list of functions stands in its verifier's code: ask it about a graph that calls them."""
    graph = fx.Graph()
    for function in functions:
        graph.call_function(function).meta["val"] = None
    graph.output(())
    try:
        rules._check_graph_module(LazyGraphModule(torch.nn.Module(), graph))
    except Exception as error:  # torch's verifier raises many types
        raise FormatError(f"torch refuses the program: {str(error).splitlines()[0]}", loc=("graph",)) from error


def _check_kinds_of_values(document: ProgramGraph) -> None:
    for place, row in enumerate(document.values):
        if isinstance(row, LiteralValue) and isinstance(document.arguments[row.literal], _NO_VALUES):
            raise FormatError("no value that a node can have", loc=("graph", "values", place))


def _check_end(graph: Graph, tables: Tables) -> None:
    """A graph has one output, at its end."""
    kinds = [tables.targets[target] for target in graph.targets]
    if kinds.count("output") != 1 or kinds[-1] != "output":
        raise FormatError("a graph must end in an output, and have no other", loc=("graph",))


def _check_has_values(graph: Graph, tables: Tables, loc: Loc) -> None:
    """Inputs have a value, and calls of what returns something."""
    for place, value in enumerate(graph.values):
        if value == ABSENT:
            target = tables.targets[graph.targets[place]]
            returns_nothing = isinstance(target, OpOverload) and not target._schema.returns
            if not returns_nothing and target not in ("output", "get_attr"):
                raise FormatError("a node without a value", loc=(*loc, graph.names[place][:80]))
