"""Stage ``restore``: Dynamo's names for parameters, buffers and constants become those of the user's module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.export.graph_signature import InputKind

from exporter.capture.artifacts import Named, State
from exporter.capture.lift import constant_names
from exporter.capture.symbolize import state_of
from exporter.torch_internals import COPIED_METADATA, STRAY_STATE_IS_PERSISTENT, FakeScriptObject, HigherOrderOperator

_STATE = (InputKind.PARAMETER, InputKind.BUFFER)
_CONSTANTS = (InputKind.CONSTANT_TENSOR, InputKind.CUSTOM_OBJ)
_BUFFER, _CONSTANT = "b_", "c_"
"""How names of placeholders begin."""

_OF_CALLS = frozenset({"nn_module_stack", "stack_trace"})
"""Metadata that says where something is called; an input is nowhere called."""


def restore(named: Named) -> Named:
    """Restore the names, and set right what Dynamo took for state of the module and is none.

    Args:
        named: The program under Dynamo's names.

    Returns:
        The program under the names of the module. Tensors that are no parameter or buffer of it are constants.
    """
    symbolic = named.symbolic
    own = state_of(symbolic.bound.request.module)
    _inherit_metadata(named)
    _restore_state(named, own)
    constants = _restore_constants(named, own)
    _rename_constants(named)
    return replace(named, symbolic=replace(symbolic, state=own), constants=constants)


def _inherit_metadata(named: Named) -> None:
    """Note at the input of a parameter or buffer what Dynamo noted at it, and at the last operator that uses it."""
    notes: dict[Any, dict[str, Any]] = {}
    followed: Any = named.symbolic.module
    for node in followed.graph.nodes:
        if node.op == "get_attr":
            notes[node.target] = {key: value for key, value in node.meta.items() if key not in _OF_CALLS}
        elif node.op == "call_function" and not isinstance(node.target, HigherOrderOperator):
            shared = {key: node.meta[key] for key in COPIED_METADATA if key in node.meta and key not in _OF_CALLS}
            for used in node.all_input_nodes:
                if used.op == "get_attr":
                    notes[used.target] |= shared
    targets = {spec.arg.name: spec.target for spec in named.signature.input_specs if spec.kind in _STATE}
    for node in named.graph_module.graph.find_nodes(op="placeholder"):
        node.meta.update(notes.get(targets.get(node.name), {}))


def _restore_state(named: Named, own: State) -> None:
    by_tensor = _names_of(own)
    names = {traced: by_tensor.get(id(tensor)) for traced, tensor in named.symbolic.state.real.items()}
    for spec in named.signature.input_specs:
        if spec.kind not in _STATE:
            continue
        name = names[str(spec.target)]
        if name is None:
            spec.kind = InputKind.CONSTANT_TENSOR
            spec.persistent = spec.persistent if STRAY_STATE_IS_PERSISTENT else None
        else:
            spec.target = name
            spec.persistent = name not in own.volatile if spec.kind is InputKind.BUFFER else None
    for output in named.signature.output_specs:
        output.target = names.get(str(output.target), output.target)


def _names_of(state: State) -> dict[int, str]:
    """The name of each tensor, by identity: of tied parameters the first one, of a shared buffer the last."""
    parameters = [(id(tensor), name) for name, tensor in state.real.items() if name not in state.buffers]
    buffers = [(id(tensor), name) for name, tensor in state.real.items() if name in state.buffers]
    return dict([*reversed(parameters), *buffers])


def _restore_constants(named: Named, own: State) -> dict[str, Any]:
    """Name the constants, and return them: buffers that are not persistent first, and each under all its names."""
    specs = named.signature.input_specs
    found = named.constants | named.symbolic.state.real
    names = constant_names(named.symbolic.bound.request.module)
    volatile = [str(spec.target) for spec in specs if spec.kind is InputKind.BUFFER and not spec.persistent]
    constants = {name: own.real[name] for name in volatile}
    fakes = {node.name: node.meta["val"] for node in named.graph_module.graph.find_nodes(op="placeholder")}
    for spec in specs:
        if spec.kind in _CONSTANTS:
            value = found[str(spec.target)]
            targets = names.get(id(value), [str(spec.target)])
            spec.target = targets[0]
            if isinstance(value, torch.nn.Parameter):
                value = value.detach()
                fakes[spec.arg.name].requires_grad = False
            constants |= dict.fromkeys(targets, value)
    objects = {name: value for name, value in named.constants.items() if not isinstance(value, torch.Tensor)}
    return constants | {
        name: value.real_obj if isinstance(value, FakeScriptObject) else value for name, value in objects.items()
    }


def _rename_constants(named: Named) -> None:
    """Let the placeholder of each constant be called one."""
    taken = {node.name for node in named.graph_module.graph.nodes}
    renamed = {}
    for spec in named.signature.input_specs:
        if spec.kind is InputKind.CONSTANT_TENSOR and not spec.arg.name.startswith(_CONSTANT):
            renamed[spec.arg.name] = _free(_CONSTANT + spec.arg.name.removeprefix(_BUFFER), taken)
    specs: list[Any] = [*named.signature.input_specs, *named.signature.output_specs]
    for spec in specs:
        spec.arg.name = renamed.get(spec.arg.name, spec.arg.name)
    for owner in named.graph_module.modules() if renamed else ():
        if isinstance(owner, torch.fx.GraphModule):
            for node in owner.graph.nodes:
                if node.name in renamed:
                    node.name = node.target = renamed[node.name]
            owner.recompile()


def _free(name: str, taken: set[str]) -> str:
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
