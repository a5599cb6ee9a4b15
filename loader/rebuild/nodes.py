"""Nodes of a graph, made without the walks over every argument that ``Graph.create_node`` makes.

The fast way sets what torch's constructors set. It is compared with them when this module is imported, and not used
on a torch where the two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from loader.torch_internals import NodeBase

Target = str | Callable[..., Any]


class PublicNodes:
    """Adds nodes to a graph as anybody may.

    Args:
        graph: The graph, which has no nodes yet.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph

    def add(self, name: str, op: str, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        """Add a node at the end."""
        node = self._graph.create_node(op, target, args, kwargs, name=name)
        # torch's namespace avoids names of builtins, which arguments of forward may have.
        node.name = name
        node.target = target
        return node

    def finish(self, nodes: Sequence[fx.Node], kinds: Sequence[int], targets: Sequence[Target]) -> None:
        """Let the graph know its nodes, as it does already.

        Args:
            nodes: All of them.
            kinds: For each, the place in ``targets`` of what it calls, or of its operation if it calls nothing.
            targets: What nodes call, and operations.
        """


class FastNodes:
    """Adds nodes by what torch's constructors come down to; in all else as :class:`PublicNodes`."""

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        self._append = graph._root._prepend

    def add(self, name: str, op: str, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        """Add a node at the end."""
        node: fx.Node = _new(fx.Node)
        _init(node, self._graph, name, op, target, None)
        _set_arguments(node, args, kwargs)
        self._append(node)
        return node

    def finish(self, nodes: Sequence[fx.Node], kinds: Sequence[int], targets: Sequence[Target]) -> None:
        """Let the graph know its nodes."""
        graph = self._graph
        names: dict[Any, str] = {node: node.name for node in nodes}
        graph._graph_namespace._obj_to_name.update(names)
        graph._graph_namespace._used_names.update(names.values())
        graph._len = len(nodes)
        table = graph._find_nodes_lookup_table.table
        found = [table[(target, None) if isinstance(target, str) else ("call_function", target)] for target in targets]
        for node, kind in zip(nodes, kinds, strict=True):
            found[kind][node] = None


_new = fx.Node.__new__
_init = NodeBase.__init__
_set_arguments: Callable[..., None] = getattr(NodeBase, "_update_args_kwargs", fx.Node.__init__)


def _described(make: type[PublicNodes | FastNodes]) -> list[Any]:
    """All that a small graph knows of itself, made in some way."""
    graph = fx.Graph()
    nodes = make(graph)
    x = nodes.add("x", "placeholder", "x", (), {})
    y = nodes.add("add", "call_function", max, ([x, 1], (x, None)), {"key": x})
    out = nodes.add("output", "output", "output", ((y,),), {})
    nodes.finish([x, y, out], [0, 1, 2], ["placeholder", max, "output"])
    seen: list[Any] = [str(graph), graph._len, [*graph._used_names], sorted(graph._graph_namespace._used_names)]
    seen += [(str(node), name) for node, name in graph._graph_namespace._obj_to_name.items()]
    seen += [(key, [*map(str, found)]) for key, found in graph._find_nodes_lookup_table.table.items() if found]
    for node in graph.nodes:
        seen += [sorted(vars(node)), node.type, node.meta, type(node.args), type(node.kwargs), node._sort_key]
        seen += [str(part) for part in (node.args, node.kwargs, node.users, node._input_nodes, node.next, node.prev)]
        seen += [type(arg) for arg in node.args]
    graph.lint()
    return seen


def _are_alike() -> bool:
    try:
        return _described(FastNodes) == _described(PublicNodes)
    except Exception:  # another torch can differ in anything
        return False


NODES = FastNodes if _are_alike() else PublicNodes
"""The fastest way to make nodes that this torch knows."""
