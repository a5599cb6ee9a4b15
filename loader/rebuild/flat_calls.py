"""What ``flat_apply`` calls and how it puts arguments together: the tree specs that graphs read by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from torch import fx, nn

from archive.class_calls import autograd_functions
from loader.rebuild.literals import LiteralBuilder
from loader.tensor_classes import TensorClasses
from loader.torch_internals import TreeSpec, autograd_function_spec, function_spec, is_autograd_function, pytree
from schema.errors import FormatError, Loc
from schema.graph import Callee, Graph, ProgramGraph
from schema.operators import AUTOGRAD_FUNCTIONS

Specs = dict[str, TreeSpec]
"""Tree specs by the name under which a graph reads them."""


def build_specs(document: ProgramGraph, literals: LiteralBuilder, classes: TensorClasses) -> Sequence[Specs]:
    """The tree specs that each graph reads.

    Args:
        document: The ``graph`` section, which has been checked.
        literals: Builds literals.
        classes: Finds classes that graphs call.

    Raises:
        ClassError: A class is not admitted, or not there.
        FormatError: No graph can hold one under its name.
    """
    for module, name, loc in autograd_functions(document):
        if f"{module}.{name}" not in AUTOGRAD_FUNCTIONS:
            classes.find(module, name, "autograd function", is_autograd_function, loc)
    return [
        _specs(graph, literals, classes, ("graph", "graphs", place)) if graph.callees or graph.skeletons else {}
        for place, graph in enumerate(document.graphs)
    ]


def _specs(graph: Graph, literals: LiteralBuilder, classes: TensorClasses, loc: Loc) -> Specs:
    specs = {row.name: _callee(row, classes, (*loc, row.name)) for row in graph.callees}
    for row in graph.skeletons:
        specs[row.name] = pytree.tree_structure(literals.build(row.tree, (*loc, row.name)))
    if taken := _taken_names() & specs.keys():
        raise FormatError("no graph can hold a tree spec of this name", loc=(*loc, min(taken)))
    return specs


def _callee(row: Callee, classes: TensorClasses, loc: Loc) -> TreeSpec:
    return function_spec(classes.resolve(*row.made, loc)) if row.made else autograd_function_spec()


@cache
def _taken_names() -> frozenset[str]:
    """Names of what a graph has of its own."""
    return frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))
