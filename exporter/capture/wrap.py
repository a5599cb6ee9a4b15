"""Stage ``wrap``: regions under another grad mode or under autocast become subgraphs of their own.

A trace holds only the switches, ``_set_grad_enabled`` and ``_enter_autocast``; a program holds operators that take
the region as a subgraph. Nested regions are nested subgraphs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.export.graph_signature import ExportGraphSignature

from exporter.capture.artifacts import Lifted, Wrapped
from exporter.torch_internals import ENTER_AUTOCAST, EXIT_AUTOCAST, SET_GRAD_ENABLED, lazy_graph_modules, split_module

_Nodes = Iterator[torch.fx.Node]


@dataclass(frozen=True)
class _Region:
    """One kind of region.

    Attributes:
        operator: The operator that runs a subgraph under the mode.
        enter: The function that begins a region.
        marks: All functions that mark regions of this kind.
        starts: For each node, in order: does a new part begin with it?
        differs: Does this beginning change anything?
    """

    operator: Any
    enter: Any
    marks: tuple[Any, ...]
    starts: Callable[[_Nodes], Iterator[bool]]
    differs: Callable[[torch.fx.Node], bool]


def wrap(lifted: Lifted) -> Wrapped:
    """Wrap the regions.

    Args:
        lifted: A graph in which switches mark the regions.

    Returns:
        The same computation with a subgraph for each region and no switch left.
    """
    graph_module = lifted.graph_module
    for kind in _REGIONS:
        graph_module = _wrap_all(kind, graph_module, lifted.signature)
    return lifted.become(Wrapped, graph_module=graph_module)


def _starts_of_grad_regions(nodes: _Nodes) -> Iterator[bool]:
    """Each switch begins a part."""
    for node in nodes:
        yield node.target is SET_GRAD_ENABLED


def _starts_of_autocast_regions(nodes: _Nodes) -> Iterator[bool]:
    """The outermost entry begins a part, and so does whatever follows its exit."""
    depth, left = 0, False
    for node in nodes:
        entering = node.target is ENTER_AUTOCAST
        yield left or (entering and depth == 0)
        depth += entering - (node.target is EXIT_AUTOCAST)
        left = node.target is EXIT_AUTOCAST and depth == 0


_REGIONS = (
    _Region(
        operator=torch.ops.higher_order.wrap_with_set_grad_enabled,
        enter=SET_GRAD_ENABLED,
        marks=(SET_GRAD_ENABLED,),
        starts=_starts_of_grad_regions,
        differs=lambda enter: enter.args[0] is not torch.is_grad_enabled(),
    ),
    _Region(
        operator=torch.ops.higher_order.wrap_with_autocast,
        enter=ENTER_AUTOCAST,
        marks=(ENTER_AUTOCAST, EXIT_AUTOCAST),
        starts=_starts_of_autocast_regions,
        differs=lambda enter: True,  # noqa: ARG005
    ),
)


def _wrap_all(
    kind: _Region, graph_module: torch.fx.GraphModule, signature: ExportGraphSignature | None
) -> torch.fx.GraphModule:
    """Wrap the regions of one kind, in this graph and then in its subgraphs."""
    if any(node.op == "call_function" and node.target in kind.marks for node in graph_module.graph.nodes):
        graph_module = _split(kind, graph_module)
        follow_outputs(graph_module, signature)
        with_signature: Any = signature
        hook = graph_module._set_replace_hook(with_signature.get_replace_hook()) if signature else nullcontext()
        with hook:
            for call in graph_module.graph.find_nodes(op="call_module"):
                _settle(kind, graph_module, call)
        graph_module.delete_all_unused_submodules()
    for node in graph_module.graph.find_nodes(op="get_attr"):
        if isinstance(part := getattr(graph_module, node.target), torch.fx.GraphModule):
            setattr(graph_module, node.target, _wrap_all(kind, part, None))
    return graph_module


def _split(kind: _Region, graph_module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    part, parts = 0, dict[torch.fx.Node, int]()
    for node, starts in zip(graph_module.graph.nodes, kind.starts(iter(graph_module.graph.nodes)), strict=True):
        part += starts
        parts[node] = part
    with lazy_graph_modules(True):  # code is generated once, when all is named, and not for every part
        split = split_module(
            graph_module, graph_module, parts.__getitem__, keep_original_order=True, keep_original_node_name=True
        )
    split.graph._codegen = graph_module.graph._codegen
    return split  # type: ignore[no-any-return]


def follow_outputs(graph_module: torch.fx.GraphModule, signature: ExportGraphSignature | None) -> None:
    """Let the signature name the outputs that the graph has now."""
    outputs: Any = graph_module.graph.output_node().args[0]
    for output, spec in zip(outputs, signature.output_specs if signature else (), strict=False):
        if isinstance(output, torch.fx.Node):
            spec.arg.name = output.name


def _settle(kind: _Region, graph_module: torch.fx.GraphModule, call: torch.fx.Node) -> None:
    """Make an operator of the call of one part, or put the part's nodes back in its place."""
    part: torch.fx.GraphModule = getattr(graph_module, str(call.target))
    marks = [node for node in part.graph.nodes if node.op == "call_function" and node.target in kind.marks]
    first = next((node for node in part.graph.nodes if node.op != "placeholder"), None)
    if marks and first is marks[0] and first.target is kind.enter and kind.differs(first):
        _make_operator(kind, graph_module, call, part, first)
        _erase(part, {first, marks[-1]})  # those between belong to nested regions
    else:
        if kind.enter is SET_GRAD_ENABLED:
            _erase(part, set(marks))
        _inline(graph_module, call, part)


