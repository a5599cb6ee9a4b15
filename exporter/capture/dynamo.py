"""A call of Dynamo, the part of torch that reads bytecode, which leaves nothing behind in it.

torch's own export forgets all that ``torch.compile`` has compiled in the process before each capture, and builds
guards that it throws away. Neither is needed: a capture never looks into those caches, and ``solve`` asks the shape
environment for the guards that matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from exporter.torch_internals import (
    DynamoGraphTransformer,
    DynamoRoot,
    FakeTensorMode,
    GetItemSource,
    clean_dynamo_root,
    dynamo_frames,
    dynamo_root_globals,
    fullgraph_capture,
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


def read_bytecode(
    module: torch.nn.Module, in_spec: pytree.TreeSpec, examples: Sequence[Any], constraints: list[Any]
) -> Followed:
    """Let Dynamo capture a module as one graph.

    Args:
        module: The module.
        in_spec: The structure of ``(args, kwargs)``.
        examples: Their leaves.
        constraints: Which sizes of the examples vary within a range.
    """
    root = DynamoRoot(module, in_spec)
    with _nothing_left_behind(), metrics_context():
        found = fullgraph_capture(root, tuple(examples), constraints=constraints, _is_export_deprecated_do_not_use=True)
    facts = found.graph_capture_output.output_graph.export_metadata
    backend = found.backend_input
    graph_module = backend.graph_module if backend else _empty()
    order = _order(facts.graph_input_idx_to_local_source)
    inputs = [backend.example_inputs[order[i]] if i in order else example for i, example in enumerate(examples)]
    mode = backend.fake_mode if backend else None
    flat = DynamoGraphTransformer(
        graph_module,
        inputs,
        [_varying(example, constraints) for example in examples],
        order,
        facts.output_return_type,
        mode,
        **transforms_captured_objects(facts.graph_input_idx_to_local_source),
    ).transform()
    flat.graph._codegen = pytree_codegen(in_spec, facts.out_spec)
    flat.recompile()
    clean_dynamo_root(flat)
    flat.meta["module_call_specs"] = facts.module_call_spec
    return Followed(flat, mode)


def leaf_of(source: Any) -> int | None:
    """The leaf of the arguments that a source of Dynamo's stands for; None for what the module holds itself."""
    of_arguments = isinstance(source, GetItemSource) and getattr(source.base, "local_name", "") == _ARGUMENTS
    return int(source.index) if of_arguments else None


def _order(sources: dict[int, Any]) -> dict[int, int]:
    """Which placeholder of Dynamo's each leaf is."""
    leaves = {position: leaf_of(source) for position, source in sources.items()}
    return {leaf: position for position, leaf in leaves.items() if leaf is not None}


def _varying(example: Any, constraints: list[Any]) -> set[int]:
    ranges = [(c.dim, c.constraint_range.vr) for c in constraints if c.t_id == id(example)]
    return {dim for dim, found in ranges if found.lower != found.upper}


def _empty() -> torch.fx.GraphModule:
    """The graph of a module that computes nothing."""
    graph = torch.fx.Graph()
    graph.output(None)
    return torch.fx.GraphModule(torch.nn.Module(), graph)


@contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Number frames from 0, as in a fresh process, and take away the names that Dynamo gives to what it meets."""
    frames: Any = dynamo_frames
    names = dynamo_root_globals
    before = frames.FRAME_COUNTER, frames.FRAME_COMPILE_COUNTER, dict(names)
    frames.FRAME_COUNTER, frames.FRAME_COMPILE_COUNTER = 0, Counter()
    try:
        yield
    finally:
        frames.FRAME_COUNTER, frames.FRAME_COMPILE_COUNTER, kept = before
        for name in names.keys() - kept.keys():
            del names[name]
