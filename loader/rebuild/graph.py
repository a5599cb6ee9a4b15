"""Nodes to ``torch.fx`` graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from loader.operators import Operators
from loader.rebuild.literals import LiteralBuilder
from loader.rebuild.symbols import SymbolBuilder
from loader.rebuild.tensors import TensorBuilder
from loader.rebuild.values import ValueBuilder
from loader.torch_internals import key_types
from schema import debug as debugging, graph as documents
from schema.errors import FormatError, Loc
from schema.graph import ABSENT
from schema.names import check_identifier

_UNBACKED_METHODS = frozenset({"size", "stride", "storage_offset", "item", "numel"})
"""Methods on the way to an unbacked symbol. torch calls them when it traces a program again."""


class Tables:
    """The tables that the graphs of one program share, as Python and torch values.

    Args:
        document: The ``graph`` section.
        literals: Builds literals.
        operators: Resolves targets.
        tensors: Builds tensors that graphs read by name.
    """

    def __init__(
        self,
        document: documents.ProgramGraph,
        literals: LiteralBuilder,
        operators: Operators,
        tensors: TensorBuilder,
    ) -> None:
        self.document = document
        self.tensors = tensors
        self.literals = [literals.build(row, ("graph", "literals", i)) for i, row in enumerate(document.literals)]
        self.targets: list[str | Callable[..., Any]] = [
            target.removeprefix("node::")
            if target.startswith("node::")
            else operators.resolve(target, ("graph", "targets", i))
            for i, target in enumerate(document.targets)
        ]

    def literal(self, index: int, loc: Loc) -> Any:
        """The value of a literal.

        Raises:
            FormatError: There is none at that place.
        """
        return _at(self.literals, index, "literal", loc)


class Metadata:
    """Gives nodes their metadata: values, module stacks and what else a captured program knows of them.

    Args:
        tables: The tables of the program.
        values: Builds values.
        symbols: Builds symbols.
        debug: The ``debug`` section, if stack traces are wanted.
    """

    def __init__(
        self, tables: Tables, values: ValueBuilder, symbols: SymbolBuilder, debug: debugging.Debug | None
    ) -> None:
        self._tables = tables
        self._values = values
        self._symbols = symbols
        self._debug = debug
        self._traces = _stack_traces(debug) if debug else []
        self._stacks: list[dict[str, tuple[str, str]]] = [{}]
        for index, frame in enumerate(tables.document.frames):
            below = _at(self._stacks, frame.parent, "module frame", ("graph", "frames", index))
            self._stacks.append({**below, frame.key: (frame.path, frame.type)})
        keys = key_types()
        self._bindings = [
            {self._symbol(row.symbol): tuple(_key(keys, step) for step in row.path) for row in rows}
            for rows in tables.document.bindings
        ]

    def give(self, node: fx.Node, row: documents.Node, graph: int, place: int) -> None:
        """Set the metadata of one node."""
        loc: Loc = ("graph", row.name)
        meta = node.meta
        tables = self._tables
        if self._debug:
            self._give_debug(meta, graph, place, loc)
        if row.modules != ABSENT:
            meta["nn_module_stack"] = dict(_at(self._stacks, row.modules, "module frame", loc))
        if row.function != ABSENT:
            meta["torch_fn"] = _at(tables.document.functions, row.function, "function", loc)
        if row.value != ABSENT:
            meta["val"] = self._values.build(row.value, loc)
        if row.bindings != ABSENT:
            meta["unbacked_bindings"] = dict(_at(self._bindings, row.bindings, "binding", loc))
        if row.custom != ABSENT:
            meta["custom"] = tables.literal(row.custom, loc)

    def _give_debug(self, meta: dict[str, Any], graph: int, place: int, loc: Loc) -> None:
        debug = self._debug
        assert debug is not None
        row = _at(_at(debug.nodes, graph, "graph", loc), place, "node", loc)
        if row.stack:
            meta["stack_trace"] = _at(self._traces, row.stack - 1, "stack", loc)
        if row.sources:
            names = _at(debug.sources, row.sources - 1, "source", loc)
            meta["source_fn_stack"] = [(source.name, source.function) for source in names]

    def _symbol(self, index: int) -> Any:
        return _at(self._symbols.symbols, index, "symbol", ("graph", "bindings"))


def _stack_traces(debug: debugging.Debug) -> list[str | None]:
    """The text of each stack, None of one without frames; nodes of one stack share it."""
    return [
        "".join(_at(debug.frames, frame, "frame", ("debug", "stacks", index)) for frame in frames) or None
        for index, frames in enumerate(debug.stacks)
    ]


def build_graphs(tables: Tables, metadata: Metadata | None) -> tuple[fx.Graph, torch.nn.Module]:
    """The program's graph, and the module whose attributes its ``get_attr`` nodes name.

    Args:
        tables: The tables of the program.
        metadata: Gives nodes their metadata; None for nodes without.

    Raises:
        FormatError: The graphs are not well formed.
    """
    graphs = tables.document.graphs
    if not graphs:
        raise FormatError("no graph", loc=("graph",))
    built: list[fx.GraphModule | None] = [None] * len(graphs)
    # A subgraph stands after every graph that reaches it: from the last to the first, all that one needs is there.
    for index in range(len(graphs) - 1, 0, -1):
        graph, root = _build_graph(tables, metadata, index, built)
        built[index] = generate_code(root, graph, ("graph", "graphs", index))
    return _build_graph(tables, metadata, 0, built)


def generate_code(root: torch.nn.Module, graph: fx.Graph, loc: Loc) -> fx.GraphModule:
    """A graph as a module that can be called.

    Raises:
        FormatError: torch can write no code for it.
    """
    try:
        return fx.GraphModule(root, graph)
    except Exception as error:  # torch raises whatever its code generator and Python's compiler do
        raise FormatError(f"no code can be generated: {type(error).__name__} {error}", loc=loc) from error


def _build_graph(
    tables: Tables, metadata: Metadata | None, index: int, built: list[fx.GraphModule | None]
) -> tuple[fx.Graph, torch.nn.Module]:
    document = tables.document.graphs[index]
    root = torch.nn.Module()
    for subgraph in document.subgraphs:
        loc: Loc = ("graph", "graphs", index, "subgraphs", subgraph.name[:80])
        module = _at(built, subgraph.graph, "subgraph", loc)
        if module is None:
            raise FormatError("a subgraph stands before a graph that reaches it", loc=loc)
        root.add_module(check_identifier(subgraph.name, loc), module)
    for attribute in document.attributes:
        loc = ("graph", "graphs", index, "attributes", attribute.name[:80])
        _give_tensor(root, check_identifier(attribute.name, loc), tables.tensors.at(attribute.tensor, loc), loc)
    graph = fx.Graph()
    _NodeBuilder(tables, graph, root).build(document.nodes, metadata, index)
    return graph, root


def _give_tensor(root: torch.nn.Module, name: str, tensor: torch.Tensor, loc: Loc) -> None:
    register = root.register_parameter if isinstance(tensor, torch.nn.Parameter) else root.register_buffer
    try:
        register(name, tensor)  # type: ignore[arg-type]
    except KeyError as error:
        raise FormatError(f"no graph can hold a tensor of this name: {error}", loc=loc) from error


class _NodeBuilder:
    """Adds the nodes of one graph."""

    def __init__(self, tables: Tables, graph: fx.Graph, root: torch.nn.Module) -> None:
        self._tables = tables
        self._graph = graph
        self._reached = {*root._modules, *root._buffers, *root._parameters}
        self._nodes: list[fx.Node] = []

    def build(self, rows: list[documents.Node], metadata: Metadata | None, graph: int) -> None:
        names: set[str] = set()
        for place, row in enumerate(rows):
            loc: Loc = ("graph", row.name[:80])
            if check_identifier(row.name, loc) in names:
                raise FormatError("two nodes have this name", loc=loc)
            if row.name == "self":
                raise FormatError("not the name of a node: code has another use for it", loc=loc)
            names.add(row.name)
            node = self._add(row, loc)
            # torch's namespace avoids names of builtins, which arguments of forward may have.
            node.name = row.name
            self._nodes.append(node)
            if metadata:
                metadata.give(node, row, graph, place)
        if not rows or self._nodes[-1].op != "output":
            raise FormatError("a graph must end in an output", loc=("graph",))

    def _add(self, row: documents.Node, loc: Loc) -> fx.Node:
        target = _at(self._tables.targets, row.target, "target", loc)
        args = [self._operand(operand, loc) for operand in row.args]
        kwargs = {check_identifier(key, loc): self._operand(value, loc) for key, value in row.kwargs.items()}
        if callable(target):
            return self._graph.create_node("call_function", target, tuple(args), kwargs, name=row.name)
        if kwargs or self._ended():
            raise FormatError("misplaced node", loc=loc)
        match target, args:
            case "placeholder", []:
                node = self._graph.create_node("placeholder", row.name, name=row.name)
                node.target = row.name
                return node
            case "output", [result]:
                return self._graph.create_node("output", "output", (result,), name=row.name)
            case "get_attr", [str(name)] if name in self._reached:
                return self._graph.create_node("get_attr", name, name=row.name)
        raise FormatError(f"a malformed {str(target)[:80]} node", loc=loc)

    def _ended(self) -> bool:
        return bool(self._nodes) and self._nodes[-1].op == "output"

    def _operand(self, operand: documents.Operand, loc: Loc) -> Any:
        match operand:
            case int():
                return self._tables.literal(operand, loc) if operand >= 0 else self._result(-operand, loc)
            case documents.ListOf(items):
                return [self._operand(item, loc) for item in items]
            case documents.TupleOf(items):
                return tuple(self._operand(item, loc) for item in items)
            case documents.SliceOf(parts):
                return slice(*(self._operand(part, loc) for part in parts))
            case documents.DictOf(keys, values):
                names = [self._tables.literal(key, loc) for key in keys]
                if len(names) != len(values) or not all(isinstance(name, (str, int)) for name in names):
                    raise FormatError("a malformed dictionary", loc=loc)
                return dict(zip(names, (self._operand(value, loc) for value in values), strict=True))

    def _result(self, distance: int, loc: Loc) -> fx.Node:
        if distance > len(self._nodes):
            raise FormatError(f"no node {distance} places before this one", loc=loc)
        return self._nodes[-distance]


def _key(constructors: dict[str, Any], step: documents.KeyStep) -> Any:
    loc: Loc = ("graph", "bindings")
    wanted = {"method": str, "attribute": str, "index": int, "divide": int, "convert": type(None)}.get(step.kind)
    if wanted is None or not isinstance(step.key, wanted):
        raise FormatError(f"no step {step.kind[:80]!r} {str(step.key)[:80]!r}", loc=loc)
    if step.kind == "method" and step.key not in _UNBACKED_METHODS:
        raise FormatError(f"the method {step.key!r} on the way to a symbol", loc=loc)
    if step.kind == "attribute":
        check_identifier(str(step.key), loc)
    return constructors[step.kind](step.key)


def _at(rows: Sequence[Any], index: int, what: str, loc: Loc) -> Any:
    if not 0 <= index < len(rows):
        raise FormatError(f"no {what} {index}", loc=loc)
    return rows[index]
