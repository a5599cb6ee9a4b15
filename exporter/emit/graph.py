"""Graphs, nodes and their metadata: the ``graph`` section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import fx
from torch.fx.immutable_collections import immutable_list

from exporter.emit.flat_calls import emit_callees, emit_skeletons
from exporter.emit.literals import emit_literal
from exporter.emit.operators import emit_operator
from exporter.emit.tables import Table
from exporter.emit.texts import check_stack_text
from exporter.emit.values import ValueEmitter
from exporter.torch_internals import (
    CallMethodKey,
    ConvertIntKey,
    DivideByKey,
    InnerTensorKey,
    OpOverload,
    SequenceKey,
    TreeSpec,
)
from schema import graph as documents
from schema.errors import Loc, UnsupportedError
from schema.graph import ABSENT

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from exporter.emit.symbols import SymbolTable
    from exporter.emit.values import PlaceFake

Read = TypeVar("Read", fx.GraphModule, torch.Tensor, TreeSpec)

_KEYS: dict[type, tuple[str, str | None]] = {
    CallMethodKey: ("method", "name"),
    SequenceKey: ("index", "idx"),
    DivideByKey: ("divide", "divisor"),
    InnerTensorKey: ("attribute", "inner_name"),
    ConvertIntKey: ("convert", None),
}
"""Steps to an unbacked symbol: the kind of each, and the attribute that holds its key."""

_SCALARS = frozenset({int, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format})
"""Types whose equal values have one encoding, so that a literal is found without encoding it."""

_LISTS = frozenset({list, immutable_list})
_INTEGERS = frozenset({int})


class GraphEmitter:
    """Collects the graphs of one program and the tables that they share.

    Args:
        symbols: Collects symbols.
        place_tensor: Gives a tensor that a graph reads, by its FQN, a place in the table of tensors.
        place_fake: Gives the object whose fake stands for an input a place in the table of objects.
    """

    def __init__(
        self, symbols: SymbolTable, place_tensor: Callable[[str, torch.Tensor], int], place_fake: PlaceFake
    ) -> None:
        self._symbols = symbols
        self._place_tensor = place_tensor
        self.modules: list[fx.GraphModule] = []
        self.passed: set[OpOverload] = set()
        self._targets: Table[str] = Table()
        self._arguments: Table[documents.Argument] = Table()
        self._keywords: Table[documents.Keywords] = Table()
        self._values = ValueEmitter(symbols, self._arguments, place_fake)
        self._frames: Table[documents.ModuleFrame] = Table()
        self._stacks: dict[tuple[Any, ...], int] = {}
        self._functions: dict[tuple[str, str], int] = {}
        self._bindings: Table[list[documents.Binding]] = Table()

    def document(self, program: torch.export.ExportedProgram) -> documents.ProgramGraph:
        """The whole section.

        ``modules`` then holds the graph modules in the order of its graphs, ``passed`` the operators among arguments.
        """
        self.modules = _reachable(program.graph_module)
        self._paths = {module: path for path, module in program.graph_module.named_modules()}
        return documents.ProgramGraph(
            dialect=program.verifiers[0].dialect,
            graphs=[self._graph(module) for module in self.modules],
            targets=self._targets.rows,
            arguments=self._arguments.rows,
            keywords=self._keywords.rows,
            values=self._values.rows,
            frames=self._frames.rows,
            functions=list(self._functions),
            bindings=self._bindings.rows,
            custom=emit_literal(program.graph_module.meta.get("custom"), ("custom",)),
        )

    def _graph(self, module: fx.GraphModule) -> documents.Graph:
        nodes = list(module.graph.nodes)
        specs = _read(module, TreeSpec)
        graph = documents.Graph(
            names=[node.name for node in nodes],
            targets=[self._target(node) for node in nodes],
            arities=[1 if node.op == "get_attr" else len(node.args) for node in nodes],
            operands=[],
            keywords=[],
            values=[self._value(node) for node in nodes],
            modules=[self._module_stack(node) for node in nodes],
            functions=[self._function(node) for node in nodes],
            custom={place: self._custom(node) for place, node in enumerate(nodes) if "custom" in node.meta},
            bindings={
                place: self._binding(node) for place, node in enumerate(nodes) if node.meta.get("unbacked_bindings")
            },
            subgraphs=[
                documents.Subgraph(name, self.modules.index(sub)) for name, sub in _read(module, fx.GraphModule).items()
            ],
            attributes=self._attributes(module),
            callees=emit_callees(specs, ("graph",)),
            skeletons=emit_skeletons(specs, ("graph",)),
        )
        places: dict[fx.Node, int] = {}
        for place, node in enumerate(nodes):
            loc: Loc = ("graph", node.name)
            args = (node.target,) if node.op == "get_attr" else node.args
            graph.operands.extend([self._operand(arg, places, place, loc) for arg in args])
            graph.keywords.append(self._keyword_arguments(node.kwargs, places, place, loc))
            places[node] = place
        return graph

    def _attributes(self, module: fx.GraphModule) -> list[documents.Attribute]:
        path = self._paths[module]
        return [
            documents.Attribute(name, self._place_tensor(f"{path}.{name}".lstrip("."), tensor))
            for name, tensor in _read(module, torch.Tensor).items()
        ]

    def _target(self, node: fx.Node) -> int:
        if node.op != "call_function":
            return self._targets.place(f"node::{node.op}")
        return self._targets.find(node.target, emit_operator, node.target, ("graph", node.name))

    def _operand(self, value: Any, places: Mapping[fx.Node, int], place: int, loc: Loc) -> int:
        if isinstance(value, fx.Node):
            return places[value] - place
        if key := _key(value):
            return self._arguments.find(key, emit_literal, value, loc)
        leaves = list(_leaves(value))
        if any(isinstance(leaf, fx.Node) for leaf in leaves):
            return self._arguments.place(self._container(value, places, place, loc))
        self.passed.update(leaf for leaf in leaves if isinstance(leaf, OpOverload))
        return self._arguments.place(emit_literal(value, loc))

    def _container(self, value: Any, places: Mapping[fx.Node, int], place: int, loc: Loc) -> documents.Container:
        def operands(items: Iterable[Any]) -> list[int]:
            return [self._operand(item, places, place, loc) for item in items]

        if isinstance(value, dict):
            return documents.DictOf(operands(value), operands(value.values()))
        if isinstance(value, slice):
            start, stop, step = operands((value.start, value.stop, value.step))
            return documents.SliceOf((start, stop, step))
        if isinstance(value, tuple) and type(value) is not tuple:
            raise UnsupportedError(f"an argument of type {type(value).__qualname__} cannot be stored", loc=loc)
        return (documents.ListOf if isinstance(value, list) else documents.TupleOf)(operands(value))

    def _keyword_arguments(self, kwargs: Mapping[str, Any], places: Mapping[fx.Node, int], place: int, loc: Loc) -> int:
        operands = [self._operand(arg, places, place, loc) for arg in kwargs.values()] if kwargs else []
        return self._keywords.find((*kwargs, *operands), documents.Keywords, list(kwargs), operands)

    def _value(self, node: fx.Node) -> int:
        return self._values.place(node.meta["val"], ("graph", node.name)) if "val" in node.meta else ABSENT

    def _custom(self, node: fx.Node) -> int:
        return self._arguments.place(emit_literal(node.meta["custom"], ("graph", node.name, "custom")))

    def _function(self, node: fx.Node) -> int:
        names = node.meta.get("torch_fn")
        return self._functions.setdefault(names, len(self._functions)) if names else ABSENT

    def _module_stack(self, node: fx.Node) -> int:
        stack = node.meta.get("nn_module_stack")
        if stack is None:
            return ABSENT
        levels = (*stack, *stack.values())
        place = self._stacks.get(levels)
        if place is None:
            place = self._stacks[levels] = self._place_stack(stack, ("graph", node.name))
        return place

    def _place_stack(self, stack: Mapping[str, tuple[str, Any]], loc: Loc) -> int:
        place = 0
        for key, (path, kind) in stack.items():
            level = place, key, path, kind
            place = 1 + self._frames.find(level, _frame, *level, loc)
        return place

    def _binding(self, node: fx.Node) -> int:
        rows = []
        for symbol, path in node.meta["unbacked_bindings"].items():
            steps = [_key_step(key, ("graph", node.name)) for key in path]
            rows.append(documents.Binding(self._symbols.symbol(symbol), steps))
        return self._bindings.place(rows)


def _frame(parent: int, key: str, path: str, kind: Any, loc: Loc) -> documents.ModuleFrame:
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return documents.ModuleFrame(parent, *(check_stack_text(text, loc) for text in (key, path, name)))


def _key(value: Any) -> Hashable:
    """What a literal is found by without being made, if there is such a thing."""
    kind = type(value)
    if kind in _SCALARS:
        return kind, value
    return (kind, *value) if kind in _LISTS and _INTEGERS.issuperset(map(type, value)) else None


def _leaves(value: Any) -> Iterator[Any]:
    """What is in nested containers."""
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    if not isinstance(value, (list, tuple, dict)):
        yield value
        return
    for item in value.values() if isinstance(value, dict) else value:
        yield from _leaves(item)


def _key_step(key: Any, loc: Loc) -> documents.KeyStep:
    try:
        kind, attribute = _KEYS[type(key)]
    except KeyError:
        raise UnsupportedError(f"a path over {type(key).__name__} cannot be stored", loc=loc) from None
    return documents.KeyStep(kind, getattr(key, attribute) if attribute else None)


def _read(module: fx.GraphModule, kind: type[Read]) -> dict[str, Read]:
    """The attributes of one kind that nodes of a graph read, by name.

    Raises:
        UnsupportedError: A node reads what is no graph, tensor or tree spec.
    """
    found: dict[str, Read] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        value = getattr(module, str(node.target), None)
        if not isinstance(value, (fx.GraphModule, torch.Tensor, TreeSpec)):
            what, loc = type(value).__name__, ("graph", node.name)
            raise UnsupportedError(f"the graph reads an attribute of type {what}", loc=loc)
        if isinstance(value, kind):
            found[str(node.target)] = value
    return found


def _reachable(root: fx.GraphModule) -> list[fx.GraphModule]:
    """A graph module and those it reaches, each after every one that reaches it."""
    order: list[fx.GraphModule] = []

    def visit(module: fx.GraphModule) -> None:
        if module not in order:
            for sub in reversed(_read(module, fx.GraphModule).values()):
                visit(sub)
            order.append(module)

    visit(root)
    return order[::-1]
