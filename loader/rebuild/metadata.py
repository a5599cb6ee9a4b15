"""Metadata of nodes: values, module stacks, and what else a captured program knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from loader.rebuild.symbols import SymbolBuilder
from loader.rebuild.tables import Tables, at
from loader.rebuild.values import ValueBuilder
from loader.torch_internals import key_types
from schema import debug as debugging, graph as documents
from schema.errors import FormatError, Loc
from schema.graph import ABSENT
from schema.names import check_identifier

_UNBACKED_METHODS = frozenset({"size", "stride", "storage_offset", "item", "numel"})
"""Methods on the way to an unbacked symbol. torch calls them when it traces a program again."""


class Metadata:
    """Gives nodes their metadata.

    Args:
        tables: The tables of the program, whose places have been checked.
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
        for frame in tables.document.frames:
            self._stacks.append({**self._stacks[frame.parent], frame.key: (frame.path, frame.type)})
        self._bindings = [self._binding(rows) for rows in tables.document.bindings]

    def give(self, nodes: Sequence[fx.Node], columns: documents.Graph, graph: int) -> None:
        """Set the metadata of the nodes of one graph.

        Args:
            nodes: The nodes.
            columns: What the section says of them.
            graph: The graph's place in the section.

        Raises:
            FormatError: The ``debug`` section does not fit the graph.
        """
        stacks, functions, makers = self._stacks, self._tables.document.functions, self._values.makers
        rows = zip(nodes, columns.values, columns.modules, columns.functions, strict=True)
        for node, value, modules, function in rows:
            meta = node.meta
            if modules != ABSENT:
                meta["nn_module_stack"] = stacks[modules].copy()
            if function != ABSENT:
                meta["torch_fn"] = functions[function]
            if value != ABSENT:
                meta["val"] = makers[value]()
        for place, binding in columns.bindings.items():
            nodes[place].meta["unbacked_bindings"] = self._bindings[binding].copy()
        for place, custom in columns.custom.items():
            nodes[place].meta["custom"] = self._tables.arguments[custom]
        if self._debug:
            self._give_debug(nodes, at(self._debug.nodes, graph, "graph", ("debug",)))

    def _give_debug(self, nodes: Sequence[fx.Node], columns: debugging.NodesDebug) -> None:
        assert self._debug is not None
        if not len(nodes) == len(columns.stacks) == len(columns.sources):
            raise FormatError("not one entry for each node", loc=("debug", "nodes"))
        for node, stack, place in zip(nodes, columns.stacks, columns.sources, strict=True):
            if stack:
                node.meta["stack_trace"] = at(self._traces, stack - 1, "stack", ("debug", node.name))
            if place:
                names = at(self._debug.sources, place - 1, "source", ("debug", node.name))
                node.meta["source_fn_stack"] = [(source.name, source.function) for source in names]

    def _binding(self, rows: list[documents.Binding]) -> dict[Any, tuple[Any, ...]]:
        keys, symbols, loc = key_types(), self._symbols.symbols, ("graph", "bindings")
        return {at(symbols, row.symbol, "symbol", loc): tuple(_key(keys, step) for step in row.path) for row in rows}


def _stack_traces(debug: debugging.Debug) -> list[str | None]:
    """The text of each stack, None of one without frames; nodes of one stack share it."""
    return ["".join([debug.frames[frame] for frame in frames]) or None for frames in debug.stacks]


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
