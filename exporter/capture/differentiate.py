"""Stage ``differentiate``: the graph of a forward becomes the joint graph of forward and backward.

AOTAutograd follows the finished graph, differentiates the loss with respect to every input that requires a gradient,
and leaves functional ATen operators. The outputs are what the forward changes, what it returns, and the gradients.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)

from exporter.capture.artifacts import Differentiated, Named
from exporter.capture.enforce import assert_symbols
from exporter.capture.environment import tracing_environment
from exporter.capture.name import Names, name_subgraphs
from exporter.capture.ranges import range_constraints, unbacked_ranges
from exporter.torch_internals import aot_export_function, functional_call_of, functorch_config, make_fx
from schema.errors import CaptureError

_OF_CHANGED = {InputKind.BUFFER: OutputKind.BUFFER_MUTATION, InputKind.USER_INPUT: OutputKind.USER_INPUT_MUTATION}
_OF_GRADIENTS = {
    InputKind.PARAMETER: OutputKind.GRADIENT_TO_PARAMETER,
    InputKind.USER_INPUT: OutputKind.GRADIENT_TO_USER_INPUT,
}


def differentiate(named: Named) -> Differentiated:
    """Make the joint graph.

    Args:
        named: The finished graph of the forward, in training IR.

    Returns:
        The joint graph and its signature. What gets no gradient, such as the unused one of two names of a tied
        weight, has no output.

    Raises:
        CaptureError: The loss is no number with a gradient, or another output has one.
        Exception: Whatever torch raises while it differentiates.
    """
    symbolic = named.symbolic
    loss = _loss(named)
    forward = torch.fx.GraphModule(named.graph_module, named.graph_module.graph)  # without tensors that were lifted
    inputs = [node.meta["val"] for node in forward.graph.find_nodes(op="placeholder")]
    of_user = [value for value, spec in zip(inputs, named.signature.input_specs, strict=True) if _is_of_user(spec)]
    ranges, note = range_constraints(symbolic, of_user), unbacked_ranges(symbolic)
    call = functional_call_of(forward, [], 0, store_orig_mod=True)

    @functools.wraps(call)
    def checked(*args: Any) -> Any:
        outputs = call(*args)
        _check_outputs(outputs, loss)
        return outputs

    @functools.wraps(call)
    def joint(*args: Any) -> Any:
        tangents = [None] * (known.num_outputs + known.num_mutated_inp_runtime_indices)
        outputs, gradients = both(args, tangents)
        received[:] = [index for index, gradient in enumerate(gradients) if gradient is not None]
        return *outputs, *(gradients[index] for index in received)

    received: list[int] = []
    with tracing_environment(symbolic.mode), functorch_config.patch(decompose_custom_triton_ops=False):
        both, known, *_ = aot_export_function(checked, tuple(inputs), no_tangents=True, trace_joint=True)
        graph_module = make_fx(joint, record_module_stack=True)(*inputs)
    graph_module.graph.eliminate_dead_code()
    _name_as(forward, graph_module, named.signature)
    assert_symbols(graph_module, symbolic.shape_env)
    graph_module.meta.update(named.graph_module.meta, inline_constraints=note)
    changed = [index for index, each in enumerate(known.input_info) if each.mutates_data]
    signature = _signature(named.signature, graph_module.graph, changed, received, loss)
    return Differentiated(symbolic, graph_module, named.out_spec, named.outputs, signature, named.constants, ranges)


def _is_of_user(spec: InputSpec) -> bool:
    return spec.kind is InputKind.USER_INPUT


def _loss(named: Named) -> int:
    """Return which output is the loss, counted from the front."""
    index, count = named.symbolic.bound.request.options.joint_loss, len(named.signature.output_specs)
    assert index is not None
    if not 0 <= index < count:
        raise CaptureError(
            f"there is no output {index}: forward returns {count}",
            loc=("joint_loss_index",),
            remedy="count the leaves of what forward returns from 0",
        )
    return index


def _check_outputs(outputs: tuple[Any, ...], loss: int) -> None:
    value = outputs[loss]
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r}"
        raise CaptureError(
            f"the loss has to be one number, and is {what}", loc=("output", loss), remedy="reduce it, as with mean()"
        )
    if not value.requires_grad:
        raise CaptureError(
            "the loss does not depend on anything that requires a gradient",
            loc=("output", loss),
            remedy="name another output, or let the parameters require gradients",
        )
    for index, output in enumerate(outputs):
        if index != loss and isinstance(output, torch.Tensor) and output.requires_grad:
            raise CaptureError(
                "an output that is not the loss requires a gradient, which a joint graph has no place for",
                loc=("output", index),
                remedy="return it as .detach()",
            )


def _name_as(old: torch.fx.GraphModule, new: torch.fx.GraphModule, signature: ExportGraphSignature) -> None:
    """Take over the names of the inputs and what is known of them; other nodes make way."""
    names = Names()
    state = {*signature.inputs_to_parameters, *signature.inputs_to_buffers}
    placeholders = (each.graph.find_nodes(op="placeholder") for each in (old, new))
    for before, after in zip(*placeholders, strict=True):
        after.name = after.target = before.name
        names.keep(before.name)
        if before.name in state:
            after.meta.update(before.meta)
        elif not isinstance(before.meta["val"], torch.Tensor):
            after.meta["val"] = before.meta["val"]
    for node in new.graph.nodes:
        if node.op != "placeholder":
            node.name = names.claim(node.name, node.name)
    name_subgraphs(new)


def _signature(
    forward: ExportGraphSignature, joint: torch.fx.Graph, changed: list[int], received: list[int], loss: int
) -> ExportGraphSignature:
    """Return the signature of the joint graph; its inputs are those of the forward.

    Args:
        forward: The signature of the forward.
        joint: The joint graph. Its outputs are the changed inputs, the outputs of the forward, and the gradients.
        changed: Which inputs the forward changes.
        received: Which inputs get a gradient.
        loss: Which output of the forward is the loss.
    """
    specs = forward.input_specs
    values: Any = iter(joint.output_node().args[0])  # type: ignore[arg-type]
    outputs = [_back(_OF_CHANGED, specs[index], next(values)) for index in changed]
    for index, spec in enumerate(forward.output_specs):
        node = next(values)
        argument = dataclasses.replace(spec.arg, name=node.name) if isinstance(node, torch.fx.Node) else spec.arg
        outputs.append(OutputSpec(OutputKind.LOSS_OUTPUT if index == loss else spec.kind, argument, spec.target))
    outputs += [_back(_OF_GRADIENTS, specs[index], next(values)) for index in received]
    return ExportGraphSignature(specs, outputs)


def _back(kinds: dict[InputKind, OutputKind], spec: InputSpec, node: torch.fx.Node) -> OutputSpec:
    """Return the specification of what goes back to an input."""
    return OutputSpec(kinds[spec.kind], TensorArgument(name=node.name), spec.target or spec.arg.name)
