"""What every program promises of its nodes, checked once before there is one.

torch checks the same, but looks for stack traces in the root graph alone, once for each graph; here each graph is
looked at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from exporter.capture.artifacts import Named
from exporter.capture.name import PREFIXES
from schema.errors import CaptureError


def verify(named: Named) -> None:
    """Check module stacks and stack traces of all nodes, and the names of the inputs.

    Args:
        named: The finished graph.

    Raises:
        CaptureError: A node breaks the promise. It is a defect of the capture and not of the module.
    """
    problems = _problems_of_names(named)
    for path, graph_module in named.graph_module.named_modules(remove_duplicate=False):
        if isinstance(graph_module, torch.fx.GraphModule):
            for node in graph_module.graph.nodes:
                problems += [(f"{path}.{node.name}".lstrip("."), what) for what in _problems_of(node, path)]
    for node, what in problems:
        raise CaptureError(
            f"a node of the captured graph {what}",
            loc=(node,),
            remedy="this is a defect of the capture: report it, with the module and the arguments",
        )


def _problems_of(node: torch.fx.Node, path: str) -> Iterator[str]:
    stack, trace = node.meta.get("nn_module_stack"), node.meta.get("stack_trace")
    if node.op in ("placeholder", "output"):
        if stack or trace:
            yield "comes from a module or a line, which only calls can"
        return
    if stack is None and not path:
        yield "has no nn_module_stack"
    if stack is not None and not _is_module_stack(stack):
        yield f"has an nn_module_stack that is no dict of pairs of texts: {stack!r}"
    if not isinstance(trace, str | None):
        yield f"has a stack_trace of type {type(trace).__name__}"


def _is_module_stack(stack: Any) -> bool:
    pairs = list(stack.items()) if isinstance(stack, dict) else [(None, ())]
    return all(
        isinstance(key, str) and isinstance(pair, tuple) and [type(each) for each in pair] == [str, str]
        for key, pair in pairs
    )


def _problems_of_names(named: Named) -> list[tuple[str, str]]:
    placeholders = named.graph_module.graph.find_nodes(op="placeholder")
    problems = []
    for node, spec in zip(placeholders, named.signature.input_specs, strict=True):
        if node.name != spec.arg.name:
            problems.append((node.name, f"is called {spec.arg.name!r} in the signature"))
        elif not node.name.startswith(PREFIXES.get(spec.kind, "")):
            problems.append((node.name, f"does not begin with {PREFIXES[spec.kind]!r}"))
    return problems
