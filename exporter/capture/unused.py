"""What a trace records and no program says when nobody uses it: ranges of the profiler, and aliases."""

from __future__ import annotations

import torch

from exporter.torch_internals import access_subclass_inner_tensor

_DROPPED_WHEN_UNUSED = (
    torch.ops.profiler._record_function_enter.default,
    torch.ops.profiler._record_function_enter_new.default,
    torch.ops.profiler._record_function_exit._RecordFunction,
    torch.ops.aten.detach.default,
    access_subclass_inner_tensor,
)
"""Nothing else is dropped, used or not: a program in training IR says what the module does."""


def drop_unused(graph: torch.fx.Graph) -> None:
    """Remove these nodes from a graph."""
    graph.eliminate_dead_code(_is_kept)


def _is_kept(node: torch.fx.Node) -> bool:
    return node.op != "call_function" or node.target not in _DROPPED_WHEN_UNUSED