def _erase(part: torch.fx.GraphModule, marks: set[torch.fx.Node]) -> None:
    for node in reversed(list(part.graph.nodes)):
        if node in marks:
            part.graph.erase_node(node)


def _make_operator(
    kind: _Region,
    graph_module: torch.fx.GraphModule,
    call: torch.fx.Node,
    part: torch.fx.GraphModule,
    enter: torch.fx.Node,
) -> None:
    output, graph = part.graph.output_node(), graph_module.graph
    results: Any = output.args[0]
    single = isinstance(results, torch.fx.Node)
    values = (results,) if single else tuple(results)
    with graph.inserting_before(call):
        body = graph.get_attr(str(call.target))
        arguments = (*enter.args, body, *call.args)
        new = graph.create_node("call_function", kind.operator, arguments, {}, results.name if single else None)
        body.meta["nn_module_stack"] = dict(enter.meta.get("nn_module_stack", {}))
        new.meta |= _operator_meta(kind, enter, values)
        if single:
            output.args = (values,)
            item = graph.call_function(operator.getitem, (new, 0))
            item.meta = values[0].meta
            _replace(call, item)
            return
    _replace(call, new)
    for item in new.users:
        value = values[index_of(item)]
        item._rename(value.name)
        item.meta = value.meta


def _operator_meta(kind: _Region, enter: torch.fx.Node, values: tuple[torch.fx.Node, ...]) -> dict[str, Any]:
    name = kind.operator.__name__
    return {
        "nn_module_stack": dict(enter.meta.get("nn_module_stack", {})),
        "torch_fn": (name, f"{type(kind.operator).__name__}.{name}"),
        "val": tuple(value.meta["val"] for value in values),
    }


def _inline(graph_module: torch.fx.GraphModule, call: torch.fx.Node, part: torch.fx.GraphModule) -> None:
    """Put the nodes of a part in the place of its call.

    torch regenerates the code of the whole graph for each part, which makes its time quadratic in their number.
    """
    places = dict(zip(part.graph.find_nodes(op="placeholder"), call.args, strict=True))
    results: Any = ()
    with graph_module.graph.inserting_before(call):
        for node in part.graph.nodes:
            if node.op == "output":
                results = torch.fx.map_arg(node.args[0], places.__getitem__)
            elif node.op != "placeholder":
                new = places[node] = graph_module.graph.node_copy(node, places.__getitem__)
                if node.op == "get_attr":
                    _adopt(graph_module, new, getattr(part, str(node.target)))
    if isinstance(results, torch.fx.Node):
        _replace(call, results)
        return
    for item in list(call.users):
        _replace(item, results[index_of(item)])
    graph_module.graph.erase_node(call)


def _adopt(graph_module: torch.fx.GraphModule, node: torch.fx.Node, value: Any) -> None:
    """Hang a subgraph of an inlined part below the graph, under a free name."""
    number = 0
    while hasattr(graph_module, str(node.target)):
        number += 1
        node.target = f"submod_{number}"
    setattr(graph_module, str(node.target), value)


def index_of(item: torch.fx.Node) -> int:
    """Return which result of its operand a ``getitem`` node takes."""
    return int(item.args[1])  # type: ignore[arg-type]


def _replace(old: torch.fx.Node, new: Any) -> None:
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)
