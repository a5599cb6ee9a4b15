"""Stage ``follow``: Dynamo reads the bytecode of ``forward`` and gives a graph of what it calls, in torch IR.

The stages after it take that graph for the module.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch

from exporter.capture.artifacts import Bound, Leaf, Request, Symbolic
from exporter.capture.dynamo import leaf_of, read_bytecode
from exporter.capture.environment import following_environment
from exporter.capture.equalities import equalities_of
from exporter.capture.marks import marked
from exporter.capture.symbolize import new_mode, state_of
from exporter.capture.tracepoints import tracepoints
from exporter.torch_internals import (
    DimConstraint,
    IntWrapper,
    ModuleSpecs,
    ShapeEnv,
    Source,
    StrictMinMaxConstraint,
    ValueRanges,
)

_ROOT = "L['self']"
"""What Dynamo calls the module."""


def follow(bound: Bound) -> Symbolic:
    """Let Dynamo capture the module.

    Args:
        bound: The checked arguments.

    Returns:
        The graph that Dynamo made, in place of the module, with its fakes and under its names.

    Raises:
        Exception: Whatever Dynamo raises where it cannot follow the module.
    """
    module = bound.request.module
    examples = [_example(leaf) for leaf in bound.leaves]
    with (
        marked(bound),
        tracepoints(bound.request, ModuleSpecs()),  # Dynamo knows the type, and hands its content on in the graph
        following_environment(deferred_asserts=bound.request.options.deferred_asserts),
    ):
        followed = read_bytecode(_called(bound.request), bound.in_spec, examples, _constraints(bound))
    graph_module, mode = followed.graph_module, followed.mode or new_mode(bound)
    shape_env = mode.shape_env
    assert shape_env is not None
    mode.allow_non_fake_inputs = True
    _complete_metadata(graph_module, mode, type(module))
    sources = _sources(bound, shape_env)
    with mode:
        equalities = equalities_of(_with_sources(bound, sources), shape_env)
    return Symbolic(
        bound=bound,
        module=graph_module,
        mode=mode,
        shape_env=shape_env,
        fakes=_fakes(graph_module, bound),
        sources=sources,
        state=state_of(graph_module, mode),
        equalities=equalities,
    )


def _called(request: Request) -> torch.nn.Module:
    """Return what Dynamo is to call: the module, or its twin with another method for ``forward`` and without hooks."""
    module, name = request.module, request.options.method
    if name == "forward":
        return module
    kind = type(module)
    facts = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "forward": getattr(kind, name)}
    twin: torch.nn.Module = object.__new__(type(kind.__name__, (kind,), facts))
    twin.__dict__ = vars(module) | {key: value for key, value in vars(torch.nn.Module()).items() if "_hooks" in key}
    return twin


def _example(leaf: Leaf) -> Any:
    if leaf.hint is None:
        return leaf.value
    wrapped: Any = IntWrapper(leaf.value)
    wrapped.dynamism = leaf.hint
    return wrapped


def _constraints(bound: Bound) -> list[Any]:
    """The sizes that vary within a range, or are fixed by a number."""
    return [
        DimConstraint(id(leaf.value), index, getattr(dim, "__name__", str(dim)), _range(dim))
        for leaf in bound.declared
        for index, dim in enumerate(leaf.dims)
        if isinstance(dim, int | torch.export.Dim)
    ]


def _range(dim: Any) -> StrictMinMaxConstraint:
    low, high = (dim, dim) if isinstance(dim, int) else (dim.min, dim.max)
    return StrictMinMaxConstraint(vr=ValueRanges(low, high), warn_only=False)


def _complete_metadata(graph_module: torch.fx.GraphModule, mode: Any, kind: type) -> None:
    """Give attributes a value, and put the module itself below every stack of modules."""
    for owner in graph_module.modules():
        if isinstance(owner, torch.fx.GraphModule):
            for node in owner.graph.nodes:
                if node.op not in ("placeholder", "output"):
                    _add_root(node, kind)
    for node in graph_module.graph.find_nodes(op="get_attr"):
        value = getattr(graph_module, str(node.target))
        if "val" not in node.meta and not isinstance(value, torch.nn.Module):
            node.meta["val"] = mode.from_tensor(value, static_shapes=True)


def _add_root(node: torch.fx.Node, kind: type) -> None:
    stack = node.meta.get("nn_module_stack") or {}
    path, owner = next(iter(stack.values()), (None, None))
    if path == _ROOT and owner is kind and inspect.isclass(owner):
        return
    whole = {"L__self__": (_ROOT, f"{kind.__module__}.{kind.__qualname__}"), **stack}
    node.meta["nn_module_stack"] = {key: (_path(path), owner) for key, (path, owner) in whole.items()}


def _path(path: str) -> str:
    return "" if path == _ROOT else path.removeprefix(f"{_ROOT}.")


def _sources(bound: Bound, shape_env: ShapeEnv) -> tuple[Source, ...]:
    """Return the sources under which Dynamo knows the leaves; a tensor that is passed twice has one."""
    known: dict[int, Source] = {}
    for tracked in shape_env.tracked_fakes or ():
        index = leaf_of(tracked.source)
        if index is not None and isinstance(bound.leaves[index].value, torch.Tensor):
            known[id(bound.leaves[index].value)] = tracked.source
    return tuple(known.get(id(leaf.value), leaf.source) for leaf in bound.leaves)


def _with_sources(bound: Bound, sources: tuple[Source, ...]) -> Bound:
    leaves = {id(leaf): replace(leaf, source=source) for leaf, source in zip(bound.leaves, sources, strict=True)}
    return replace(
        bound,
        leaves=tuple(leaves[id(leaf)] for leaf in bound.leaves),
        declared=tuple(leaves[id(leaf)] for leaf in bound.declared),
    )


def _fakes(graph_module: torch.fx.GraphModule, bound: Bound) -> tuple[Any, ...]:
    placeholders = graph_module.graph.find_nodes(op="placeholder")
    return tuple(
        node.meta["val"] if isinstance(leaf.value, int | torch.Tensor) else leaf.value
        for node, leaf in zip(placeholders, bound.leaves, strict=True)
    )
