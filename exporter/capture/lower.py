"""Stage ``lower``: the module runs over fakes under AOTAutograd, which leaves functional ATen operators.

Nothing is changed in place in such a graph: what the module changes, a buffer or an input, is an output that is
written back. AOTAutograd runs the module twice, once to learn what it changes and once to record it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch.export.graph_signature import OutputKind

from exporter.capture.artifacts import Output, Symbolic, Traced
from exporter.capture.environment import tracing_environment
from exporter.capture.indexing import RewriteCalls
from exporter.capture.module_inputs import modules_faked
from exporter.capture.objects import objects_faked
from exporter.capture.paths import loc_of
from exporter.capture.preserve import module_restored, warn_of_assignments
from exporter.capture.progress import progress
from exporter.capture.root import ROOT, Root, restore_module_paths
from exporter.capture.tracepoints import Specs, signatures_of, tracepoints
from exporter.capture.tracer import frame_walking, in_stack_traces
from exporter.torch_internals import (
    aot_export_joint_with_descriptors,
    aot_stage2_export,
    functorch_config,
    pytree,
    reparametrize_module,
)
from schema.errors import CaptureError


class _Root(Root):
    """Runs the module alike each time, and says in operators what AOTAutograd would not see.

    Attributes:
        assigned: The buffers that ``forward`` assigns anew, by qualified name.
        detached: Which outputs ``forward`` computes with gradients.
        attributes: To which attributes ``forward`` assigns a tensor.
    """

    def __init__(self, module: torch.nn.Module, method: str) -> None:
        super().__init__(module, method)
        self.assigned: set[str] = set()
        self.detached: set[int] = set()
        self.attributes: list[str] = []

    def call(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        module: Any = self._export_root
        with torch.no_grad(), module_restored(module) as self.attributes:
            buffers = dict(module.named_buffers(remove_duplicate=False))
            outputs = super().call(*args, **kwargs)
            self._write_assigned(buffers, dict(module.named_buffers(remove_duplicate=False)))
        self.detached = {index for index, output in enumerate(outputs) if _has_gradient(output)}
        return tuple(output.detach() if index in self.detached else output for index, output in enumerate(outputs))

    forward = call

    def _write_assigned(self, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
        for name, buffer in before.items():
            value = after.get(name)
            if value is None:
                raise CaptureError(
                    "forward removes this buffer, which the program holds as a tensor",
                    loc=(name,),
                    remedy="write into the buffer with copy_, or assign a tensor that forward computes",
                )
            if value is not buffer:
                self.assigned.add(name)
                buffer.copy_(value)


def lower(symbolic: Symbolic) -> Traced:
    """Run the module over fakes and record it as a functional graph.

    Args:
        symbolic: The fakes.

    Returns:
        The graph, with parameters, buffers and inputs as placeholders, in this order, and as outputs, before those of
        the module, the new values of what it changes.

    Raises:
        CaptureError: The module returns something that no program can return, or changes the shape of an input.
        Exception: Whatever the module, or torch while it follows the module, raises.
    """
    request = symbolic.bound.request
    root, specs = _Root(symbolic.module, symbolic.method), Specs(symbolic.specs)
    args, kwargs = pytree.tree_unflatten(symbolic.fakes, symbolic.bound.in_spec)
    state = {f"{ROOT}.{name}": fake for name, fake in symbolic.state.fake.items()}
    with (
        objects_faked(symbolic),
        modules_faked(symbolic),
        tracepoints(request, specs),
        in_stack_traces(request.method),
        tracing_environment(symbolic.mode),
        RewriteCalls(),
        reparametrize_module(root, state, stack_weights=True),  # a tied module is put back in the reverse order
        functorch_config.patch(decompose_custom_triton_ops=False),
        torch.no_grad(),
        frame_walking(progress(symbolic.module, request.report)),
        ExitStack() as stack,
    ):
        joint = aot_export_joint_with_descriptors(stack, root, args, kwargs, _record_nn_module_stack=True)
        _check_shapes_kept(symbolic, joint._aot_state.fw_metadata)
        graph_module, metadata = aot_stage2_export(joint._aot_state, joint._aot_graph_capture)
    warn_of_assignments(root.attributes)
    restore_module_paths(graph_module.graph)
    outputs = _outputs(symbolic, graph_module, metadata)
    if root.assigned or root.detached:
        _return_values(graph_module.graph, outputs, root)
    if isinstance(symbolic.module, torch.fx.GraphModule):
        _inherit(graph_module, symbolic.module)
    assert root.out_spec is not None
    return Traced(symbolic, graph_module, root.out_spec, outputs, calls=signatures_of(specs))


def _has_gradient(output: Any) -> bool:
    return isinstance(output, torch.Tensor) and output.grad_fn is not None


def _check_shapes_kept(symbolic: Symbolic, metadata: Any) -> None:
    names = [(name,) for name in symbolic.state.fake] + [loc_of(leaf.path) for leaf in symbolic.bound.leaves]
    for loc, known in zip(names, metadata.input_info, strict=True):
        if known.mutates_metadata:
            raise CaptureError(
                "forward changes the shape or the strides of this tensor in place",
                loc=loc,
                remedy="work on a view or a copy of it, or capture in training IR",
            )


def _outputs(symbolic: Symbolic, graph_module: torch.fx.GraphModule, metadata: Any) -> tuple[Output, ...]:
    state = symbolic.state
    owners = [*state.fake, *range(len(symbolic.fakes))]
    tokens = [Output(OutputKind.TOKEN)] * len(metadata.tokens)
    changed = [
        Output(_kind_of_change(owner, state.buffers), owner)
        for owner, known in zip(owners, metadata.input_info, strict=True)
        if known.mutates_data
    ]
    returned = pytree.tree_leaves(graph_module.graph.output_node().args[0])[len(tokens) + len(changed) :]
    return (*tokens, *changed, *(Output() for _ in returned))


def _kind_of_change(owner: str | int, buffers: frozenset[str]) -> OutputKind:
    if isinstance(owner, int):
        return OutputKind.USER_INPUT_MUTATION
    return OutputKind.BUFFER_MUTATION if owner in buffers else OutputKind.PARAMETER_MUTATION


def _return_values(graph: torch.fx.Graph, outputs: tuple[Output, ...], root: _Root) -> None:
    """Return what was assigned to a buffer, and what was computed with gradients, and not a copy of it."""
    result = graph.output_node()
    values: Any = list(result.args[0])  # type: ignore[arg-type]
    returned = len(outputs) - sum(output.target is None for output in outputs)
    for index, output in enumerate(outputs):
        if output.target in root.assigned and _copies_all(values[index]):
            values[index] = values[index].args[1]
        elif index - returned in root.detached:
            values[index] = values[index].args[0]
    result.args = (tuple(values),)
    graph.eliminate_dead_code()


def _copies_all(node: torch.fx.Node) -> bool:
    """Whether nothing of the destination is left: neither its dtype nor its shape."""
    target, source = (each.meta["val"] for each in node.args[:2])
    return source.dtype == target.dtype and source.shape == target.shape


def _inherit(graph_module: torch.fx.GraphModule, source: torch.fx.GraphModule) -> None:
    """Take over the metadata of a graph that is captured again, as far as AOTAutograd does not."""
    graph_module.meta.update(source.meta)
    meta = graph_module.graph.output_node().meta
    meta.pop("desc", None)
    meta.update(source.graph.output_node().meta)
