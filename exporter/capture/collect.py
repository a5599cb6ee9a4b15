"""Stage ``collect``: the marks of preserved submodules become their call signatures, and leave the graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from exporter.capture.artifacts import Collected, Named
from exporter.capture.lift import argument_of
from exporter.capture.tracepoints import ENTRY, EXIT, MARK
from exporter.capture.wrap import follow_outputs, index_of
from exporter.torch_internals import ModuleCallSignature


def collect(named: Named) -> Collected:
    """Read the marks and remove them.

    Args:
        named: The finished graph, in which marks stand where submodules are entered and left.

    Returns:
        The graph without marks, and a signature for each call of a preserved submodule: ``a``, then ``a@1``. A call
        in a subgraph, as of a region under ``no_grad``, has values that the outer graph does not know: its signature
        says the structure only.
    """
    outermost, calls = named.graph_module, {path: _unfilled(call) for path, call in named.calls.items()}
    for graph_module in outermost.modules():
        if isinstance(graph_module, torch.fx.GraphModule):
            marks = graph_module.graph.find_nodes(op="call_function", target=MARK)
            _hand_to_caller(graph_module.graph.nodes, EXIT)
            _hand_to_caller(reversed(graph_module.graph.nodes), ENTRY)
            for mark in marks:
                if graph_module is outermost:
                    _note(mark, calls)
                _remove(mark)
            if marks and graph_module is not outermost:
                graph_module.recompile()
    follow_outputs(outermost, named.signature)
    return named.become(Collected, calls=calls)


def _unfilled(call: ModuleCallSignature) -> ModuleCallSignature:
    return replace(call, inputs=[], outputs=[])


def _hand_to_caller(nodes: Iterable[torch.fx.Node], border: str) -> None:
    """What other hooks of a module compute, beyond the mark at its border, belongs to the module that calls it."""
    beyond = None
    for node in nodes:
        if node.op != "call_function":
            continue
        stack = node.meta.get("nn_module_stack")
        if node.target is MARK:
            beyond = stack if node.kwargs["kind"] == border else None
        elif beyond and stack == beyond:
            node.meta["nn_module_stack"] = dict(list(beyond.items())[:-1])
        else:
            beyond = None


def _note(mark: torch.fx.Node, calls: dict[str, ModuleCallSignature]) -> None:
    """A module that has several names is marked under each; the one that it is called by counts."""
    key, (fqn, _) = list(mark.meta["nn_module_stack"].items())[-1]
    path = str(mark.kwargs["path"])
    if fqn != path:
        return
    _, at, number = key.partition("@")
    call = calls.setdefault(f"{path}{at}{number}", _unfilled(calls[path]))
    values = call.inputs if mark.kwargs["kind"] == ENTRY else call.outputs
    values.extend(map(argument_of, mark.args))


def _remove(mark: torch.fx.Node) -> None:
    """Put what a mark was given in the place of what it returned."""
    for item in list(mark.users):
        value = mark.args[index_of(item)]
        if isinstance(value, torch.fx.Node):
            item.replace_all_uses_with(value)
        mark.graph.erase_node(item)
    mark.graph.erase_node(mark)
