"""Stage ``lower``: the module runs over fakes under AOTAutograd, which leaves functional ATen operators.

Nothing is changed in place in such a graph: what the module changes, a buffer or an input, is an output that is
written back. AOTAutograd runs the module twice, once to learn what it changes and once to record it.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch.export.graph_signature import OutputKind

from exporter.capture.artifacts import Output, Symbolic, Traced
from exporter.capture.environment import tracing_environment
from exporter.capture.indexing import RewriteCalls
from exporter.capture.module_inputs import modules_faked
from exporter.capture.objects import objects_faked
from exporter.capture.paths import loc_of
from exporter.capture.preserve import can_be_written_back, module_restored, warn_of_assignments, warn_of_other_shapes
from exporter.capture.progress import progress
from exporter.capture.root import ROOT, Root, restore_module_paths
from exporter.capture.tracepoints import Specs, signatures_of, tracepoints
from exporter.capture.tracer import frugal_tracing, in_stack_traces
from exporter.capture.unused import drop_unused
from exporter.torch_internals import (
    ConstantSource,
    TrackedFake,
    aot_export_joint_with_descriptors,
    aot_stage2_export,
    functorch_config,
    lazy_graph_modules,
    pytree,
    reparametrize_module,
    unobserved,
)
from schema.errors import CaptureError, Loc


class _Root(Root):
    """Runs the module alike each time, and says in operators what AOTAutograd would not see.

    Attributes:
        assigned: The buffers that ``forward`` assigns anew, by qualified name.
        detached: Which outputs ``forward`` computes with gradients.
        attributes: To which attributes ``forward`` assigns a tensor.
        resized: To which buffers it assigns one of another shape.
    """

    def __init__(self, symbolic: Symbolic) -> None:
        super().__init__(
            symbolic.module, symbolic.method, symbolic.mode if symbolic.bound.request.options.strict else None
        )
        self.symbolic = symbolic
        self.assigned: set[str] = set()
        self.detached: set[int] = set()
        self.attributes: list[str] = []
        self.resized: list[str] = []

    def call(self, *flat: Any) -> tuple[Any, ...]:
        values = [
            fake if isinstance(fake, bool) else given for fake, given in zip(self.symbolic.fakes, flat, strict=True)
        ]
        args, kwargs = pytree.tree_unflatten(values, self.symbolic.bound.in_spec)
        with module_restored(self._export_root) as self.attributes:
            buffers = self._buffers_now()
            outputs = super().call(*args, **kwargs)
            with unobserved():
                torch.set_grad_enabled(False)  # forward may have switched it on, and the next run begins without
                self._write_assigned(buffers)
                return self._without_gradients(outputs)

    forward = call

    def _buffers_now(self) -> dict[str, torch.Tensor]:
        return dict(self._export_root.named_buffers(remove_duplicate=False))

    def _write_assigned(self, before: dict[str, torch.Tensor]) -> None:
        after = self._buffers_now()
        self.resized = []
        for name, buffer in before.items():
            if name not in after:
                raise CaptureError(
                    "forward assigns to this buffer something that is no tensor",
                    loc=(name,),
                    remedy="write into the buffer with copy_, or assign a tensor that forward computes",
                )
            if not can_be_written_back(after[name], buffer):
                self.resized.append(name)
            elif after[name] is not buffer:
                self.assigned.add(name)
                buffer.copy_(after[name])

    def _without_gradients(self, outputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Under ``torch.enable_grad`` a forward has gradients in spite of us, for which AOTAutograd has no place."""
        self.detached = {
            index
            for index, output in enumerate(outputs)
            if isinstance(output, torch.Tensor) and output.grad_fn is not None
        }
        return tuple(output.detach() if index in self.detached else output for index, output in enumerate(outputs))


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
    strict, specs = request.options.strict, Specs(symbolic.specs)
    root = _Root(symbolic)
    arguments = [_argument(symbolic, index, fake) for index, fake in enumerate(symbolic.fakes)]
    state = {f"{ROOT}.{name}": fake for name, fake in symbolic.state.fake.items()}
    with (
        objects_faked(symbolic),
        modules_faked(symbolic),
        tracepoints(request, specs),
        in_stack_traces(request),
        tracing_environment(symbolic.mode),
        nullcontext() if strict else RewriteCalls(),
        reparametrize_module(root, state, stack_weights=True),  # a tied module is put back in the reverse order
        functorch_config.patch(decompose_custom_triton_ops=False),
        torch.no_grad(),
        frugal_tracing(progress(symbolic.module, request.report)),
        lazy_graph_modules(True),  # code is generated once, when all is named
        ExitStack() as stack,
    ):
        joint = _run(stack, root, arguments)
        _check_changes(symbolic, joint._aot_state)
        graph_module, metadata = aot_stage2_export(joint._aot_state, joint._aot_graph_capture)
    warn_of_assignments(root.attributes)
    warn_of_other_shapes(root.resized)
    drop_unused(graph_module.graph)
    if strict:
        _describe_without_root(graph_module.graph)
    else:
        restore_module_paths(graph_module.graph)
    outputs = _outputs(symbolic, graph_module, metadata)
    _return_values(graph_module.graph, outputs, root)
    if isinstance(symbolic.module, torch.fx.GraphModule):
        _inherit(graph_module, symbolic.module)
    assert root.out_spec is not None
    return Traced(symbolic, graph_module, root.out_spec, outputs, calls=signatures_of(specs))


