"""Marks in the trace where preserved submodules are entered and left.

A mark is torch's ``_export_tracepoint``: it returns what it is given, so that all that goes in and comes out is seen
by name. Stage ``collect`` reads the marks and takes them out again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from exporter.capture.artifacts import Request
from exporter.torch_internals import ModuleCallSignature, pytree
from schema.errors import CaptureError

MARK: Any = torch.ops.higher_order._export_tracepoint
ENTRY, EXIT = "module_call_inputs", "module_call_outputs"

Specs = dict[str, dict[str, pytree.TreeSpec]]
"""By path of a submodule: its ``in_spec`` and ``out_spec``. Dynamo knows these two keys."""

_LEAVES = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, bool, int, float, str, type(None))


@contextmanager
def tracepoints(request: Request, specs: Specs) -> Iterator[None]:
    """Mark entry and exit of the preserved submodules while the user's module runs.

    Args:
        request: What the user asked for.
        specs: Where to note how each submodule was called.

    Raises:
        CaptureError: From inside the trace: a submodule takes or returns what no signature can describe, or is called
            in two ways.
    """
    paths = request.options.preserve
    handles = [handle for path in paths for handle in _mark(request.module.get_submodule(path), path, specs)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def signatures_of(specs: Specs) -> dict[str, ModuleCallSignature]:
    """Return the signatures of the calls, which do not name the values yet."""
    return {path: ModuleCallSignature([], [], called["in_spec"], called["out_spec"]) for path, called in specs.items()}


def _mark(submodule: torch.nn.Module, path: str, specs: Specs) -> tuple[Any, Any]:
    def enter(_: Any, args: Any, kwargs: Any) -> Any:
        marked, _ = _marked((args, kwargs), path, ENTRY)
        return marked

    def leave(_: Any, args: Any, kwargs: Any, result: Any) -> Any:
        _, in_spec = pytree.tree_flatten((args, kwargs))
        marked, out_spec = _marked(result, path, EXIT)
        called = {"in_spec": in_spec, "out_spec": out_spec}
        if path in specs and specs[path] != called:
            raise CaptureError(
                "a submodule is called with differently nested arguments or results, and has one signature only",
                loc=(path,),
                remedy="call it in one way, or leave it out of preserve_module_call_signature",
            )
        specs[path] = called
        return marked

    return (
        submodule.register_forward_pre_hook(enter, with_kwargs=True),
        submodule.register_forward_hook(leave, with_kwargs=True),
    )


def _marked(values: Any, path: str, kind: str) -> tuple[Any, pytree.TreeSpec]:
    leaves, spec = pytree.tree_flatten(values)
    for a in leaves:  # Dynamo calls a value like the variable that holds it, and nodes note what it was called
        if not isinstance(a, _LEAVES):
            raise CaptureError(
                f"a {type(a).__name__} goes in or out of a submodule, which no call signature can describe",
                loc=(path,),
                remedy="pass tensors and numbers, or leave it out of preserve_module_call_signature",
            )
    return pytree.tree_unflatten(MARK(*leaves, kind=kind, path=path), spec), spec
