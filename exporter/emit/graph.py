"""Graphs, nodes and their metadata: the ``graph`` section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import fx

from exporter.emit.composites import flatten, sparse_parts
from exporter.emit.literals import emit_device, emit_literal, torch_name
from exporter.emit.operators import emit_operator
from exporter.emit.tables import Table
from exporter.emit.texts import check_text
from exporter.torch_internals import (
    CallMethodKey,
    ConvertIntKey,
    DivideByKey,
    InnerTensorKey,
    SequenceKey,
    is_traceable_wrapper_subclass,
)
from schema import graph as documents
from schema.errors import Loc, UnsupportedError
from schema.graph import ABSENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporter.emit.symbols import SymbolTable
    from schema.literals import Literal

Read = TypeVar("Read", fx.GraphModule, torch.Tensor)

_SYMBOLIC: dict[type, str] = {torch.SymInt: "int", torch.SymFloat: "float", torch.SymBool: "bool"}

_KEYS: dict[type, tuple[str, str | None]] = {
    CallMethodKey: ("method", "name"),
    SequenceKey: ("index", "idx"),
    DivideByKey: ("divide", "divisor"),
    InnerTensorKey: ("attribute", "inner_name"),
    ConvertIntKey: ("convert", None),
}
"""Steps to an unbacked symbol: the kind of each, and the attribute that holds its key."""


class GraphEmitter:
    """Collects the graphs of one program and the tables that they share.

    Args:
        symbols: Collects symbols.
        place_tensor: Gives a tensor that a graph reads, by its FQN, a place in the table of tensors.
    """

    def __init__(self, symbols: SymbolTable, place_tensor: Callable[[str, torch.Tensor], int]) -> None:
        self._symbols = symbols
        self._place_tensor = place_tensor
        self.modules: list[fx.GraphModule] = []
        self._targets: Table[str] = Table()
        self._literals: Table[Literal] = Table()
        self._values: Table[documents.Value] = Table()
        self._frames: Table[documents.ModuleFrame] = Table()
        self._functions: Table[tuple[str, str]] = Table()
        self._bindings: Table[list[documents.Binding]] = Table()

    def document(self, program: torch.export.ExportedProgram) -> documents.ProgramGraph:
        """The whole section. ``modules`` then holds the graph modules in the order of its graphs."""
        self.modules = _reachable(program.graph_module)
        self._paths = {module: path for path, module in program.graph_module.named_modules()}
        return documents.ProgramGraph(
            dialect=program.verifiers[0].dialect,
            graphs=[self._graph(module) for module in self.modules],
            targets=self._targets.rows,
            literals=self._literals.rows,
            values=self._values.rows,
            frames=self._frames.rows,
            functions=self._functions.rows,
            bindings=self._bindings.rows,
            custom=emit_literal(program.graph_module.meta.get("custom"), ("custom",)),
        )

    def _graph(self, module: fx.GraphModule) -> documents.Graph:
        places: dict[fx.Node, int] = {}
        nodes = []
        for place, node in enumerate(module.graph.nodes):
            nodes.append(self._node(node, places, place))
            places[node] = place
        subgraphs = [documents.Subgraph(name, self.modules.index(sub)) for name, sub in _subgraphs(module).items()]
        return documents.Graph(nodes, subgraphs, self._attributes(module))

    def _attributes(self, module: fx.GraphModule) -> list[documents.Attribute]:
        path = self._paths[module]
        return [
            documents.Attribute(name, self._place_tensor(f"{path}.{name}".lstrip("."), tensor))
            for name, tensor in _read(module, torch.Tensor).items()
        ]

    def _node(self, node: fx.Node, places: Mapping[fx.Node, int], place: int) -> documents.Node:
        loc: Loc = ("graph", node.name)
        args = (node.target,) if node.op == "get_attr" else node.args
        meta = node.meta
        return documents.Node(
            target=self._targets.place(_target(node, loc)),
            name=node.name,
            args=[self._operand(arg, places, place, loc) for arg in args],
            kwargs={name: self._operand(arg, places, place, loc) for name, arg in node.kwargs.items()},
            value=self._value(meta["val"], loc) if "val" in meta else ABSENT,
            modules=self._module_stack(meta["nn_module_stack"], loc) if "nn_module_stack" in meta else ABSENT,
            function=self._function(meta["torch_fn"], loc) if meta.get("torch_fn") else ABSENT,
            custom=self._literals.place(emit_literal(meta["custom"], (*loc, "custom"))) if "custom" in meta else ABSENT,
            bindings=self._binding(meta["unbacked_bindings"], loc) if meta.get("unbacked_bindings") else ABSENT,
        )

    def _operand(self, value: Any, places: Mapping[fx.Node, int], place: int, loc: Loc) -> documents.Operand:
        if isinstance(value, fx.Node):
            return places[value] - place
        if not _holds_node(value):
            return self._literals.place(emit_literal(value, loc))
        if isinstance(value, dict):
            keys = [self._literals.place(emit_literal(key, loc)) for key in value]
            return documents.DictOf(keys, [self._operand(item, places, place, loc) for item in value.values()])
        if isinstance(value, slice):
            start, stop, step = (
                self._operand(part, places, place, loc) for part in (value.start, value.stop, value.step)
            )
            return documents.SliceOf((start, stop, step))
        if isinstance(value, tuple) and type(value) is not tuple:
            raise UnsupportedError(f"an argument of type {type(value).__qualname__} cannot be stored", loc=loc)
        items = [self._operand(item, places, place, loc) for item in value]
        return documents.ListOf(items) if isinstance(value, list) else documents.TupleOf(items)

    def _value(self, value: Any, loc: Loc) -> int:
        return self._values.place(self._value_row(value, (*loc, "val")))

    def _value_row(self, value: Any, loc: Loc) -> documents.Value:
        if isinstance(value, torch.Tensor):
            if is_traceable_wrapper_subclass(value):
                return self._subclass(value, loc)
            return self._tensor(value) if value.layout is torch.strided else self._sparse(value, loc)
        if type(value) in _SYMBOLIC:
            return self._symbolic(value)
        if isinstance(value, (list, tuple)):
            items = [self._value(item, (*loc, index)) for index, item in enumerate(value)]
            return documents.ListValue(items) if isinstance(value, list) else documents.TupleValue(items)
        return documents.LiteralValue(self._literals.place(emit_literal(value, loc)))

    def _subclass(self, value: torch.Tensor, loc: Loc) -> documents.SubclassValue:
        flat = flatten(value, loc)
        return documents.SubclassValue(
            module=flat.module,
            qualname=flat.qualname,
            attributes=list(flat.parts),
            parts=[self._value(part, (*loc, name)) for name, part in flat.parts.items()],
            context=self._literals.place(flat.context),
            outer=self._values.place(self._tensor(value)),
        )

    def _sparse(self, value: torch.Tensor, loc: Loc) -> documents.SparseValue:
        if any(isinstance(size, torch.SymInt) for size in value.shape):
            message = "a sparse tensor whose sizes vary cannot be stored"
            raise UnsupportedError(message, loc=loc, remedy="capture it without dynamic shapes")
        index, *_, values = sparse_parts(value, loc).values()
        block = 2 if value.layout in (torch.sparse_bsr, torch.sparse_bsc) else 0
        first = values.dim() - value.dense_dim() - block
        return documents.SparseValue(
            layout=torch_name(value.layout),
            dtype=torch_name(value.dtype),
            shape=list(value.shape),
            dense=value.dense_dim(),
            block=list(values.shape[first : first + block]),
            indices=torch_name(index.dtype),
            coalesced=value.layout is torch.sparse_coo and value.is_coalesced(),
            device=emit_device(value.device),
            requires_grad=value.requires_grad,
        )

    def _tensor(self, value: torch.Tensor) -> documents.TensorValue:
        return documents.TensorValue(
            dtype=torch_name(value.dtype),
            shape=[self._size(size) for size in value.shape],
            strides=[self._size(stride) for stride in value.stride()],
            device=emit_device(value.device),
            requires_grad=value.requires_grad,
        )

    def _size(self, size: int | torch.SymInt) -> documents.Size:
        if isinstance(size, torch.SymInt):
            fixed = size.node.expr
            return int(fixed) if fixed.is_Integer else self._symbolic(size)
        return size

    def _symbolic(self, value: torch.SymInt | torch.SymFloat | torch.SymBool) -> documents.Symbolic:
        node = value.node
        constant = None if node.expr.free_symbols else node.expr  # torch may know it without a hint
        hint = node.hint if node.has_hint() else constant
        kind = _SYMBOLIC[type(value)]
        plain = None if hint is None else {"int": int, "float": float, "bool": bool}[kind](hint)
        return documents.Symbolic(kind, self._symbols.expression(node.expr), plain)

    def _function(self, names: tuple[str, str], loc: Loc) -> int:
        return self._functions.place((check_text(names[0], loc), check_text(names[1], loc)))

    def _module_stack(self, stack: Mapping[str, tuple[str, Any]], loc: Loc) -> int:
        place = 0
        for key, (path, kind) in stack.items():
            name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            for text in (key, path, name):
                check_text(text, loc)
            place = 1 + self._frames.place(documents.ModuleFrame(place, key, path, name))
        return place

    def _binding(self, bindings: Mapping[Any, tuple[Any, ...]], loc: Loc) -> int:
        rows = []
        for symbol, path in bindings.items():
            steps = [_key_step(key, loc) for key in path]
            rows.append(documents.Binding(self._symbols.symbol(symbol), steps))
        return self._bindings.place(rows)


def _target(node: fx.Node, loc: Loc) -> str:
    return emit_operator(node.target, loc) if node.op == "call_function" else f"node::{node.op}"


def _holds_node(value: Any) -> bool:
    found: list[fx.Node] = []
    fx.map_arg(value, found.append)
    return bool(found)


def _key_step(key: Any, loc: Loc) -> documents.KeyStep:
    try:
        kind, attribute = _KEYS[type(key)]
    except KeyError:
        raise UnsupportedError(f"a path over {type(key).__name__} cannot be stored", loc=loc) from None
    return documents.KeyStep(kind, getattr(key, attribute) if attribute else None)


def _subgraphs(module: fx.GraphModule) -> dict[str, fx.GraphModule]:
    return _read(module, fx.GraphModule)


def _read(module: fx.GraphModule, kind: type[Read]) -> dict[str, Read]:
    """The attributes of one kind that nodes of a graph read, by name.

    Raises:
        UnsupportedError: A node reads what is neither a graph nor a tensor.
    """
    found: dict[str, Read] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        value = getattr(module, str(node.target), None)
        if not isinstance(value, (fx.GraphModule, torch.Tensor)):
            what = type(value).__name__
            remedy = 'capture with ir="inference", which calls no functions of Python'
            loc: Loc = ("graph", node.name)
            raise UnsupportedError(f"the graph reads an attribute of type {what}", loc=loc, remedy=remedy)
        if isinstance(value, kind):
            found[str(node.target)] = value
    return found


def _reachable(root: fx.GraphModule) -> list[fx.GraphModule]:
    """A graph module and those it reaches, each after every one that reaches it."""
    order: list[fx.GraphModule] = []

    def visit(module: fx.GraphModule) -> None:
        if module not in order:
            for sub in reversed(_subgraphs(module).values()):
                visit(sub)
            order.append(module)

    visit(root)
    return order[::-1]
