"""Stage ``enforce``: what the trace took for granted about values becomes nodes that assert it at run time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from exporter.capture.artifacts import Enforced, Solved
from exporter.torch_internals import (
    NODES_CARRY_CUSTOM,
    OpOverload,
    ShapeEnv,
    SymT,
    enable_python_dispatcher,
    insert_deferred_runtime_asserts,
    pytree,
    symbol_is_type,
    unbacked_paths,
)

_ASSERT_METADATA = torch.ops.aten._assert_tensor_metadata.default
_CONVERSIONS = (torch.ops.aten.to.device, torch.ops.aten.to.dtype, torch.ops.aten.to.dtype_layout)
_NO_STACK = "_empty_nn_module_stack_from_metadata_hook"
_ASSERTS_COME_FROM = 'File "torch/fx/passes/runtime_assert.py", line 24, in insert_deferred_runtime_asserts'
"""The stack trace that torch gives these nodes; other tools recognize them by it."""


def enforce(solved: Solved) -> Enforced:
    """Add the runtime asserts to the graph.

    Args:
        solved: The graph and its frozen shape environment.

    Returns:
        The graph with deferred asserts on symbols, with checks that a conversion meets the dtype and device that it
        met in the trace, and with the origin of each unbacked symbol noted anew.
    """
    graph_module = solved.graph_module
    assert_symbols(graph_module, solved.symbolic.shape_env)
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and node.target in _CONVERSIONS:
            _assert_metadata(graph_module, node)
    _note_unbacked(graph_module.graph, solved.symbolic.shape_env)
    return solved.become(Enforced)


def assert_symbols(graph_module: torch.fx.GraphModule, env: ShapeEnv) -> None:
    """Add the asserts on symbols that the shape environment put off."""
    with _described(graph_module, stack_trace=_ASSERTS_COME_FROM):
        insert_deferred_runtime_asserts(graph_module, env, "exported program", export=True)


def _assert_metadata(graph_module: torch.fx.GraphModule, node: torch.fx.Node) -> None:
    """``x.to(...)`` is no operation if nothing changes, so the graph is right only for what ``x`` was."""
    tensor: Any = node.args[0]
    known = node.prev.target is _ASSERT_METADATA and node.prev.args[0] is tensor
    value = tensor.meta.get("val")
    if known or value is None:
        return
    origin = {key: node.meta.get(key) for key in ("stack_trace", "nn_module_stack")}
    with graph_module.graph.inserting_before(node), _described(graph_module, **origin):
        facts = {"dtype": value.dtype, "device": value.device, "layout": value.layout}
        graph_module.graph.call_function(_ASSERT_METADATA, (tensor,), facts)


@contextmanager
def _described(graph_module: torch.fx.GraphModule, **meta: Any) -> Iterator[None]:
    """Give every node that is created meanwhile a value and the metadata that traced nodes have."""

    def describe(node: torch.fx.Node) -> None:
        _describe(node, meta)

    owners = [m for m in graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    for owner in owners:
        owner._register_create_node_hook(describe)
    try:
        yield
    finally:
        for owner in owners:
            owner._unregister_create_node_hook(describe)


def _describe(node: torch.fx.Node, meta: dict[str, Any]) -> None:
    node.meta["val"] = _value(node)
    node.meta.update(meta)
    first = next(iter(node.all_input_nodes), None)
    if first is None:
        return
    target: Any = node.target
    kind = type(target).__name__
    node.meta.setdefault("nn_module_stack", first.meta.get("nn_module_stack", {_NO_STACK: (_NO_STACK, _NO_STACK)}))
    node.meta.setdefault("torch_fn", (f"{target.__name__}_0", f"{kind}.{target.__name__}"))
    if NODES_CARRY_CUSTOM:
        node.meta.setdefault("custom", first.meta.get("custom", {}))


def _value(node: torch.fx.Node) -> Any:
    target: Any = node.target
    if isinstance(target, OpOverload) and not target._schema.returns:
        return None
    args, kwargs = pytree.tree_map_only(torch.fx.Node, lambda arg: arg.meta["val"], (node.args, node.kwargs))
    with enable_python_dispatcher():
        return target(*args, **kwargs)


def _note_unbacked(graph: torch.fx.Graph, env: ShapeEnv) -> None:
    """Note at which node each data-dependent symbol first appears.

    The trace noted it under symbols that may have been renamed or solved since.
    """
    kinds = SymT.UNBACKED_INT, SymT.UNBACKED_FLOAT
    pending = {s for s in env.var_to_range if symbol_is_type(s, kinds) and s not in env.unbacked_renamings}
    for node in graph.nodes:
        node.meta.pop("unbacked_bindings", None)
        value = node.meta.get("val") if pending else None
        if value is None:
            continue
        if found := unbacked_paths(value, (), shape_env=env, pending=pending, simplify=True):
            node.meta["unbacked_bindings"] = found