def _run(stack: ExitStack, root: _Root, arguments: list[Any]) -> Any:
    try:
        return aot_export_joint_with_descriptors(stack, root, arguments, _record_nn_module_stack=True)
    except AssertionError as error:
        if "functional graph" not in str(error):
            raise
        raise CaptureError(
            "forward changes in place a tensor that is neither a buffer nor computed by it",
            remedy="register the tensor with register_buffer, or work on a clone of it",
        ) from error


def _argument(symbolic: Symbolic, index: int, fake: Any) -> Any:
    """Return what AOTAutograd gets for a leaf.

    It makes a symbol of a fixed integer, which the graph then reads from the placeholder. The solver has to know
    where such a symbol comes from; torch does not tell it, and fails where the module compares the integer. Of a
    truth value it would make an integer, which few operators take; the root puts it back.
    """
    if isinstance(fake, bool):
        return None
    if not isinstance(fake, int):
        return fake
    env: Any = symbolic.shape_env
    source = ConstantSource(f"sym_{len(symbolic.state.fake) + index}")
    number = env.create_symintnode(env.create_symbol(fake, source, positive=fake >= 0), hint=fake, source=source)
    env.tracked_fakes.append(TrackedFake(number, source, None))
    return number


def _locs(symbolic: Symbolic) -> list[Loc]:
    """Where each placeholder comes from."""
    return [(name,) for name in symbolic.state.fake] + [loc_of(leaf.path) for leaf in symbolic.bound.leaves]


def _check_changes(symbolic: Symbolic, state: Any) -> None:
    """Refuse what a functional graph cannot write back."""
    known, locs = state.fw_metadata.input_info, _locs(symbolic)
    if len(known) != len(locs):
        first, second = _that_share_memory(symbolic)
        raise CaptureError(
            f"forward changes in place memory that it shares with {'.'.join(map(str, second))}",
            loc=first,
            remedy="keep them apart, or capture in training IR",
        )
    for loc, each in zip(locs, known, strict=True):
        if each.mutates_metadata:
            raise CaptureError(
                "forward changes the shape or the strides of this tensor in place",
                loc=loc,
                remedy="work on a view or a copy of it, or capture in training IR",
            )
        if state.needs_autograd and each.mutates_data and each.requires_grad:
            raise CaptureError(
                "forward writes into this tensor what it computed with gradients",
                loc=loc,
                remedy="write it under torch.no_grad()",
            )


def _that_share_memory(symbolic: Symbolic) -> tuple[Loc, Loc]:
    """Two places of one memory; of parameters, which are hardly ever changed in place, only if there are no others."""
    state = symbolic.state
    fakes = dict(zip(_locs(symbolic), [*state.fake.values(), *symbolic.fakes], strict=True))
    seen: dict[int, Loc] = {}
    for loc in sorted(fakes, key=lambda loc: loc[0] in state.fake and loc[0] not in state.buffers):
        fake = fakes[loc]
        if isinstance(fake, torch.Tensor):
            storage = fake.untyped_storage()._cdata
            if storage in seen:
                return seen[storage], loc
            seen[storage] = loc
    return (), ()


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
    """Return what was assigned to a buffer, and what was computed with gradients, and not a copy; numbers as such."""
    result = graph.output_node()
    values: Any = list(result.args[0])  # type: ignore[arg-type]
    written = sum(output.target is not None for output in outputs)
    numbers = _fixed_values(graph, root.symbolic)
    for index, output in enumerate(outputs):
        if output.target in root.assigned and _is_whole_copy(values[index], values[:written]):
            values[index] = values[index].args[1]
        elif index - written in root.detached:
            values[index] = values[index].args[0]
        values[index] = numbers.get(values[index], values[index])
    if values != list(result.args[0]):  # type: ignore[arg-type]
        result.args = (tuple(values),)
        graph.eliminate_dead_code()


def _fixed_values(graph: torch.fx.Graph, symbolic: Symbolic) -> dict[Any, Any]:
    """The placeholders of inputs that are fixed numbers, and the numbers."""
    placeholders = list(graph.find_nodes(op="placeholder"))
    inputs = placeholders[len(placeholders) - len(symbolic.fakes) :]
    return {node: fake for node, fake in zip(inputs, symbolic.fakes, strict=True) if isinstance(fake, int | float)}


def _is_whole_copy(node: torch.fx.Node, written: list[Any]) -> bool:
    """Whether it has nothing of its destination, and its source is computed and not yet written somewhere else."""
    target, source = (each.meta["val"] for each in node.args[:2])  # type: ignore[union-attr]
    return (
        source.dtype == target.dtype
        and source.shape == target.shape
        and node.args[1].op == "call_function"  # type: ignore[union-attr]
        and node.args[1] not in written
    )


def _describe_without_root(graph: torch.fx.Graph) -> None:
    """Where Dynamo made the graph, AOTAutograd's descriptions of inputs name the state as Dynamo does."""
    for node in graph.find_nodes(op="placeholder"):
        described = node.meta.get("desc")
        if name := getattr(described, "target", ""):
            node.meta["desc"] = dataclasses.replace(described, target=name.removeprefix(f"{ROOT}."))


def _inherit(graph_module: torch.fx.GraphModule, source: torch.fx.GraphModule) -> None:
    """Take over the metadata of a graph that is captured again, as far as AOTAutograd does not."""
    graph_module.meta.update(source.meta)
    meta = graph_module.graph.output_node().meta
    meta.pop("desc", None)
    meta.update(source.graph.output_node().meta)
