"""A call of Dynamo, the part of torch that reads bytecode, which leaves nothing behind in it.

torch's own export drops all that ``torch.compile`` has compiled in the process before each capture, builds guards
that it throws away, and leaves names among the globals of its module. Here one frame is read, and nothing else:
which sizes the graph holds for is settled by ``solve``.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from exporter.torch_internals import (
    FIRST_COMPILATION,
    CompileContext,
    DynamoGraphTransformer,
    DynamoRoot,
    DynamoRootResult,
    FakeTensorMode,
    GetItemSource,
    TracingContext,
    clean_dynamo_root,
    compile_context,
    compile_frame,
    metrics_context,
    pytree,
    pytree_codegen,
    transforms_captured_objects,
)

_ARGUMENTS = "flat_args"
"""What ``DynamoRoot`` calls the leaves of its arguments."""


@dataclass(frozen=True)
class Followed:
    """What Dynamo found.

    Attributes:
        graph_module: The graph; its placeholders are the leaves of the arguments, its codegen knows their structure.
        mode: The mode of all its fakes; None where nothing had to be computed.
    """

    graph_module: torch.fx.GraphModule
    mode: FakeTensorMode | None


class _Backend:
    """Takes the graph from Dynamo, which calls it as a compiler."""

    def __init__(self) -> None:
        self.graph_module = _empty()
        self.examples: list[Any] = []
        self.mode: FakeTensorMode | None = None

    def __call__(self, graph_module: torch.fx.GraphModule, examples: list[Any]) -> torch.fx.GraphModule:
        self.graph_module, self.examples, self.mode = graph_module, examples, TracingContext.get().fake_mode
        return graph_module


class _MethodRoot(DynamoRoot):  # type: ignore[misc]
    """Calls a method of the module that is not ``forward``."""

    def __init__(self, module: torch.nn.Module, in_spec: pytree.TreeSpec, method: str) -> None:
        super().__init__(module, in_spec)
        self._method = method

    def forward(self, *flat_args: Any) -> Any:
        args, kwargs = pytree.tree_unflatten(flat_args, self.in_spec)
        res = getattr(self._export_root, self._method)(*args, **kwargs)
        leaves, out_spec = pytree.tree_flatten(res)
        return DynamoRootResult(leaves, out_spec)


def read_bytecode(
    module: torch.nn.Module, method: str, in_spec: pytree.TreeSpec, leaves: Sequence[Any], constraints: list[Any]
) -> Followed:
    """Let Dynamo capture a method of a module as one graph.

    Args:
        module: The module.
        method: The method.
        in_spec: The structure of ``(args, kwargs)``.
        leaves: Their leaves.
        constraints: Which sizes of the leaves vary within a range.
    """
    backend = _Backend()
    root = DynamoRoot(module, in_spec) if method == "forward" else _MethodRoot(module, in_spec, method)
    facts = _read(root, tuple(leaves), constraints, backend)
    order = _order(facts.graph_input_idx_to_local_source)
    flat = DynamoGraphTransformer(
        backend.graph_module,
        [backend.examples[order[index]] if index in order else leaf for index, leaf in enumerate(leaves)],
        [_varying(leaf, constraints) for leaf in leaves],
        order,
        facts.output_return_type,
        backend.mode,
        **transforms_captured_objects(facts.graph_input_idx_to_local_source),
    ).transform()
    flat.graph._codegen = pytree_codegen(in_spec, facts.out_spec)
    flat.recompile()
    clean_dynamo_root(flat)
    flat.meta["module_call_specs"] = facts.module_call_spec
    return Followed(flat, backend.mode)


def leaf_of(source: Any) -> int | None:
    """The leaf of the arguments that a source of Dynamo's stands for; None for what the module holds itself."""
    of_arguments = isinstance(source, GetItemSource) and getattr(source.base, "local_name", "") == _ARGUMENTS
    return int(source.index) if of_arguments else None


def _read(root: torch.nn.Module, leaves: tuple[Any, ...], constraints: list[Any], backend: _Backend) -> Any:
    forward: Any = type(root).forward
    with metrics_context(), compile_context(CompileContext(FIRST_COMPILATION)):
        found = compile_frame(
            forward.__code__,
            dict(forward.__globals__),
            {"self": root, _ARGUMENTS: leaves},
            vars(builtins),
            (),
            compiler_fn=backend,
            one_graph=True,
            restart_reasons=set(),
            export=True,
            export_constraints=constraints,
        )
    return found.tracer_output.output_graph.export_metadata


def _order(sources: dict[int, Any]) -> dict[int, int]:
    """Which placeholder of Dynamo's each leaf is."""
    leaves = {position: leaf_of(source) for position, source in sources.items()}
    return {leaf: position for position, leaf in leaves.items() if leaf is not None}


def _varying(leaf: Any, constraints: list[Any]) -> set[int]:
    ranges = [(each.dim, each.constraint_range.vr) for each in constraints if each.t_id == id(leaf)]
    return {dim for dim, found in ranges if found.lower != found.upper}


def _empty() -> torch.fx.GraphModule:
    """The graph of a module that computes nothing."""
    graph = torch.fx.Graph()
    graph.output(None)
    return torch.fx.GraphModule(torch.nn.Module(), graph)
