"""Columns of nodes to ``torch.fx`` graphs."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import fx

from loader.rebuild.metadata import Metadata
from loader.rebuild.nodes import NODES
from loader.rebuild.tables import Tables, at
from loader.rebuild.tensors import TensorBuilder
from schema import graph as documents
from schema.errors import FormatError, Loc
from schema.names import check_identifier


def build_graphs(tables: Tables, tensors: TensorBuilder, metadata: Metadata | None) -> tuple[fx.Graph, torch.nn.Module]:
    """The program's graph, and the module whose attributes its ``get_attr`` nodes name.

    Args:
        tables: The tables of the program.
        tensors: Builds tensors that graphs read by name.
        metadata: Gives nodes their metadata; None for nodes without.

    Raises:
        FormatError: The graphs are not well formed.
    """
    built = build_subgraphs(tables, tensors, metadata)
    root = build_root(tables, tensors, 0, built)
    return build_graph(tables, metadata, 0), root


def build_subgraphs(tables: Tables, tensors: TensorBuilder, metadata: Metadata | None) -> list[fx.GraphModule | None]:
    """The graphs of a program but the first, which is None, as modules.

    Raises:
        FormatError: The graphs are not well formed.
    """
    graphs = tables.document.graphs
    built: list[fx.GraphModule | None] = [None] * len(graphs)
    # A subgraph stands after every graph that reaches it: from the last to the first, all that one needs is there.
    for index in range(len(graphs) - 1, 0, -1):
        root = build_root(tables, tensors, index, built)
        built[index] = _generate_code(root, build_graph(tables, metadata, index), ("graph", "graphs", index))
    return built


def _generate_code(root: torch.nn.Module, graph: fx.Graph, loc: Loc) -> fx.GraphModule:
    """A graph as a module that can be called, also by Dynamo, which takes none whose code is yet to come."""
    try:
        return fx.GraphModule(root, graph)
    except Exception as error:  # torch raises whatever its code generator and Python's compiler do
        raise FormatError(f"no code can be generated: {type(error).__name__} {error}", loc=loc) from error


def build_root(
    tables: Tables, tensors: TensorBuilder, index: int, built: list[fx.GraphModule | None]
) -> torch.nn.Module:
    """A module with what one graph reads by name.

    Raises:
        FormatError: One is not there, or has no possible name.
    """
    document = tables.document.graphs[index]
    root = torch.nn.Module()
    for subgraph in document.subgraphs:
        loc: Loc = ("graph", "graphs", index, "subgraphs", subgraph.name[:80])
        module = at(built, subgraph.graph, "subgraph", loc)
        if module is None:
            raise FormatError("a subgraph stands before a graph that reaches it", loc=loc)
        root.add_module(check_identifier(subgraph.name, loc), module)
    for attribute in document.attributes:
        loc = ("graph", "graphs", index, "attributes", attribute.name[:80])
        _give_tensor(root, check_identifier(attribute.name, loc), tensors.at(attribute.tensor, loc), loc)
    for name, spec in tables.specs[index].items():
        setattr(root, name, spec)
    return root


def _give_tensor(root: torch.nn.Module, name: str, tensor: torch.Tensor, loc: Loc) -> None:
    register = root.register_parameter if isinstance(tensor, torch.nn.Parameter) else root.register_buffer
    try:
        register(name, tensor)  # type: ignore[arg-type]
    except KeyError as error:
        raise FormatError(f"no graph can hold a tensor of this name: {error}", loc=loc) from error


def build_graph(tables: Tables, metadata: Metadata | None, index: int) -> fx.Graph:
    """One graph.

    Args:
        tables: The tables of the program.
        metadata: Gives nodes their metadata; None for nodes without.
        index: The graph's place in the section.

    Raises:
        FormatError: A node uses what does not stand before it.
    """
    columns = tables.document.graphs[index]
    graph = fx.Graph()
    nodes = _add_nodes(graph, columns, tables)
    if metadata:
        metadata.give(nodes, columns, index)
    return graph


def _add_nodes(graph: fx.Graph, columns: documents.Graph, tables: Tables) -> list[fx.Node]:
    nodes: list[fx.Node] = []
    builder = NODES(graph)
    add, operand, arguments, containers = builder.add, tables.operand, tables.arguments, tables.containers
    targets, prepared = tables.targets, tables.keywords
    operands = iter(columns.operands)
    rows = zip(columns.names, columns.targets, columns.arities, columns.keywords, strict=True)
    name = ""
    try:
        for name, place, arity, keywords in rows:
            args = tuple(
                [
                    nodes[each] if each < 0 else operand(each, nodes) if each in containers else arguments[each]
                    for each in islice(operands, arity)
                ]
            )
            kwargs = prepared[keywords] if keywords in prepared else tables.keyword_arguments(keywords, nodes)
            target = targets[place]
            if isinstance(target, str):
                nodes.append(add(name, target, *_uncalled(target, name, args), kwargs))
            else:
                nodes.append(add(name, "call_function", target, args, kwargs))
    except IndexError:
        raise FormatError("an argument that no node before it gives", loc=("graph", name[:80])) from None
    builder.finish(nodes, columns.targets, targets)
    return nodes


def _uncalled(kind: str, name: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Target and arguments of a node that calls nothing, whose arguments have been checked."""
    return (args[0], ()) if kind == "get_attr" else (name if kind == "placeholder" else kind, args)
