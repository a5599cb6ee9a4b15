"""Stage ``trace``: the module runs once over fakes, and every operator it calls becomes a node.

torch's ``make_fx`` records; this stage sets the scene, follows buffers that are assigned anew, and tidies the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from exporter.capture.artifacts import Output, Symbolic, Traced
from exporter.capture.environment import tracing_environment
from exporter.capture.indexing import RewriteCalls
from exporter.capture.module_inputs import modules_faked
from exporter.capture.objects import objects_faked
from exporter.capture.preserve import can_be_written_back, module_kept, warn_of_other_shapes
from exporter.capture.progress import progress
from exporter.capture.root import ROOT, Root, restore_module_paths
from exporter.capture.subclasses import reads_followed
from exporter.capture.tracepoints import Specs, signatures_of, tracepoints
from exporter.capture.tracer import frugal_tracing, in_stack_traces
from exporter.capture.unused import drop_unused
from exporter.torch_internals import (
    FunctionalTensor,
    get_proxy_mode,
    get_proxy_slot,
    lazy_graph_modules,
    make_fx,
    maybe_disable_thunkify,
    pytree,
    reparametrize_module,
)
from schema.errors import CaptureError


def trace(symbolic: Symbolic) -> Traced:
    """Run the module over fakes and record its operators.

    Args:
        symbolic: The fakes.

    Returns:
        The graph, with parameters, buffers and inputs as placeholders, in this order.

    Raises:
        CaptureError: The module returns something that no program can return, or makes a buffer of something that
            was not computed.
        Exception: Whatever the module, or torch while it follows the module, raises.
    """
    request, specs = symbolic.bound.request, Specs(symbolic.specs)
    root = Root(symbolic.module, symbolic.method, symbolic.mode if request.options.strict else None)
    running = _graph_running(symbolic) if request.options.strict else _module_running(symbolic, specs)
    state = {f"{ROOT}.{name}": fake for name, fake in symbolic.state.fake.items()}
    inputs = (*state.values(), *symbolic.fakes)
    tracing = frugal_tracing(progress(symbolic.module, request.report))
    with running as assigned, tracing, lazy_graph_modules(True), reads_followed(inputs):
        run = _runner(root, tuple(state), symbolic)
        graph_module = make_fx(run, record_module_stack=True, pre_dispatch=True)(*inputs)
    _write_buffers(graph_module.graph, list(state), assigned)
    drop_unused(graph_module.graph)
    if not request.options.strict:
        restore_module_paths(graph_module.graph)
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and not node.users:
            node.meta.setdefault("val", None)
    if isinstance(symbolic.module, torch.fx.GraphModule):
        graph_module.meta.update(symbolic.module.meta)
    assert root.out_spec is not None
    outputs = (Output(),) * root.out_spec.num_leaves
    return Traced(symbolic, graph_module, root.out_spec, outputs, calls=signatures_of(specs))


def _runner(root: Root, names: tuple[str, ...], symbolic: Symbolic) -> Callable[..., tuple[Any, ...]]:
    """Return the function to trace: it takes the state and the inputs, flat."""
    in_spec = symbolic.bound.in_spec

    def run(*flat: Any) -> Any:
        args, kwargs = pytree.tree_unflatten(flat[len(names) :], in_spec)
        with reparametrize_module(root, dict(zip(names, flat, strict=False))), maybe_disable_thunkify():
            return root(*args, **kwargs)

    run._orig_mod = root  # type: ignore[attr-defined]  # make_fx reads here whose submodules it may name
    return run


@contextmanager
def _graph_running(symbolic: Symbolic) -> Iterator[dict[str, str]]:
    """The graph that Dynamo made calls operators, and does nothing else."""
    with tracing_environment(symbolic.mode):
        yield {}


@contextmanager
def _module_running(symbolic: Symbolic, specs: Specs) -> Iterator[dict[str, str]]:
    """The user's module may do anything; its buffer assignments are noted."""
    with (
        module_kept(symbolic.module),
        objects_faked(symbolic),
        modules_faked(symbolic),
        tracepoints(symbolic.bound.request, specs),
        in_stack_traces(symbolic.bound.request),
        tracing_environment(symbolic.mode),
        RewriteCalls(),
        _buffer_assignments(symbolic) as assigned,
    ):
        yield assigned


@contextmanager
def _buffer_assignments(symbolic: Symbolic) -> Iterator[dict[str, str]]:
    """Note for each buffer that is assigned anew which node computes its value.

    torch follows the buffers of the outermost module only and forgets the others; here all are followed.
    """
    module = symbolic.module
    owners = {id(owner._buffers): f"{path}." if path else "" for path, owner in reversed(list(module.named_modules()))}
    assigned: dict[str, str] = {}
    lost: dict[str, bool] = {}

    def note(owner: torch.nn.Module, name: str, value: Any) -> None:
        fqn = f"{owners.get(id(owner._buffers), '?')}{name}"
        if owner is not module and value is symbolic.state.fake.get(fqn):
            assigned.pop(fqn, None)  # back to itself; of the outermost module it is written even so, as in torch
            lost.pop(fqn, None)
        elif fqn in symbolic.state.buffers:
            lost[fqn] = not can_be_written_back(value, symbolic.state.fake[fqn])
            if lost[fqn]:
                assigned.pop(fqn, None)
            else:
                assigned[fqn] = _node_of(value, fqn)

    hook = torch.nn.modules.module.register_module_buffer_registration_hook(note)
    try:
        yield assigned
    finally:
        hook.remove()
    warn_of_other_shapes([fqn for fqn in lost if lost[fqn]])


def _node_of(value: Any, fqn: str) -> str:
    tensor = value.from_functional() if isinstance(value, FunctionalTensor) else value
    slot = get_proxy_slot(tensor, get_proxy_mode().tracer, None) if isinstance(tensor, torch.Tensor) else None
    if slot is None:
        raise CaptureError(
            f"the module assigns to this buffer a {type(value).__name__} that it did not compute",
            loc=(fqn,),
            remedy="write into the buffer with copy_, or assign a tensor that forward computes",
        )
    return str(slot.proxy.node.name)


def _write_buffers(graph: torch.fx.Graph, state: list[str], assigned: dict[str, str]) -> None:
    """Copy into each buffer, at the end, the value that was assigned to it last."""
    nodes = {node.name: node for node in graph.nodes}
    placeholders = dict(zip(state, graph.find_nodes(op="placeholder"), strict=False))
    with graph.inserting_before(graph.output_node()):
        for fqn, name in assigned.items():
            buffer = placeholders[f"{ROOT}.{fqn}"]
            copy = graph.call_function(torch.ops.aten.copy_.default, (buffer, nodes[name]))
            copy.meta = nodes[name].meta
