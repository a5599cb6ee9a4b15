"""What is traced in place of the user's module: a root that calls it, flattens what it returns, and checks it."""

from __future__ import annotations

import math
from typing import Any

import torch

from exporter.capture.paths import loc_of
from exporter.capture.registration import how_to_register
from exporter.torch_internals import (
    FakeScriptObject,
    FakeTensorMode,
    PropagateUnbackedSymInts,
    check_input_constraints_pre_hook,
    get_proxy_mode,
    pytree,
)
from schema.errors import CaptureError

ROOT = "_export_root"
"""The user's module hangs below a root under this name, as in torch: a module that is reached twice is then known by
the path it is called through, also directly below the top."""

_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)
_OUTPUTS = (torch.Tensor, *_SYMBOLS, bool, int, float, str, type(None), torch.ScriptObject, FakeScriptObject)


class Root(torch.nn.Module):
    """Calls the user's module, flattens what it returns and remembers the structure.

    A graph is interpreted, node by node, so that the new nodes inherit the metadata of the old ones. If Dynamo made the
    graph, it did so under ``mode``, and the symbols of data-dependent values are those that Dynamo met.
    """

    def __init__(self, module: torch.nn.Module, method: str = "forward", mode: FakeTensorMode | None = None) -> None:
        super().__init__()
        self._export_root = module
        self._method = method
        self._mode = mode
        self.out_spec: pytree.TreeSpec | None = None

    def call(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call the user's module and return the leaves of what it returns."""
        module: Any = self._export_root
        if self._method != "forward":
            result = _call_method(module, self._method, args, kwargs)
        elif isinstance(module, torch.fx.GraphModule):
            result = self._interpret(module, args, kwargs)
        else:
            result = module(*args, **kwargs)
        leaves, self.out_spec = pytree.tree_flatten(result)
        if self._mode is not None:
            self.out_spec = module.graph._codegen.pytree_info.out_spec  # `result` has a tuple for each torch.Size
        if not all(map(_is_output, leaves)):
            _refuse_output(result, self._method)
        return tuple(leaves)

    # Not `def forward`: frames of that name are taken for the user's and end up in the nodes' stack traces.
    forward = call

    def _interpret(self, module: torch.fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if check_input_constraints_pre_hook in module._forward_pre_hooks.values():
            check_input_constraints_pre_hook(module, args, kwargs)
        interpreter = torch.fx.Interpreter
        if self._mode is not None:
            interpreter = PropagateUnbackedSymInts
            self._mode.epoch += 1  # forget which values are known from the last run
        with torch.fx.traceback.preserve_node_meta():
            return interpreter(module).run(*args, *kwargs.values())


def restore_module_paths(graph: torch.fx.Graph) -> None:
    """Name modules in the nodes' module stacks as the user knows them, without the root."""
    for node in graph.nodes:
        if stack := node.meta.get("nn_module_stack"):
            node.meta["nn_module_stack"] = {
                f"L__self__{_below_root(key)}": (_below_root(path), kind) for key, (path, kind) in stack.items()
            }


def _below_root(path: str) -> str:
    return path.removeprefix(ROOT).removeprefix(".") if path.startswith(ROOT) else path


def _call_method(module: torch.nn.Module, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call another method as eager code does, without the hooks of ``forward``, and let the trace enter the module."""
    method, mode = getattr(module, name), get_proxy_mode()
    return mode.tracer.call_module(module, method, args, kwargs) if mode else method(*args, **kwargs)


def _is_output(leaf: Any) -> bool:
    return isinstance(leaf, _OUTPUTS) and not _is_nan(leaf)


def _is_nan(leaf: Any) -> bool:
    return isinstance(leaf, float) and math.isnan(leaf)


def _refuse_output(result: Any, method: str) -> None:
    for path, leaf in pytree.tree_flatten_with_path(result)[0]:
        if not isinstance(leaf, _OUTPUTS):
            raise CaptureError(
                f"{method} returns an object of type {type(leaf).__name__}, which no program can return",
                loc=loc_of(("output", *path)),
                remedy=how_to_register(type(leaf)),
            )
        if _is_nan(leaf):
            raise CaptureError(
                f"{method} returns the number nan, which torch's verifier takes for another one each time",
                loc=loc_of(("output", *path)),
                remedy="return it in a tensor",
            )
