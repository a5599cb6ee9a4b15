"""Modules as arguments of ``forward``: their parameters and buffers are inputs of the program."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from exporter.capture.artifacts import Symbolic
from exporter.torch_internals import (
    deregister_module_as_pytree_node,
    pytree,
    register_module_as_pytree_node,
    reparametrize_module,
)


@contextmanager
def modules_as_containers(arguments: Any) -> Iterator[None]:
    """Let pytree take the modules among the arguments apart meanwhile, as containers of their tensors."""
    kinds = {type(module) for module in _modules(arguments)} - set(pytree.SUPPORTED_NODES)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch registers in a way of its past
            for kind in kinds:
                register_module_as_pytree_node(kind)
        yield
    finally:
        for kind in kinds & set(pytree.SUPPORTED_NODES):
            deregister_module_as_pytree_node(kind)


@contextmanager
def modules_faked(symbolic: Symbolic) -> Iterator[None]:
    """Let the modules among the arguments hold fakes meanwhile."""
    bound = symbolic.bound
    fakes = {id(leaf.value): fake for leaf, fake in zip(bound.leaves, symbolic.fakes, strict=True)}
    with ExitStack() as stack:
        for module in _modules((bound.request.args, bound.request.kwargs)):
            state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            stand_ins = {name: fakes[id(tensor)] for name, tensor in state.items()}
            stack.enter_context(
                reparametrize_module(module, stand_ins, tie_weights=True, strict=True, stack_weights=True)
            )
        yield


def _modules(arguments: Any) -> list[torch.nn.Module]:
    leaves = pytree.tree_leaves(arguments, is_leaf=lambda value: isinstance(value, torch.nn.Module))
    modules = {id(leaf): leaf for leaf in leaves if isinstance(leaf, torch.nn.Module)}
    return list(modules.values())
