"""Stage ``differentiate``: the graph of a forward becomes the joint graph of forward and backward.

AOTAutograd follows the finished graph, differentiates the loss with respect to every input that requires a gradient,
and leaves functional ATen operators. The outputs are what the forward changes, what it returns, and the gradients.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
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
from exporter.capture.tracer import frugal_tracing
from exporter.torch_internals import (
    aot_export_function,
    functional_call_of,
    functorch_config,
    lazy_graph_modules,
    make_fx,
)
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
    symbolic, specs = named.symbolic, named.signature.input_specs
    loss = _loss(named)
    forward = torch.fx.GraphModule(named.graph_module, named.graph_module.graph)  # without tensors that were lifted
    inputs = [node.meta["val"] for node in forward.graph.find_nodes(op="placeholder")]
    of_user = [value for value, spec in zip(inputs, specs, strict=True) if spec.kind is InputKind.USER_INPUT]
    ranges, note = range_constraints(symbolic, of_user), unbacked_ranges(symbolic)
    untouched = functorch_config.patch(decompose_custom_triton_ops=False)
    with tracing_environment(symbolic.mode), untouched, frugal_tracing(None), lazy_graph_modules(True):
        joint, changed, received = _follow(forward, inputs, loss)
    joint.graph.eliminate_dead_code()
    _name_as(forward, joint)
    assert_symbols(joint, symbolic.shape_env)
    _describe_as(forward, joint, named.signature)
    joint.meta.update(named.graph_module.meta, inline_constraints=note)
    signature = _signature(named.signature, joint.graph, changed, received, loss)
    return named.become(Differentiated, graph_module=joint, signature=signature, ranges=ranges)


def _follow(
    forward: torch.fx.GraphModule, inputs: list[Any], loss: int
) -> tuple[torch.fx.GraphModule, list[int], list[int]]:
    """Return the joint graph, which inputs the forward changes, and which get a gradient.

    AOTAutograd's graph takes the gradients of outputs, too, and returns None for inputs without a gradient. A second
    trace leaves both out.
    """
    call = functional_call_of(forward, [], 0, store_orig_mod=True)
    received: list[int] = []

    @functools.wraps(call)
    def checked(*args: Any) -> Any:
        outputs = call(*args)
        _check_outputs(outputs, loss)
        return outputs

    both, known = _gradients_of(checked, inputs)

    @functools.wraps(call)
    def joint(*args: Any) -> Any:
        tangents = [None] * (known.num_outputs + known.num_mutated_inp_runtime_indices)
        outputs, gradients = both(args, tangents)
        received[:] = [index for index, gradient in enumerate(gradients) if gradient is not None]
        return *outputs, *(gradients[index] for index in received)

    graph_module = make_fx(joint, record_module_stack=True)(*inputs)
    return graph_module, [index for index, each in enumerate(known.input_info) if each.mutates_data], received


def _gradients_of(run: Callable[..., Any], inputs: list[Any]) -> tuple[torch.fx.GraphModule, Any]:
    try:
        graph_module, known, *_ = aot_export_function(run, tuple(inputs), no_tangents=True, trace_joint=True)
    except RuntimeError as error:
        if "received a mutation" not in str(error):
            raise
        raise CaptureError(
            "forward changes in place a tensor that requires a gradient",
            remedy="work on a copy of the parameter or input, or let it require no gradient",
        ) from error
    return graph_module, known


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


def _name_as(forward: torch.fx.GraphModule, joint: torch.fx.GraphModule) -> None:
    """Take over the names of the inputs; other nodes make way."""
    names = Names()
    for old, new in _inputs_of(forward, joint):
        new.name = new.target = old.name
        names.keep(old.name)
    for node in joint.graph.nodes:
        if node.op != "placeholder":
            node.name = names.claim(node.name, node.name)
    name_subgraphs(joint)


def _describe_as(forward: torch.fx.GraphModule, joint: torch.fx.GraphModule, signature: ExportGraphSignature) -> None:
    """Take over what is known of the state, and the values of inputs that are no tensors."""
    state = {*signature.inputs_to_parameters, *signature.inputs_to_buffers}
    for old, new in _inputs_of(forward, joint):
        if old.name in state:
            new.meta.update(old.meta)
        elif not isinstance(old.meta["val"], torch.Tensor):
            new.meta["val"] = old.meta["val"]


def _inputs_of(*modules: torch.fx.GraphModule) -> Iterator[tuple[torch.fx.Node, ...]]:
    return zip(*(module.graph.find_nodes(op="placeholder") for module in modules), strict=True)


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
    if spec.kind not in kinds:
        what = "gradients" if kinds is _OF_GRADIENTS else "new values"
        raise CaptureError(
            f"a joint graph has no place for {what} of a {spec.kind.name.lower().replace('_', ' ')}",
            loc=(str(spec.target),),
            remedy="make it a parameter to get its gradient, a buffer to change it, or detach it",
        )
    return OutputSpec(kinds[spec.kind], TensorArgument(name=node.name), spec.target or spec.arg.name)
