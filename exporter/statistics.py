"""Figures of a program."""

from __future__ import annotations

from collections import Counter

import torch

from exporter.torch_internals import OpOverload


def operator_counts(program: torch.export.ExportedProgram) -> Counter[str]:
    """How often a program calls each operator, in subgraphs too.

    Args:
        program: The program.

    Returns:
        Counts by name: ``aten.linear.default``, ``cond``, ``sym_float``. Their ``total()`` is the number of calls.
    """
    modules = [each for each in program.graph_module.modules() if isinstance(each, torch.fx.GraphModule)]
    called = (node.target for each in modules for node in each.graph.nodes if node.op == "call_function")
    return Counter(str(target) if isinstance(target, OpOverload) else target.__name__ for target in called)
