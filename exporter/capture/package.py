"""Stage ``package``: graph, signature, ranges and state become an ``ExportedProgram``, which verifies itself."""

from __future__ import annotations

from typing import Any

import torch
from torch.export.graph_signature import InputKind

from exporter.capture.artifacts import IR, Differentiated, Named
from exporter.capture.module_inputs import modules_faked
from exporter.capture.ranges import range_constraints, unbacked_ranges
from exporter.capture.verify import verify
from exporter.torch_internals import ModuleCallEntry, ModuleCallSignature, TrainingIRVerifier, Verifier, pytree
from schema.errors import CaptureError

_VERIFIERS: dict[IR, Any] = {"training": TrainingIRVerifier, "inference": Verifier}


def package(named: Named) -> torch.export.ExportedProgram:
    """Build the program.

    Args:
        named: The finished graph.

    Returns:
        The program, verified by torch's own verifier of its dialect.

    Raises:
        CaptureError: The graph breaks a promise, the ranges contradict the specification, or one of
            ``AdditionalInputs`` does not fit.
    """
    verify(named)
    symbolic, graph_module = named.symbolic, named.graph_module
    request, state = symbolic.bound.request, symbolic.state
    program = torch.export.ExportedProgram(
        graph_module,
        graph_module.graph,
        named.signature,
        {name: tensor for name, tensor in state.real.items() if name not in state.volatile},
        _ranges(named),
        _module_calls(named),
        (request.args, request.kwargs),
        dict(named.constants),
        verifiers=[_VERIFIERS[request.options.ir]],
    )
    if isinstance(request.dynamic_shapes, torch.export.AdditionalInputs):
        _try(request.dynamic_shapes, program)
    return program


def _user_inputs(named: Named) -> list[Any]:
    kinds = [spec.kind for spec in named.signature.input_specs]
    placeholders = named.graph_module.graph.find_nodes(op="placeholder")
    return [n.meta["val"] for n, kind in zip(placeholders, kinds, strict=True) if kind is InputKind.USER_INPUT]


def _ranges(named: Named) -> dict[Any, Any]:
    symbolic = named.symbolic
    if not isinstance(named, Differentiated):
        named.graph_module.meta["inline_constraints"] = unbacked_ranges(symbolic)
        return range_constraints(symbolic, _user_inputs(named))
    env: Any = symbolic.shape_env
    return {s: r for s, r in (named.ranges | (env.var_to_range | named.ranges)).items() if s not in env.replacements}


def _module_calls(named: Named) -> list[ModuleCallEntry]:
    bound = named.symbolic.bound
    in_spec = bound.in_spec
    if not bound.request.options.strict:
        # Taken apart and put together once, as the module got them: a torch.Size is then a tuple.
        with modules_faked(named.symbolic):
            _, in_spec = pytree.tree_flatten(pytree.tree_unflatten(named.symbolic.fakes, in_spec))
    paths = [path for path, _ in bound.request.module.named_modules(remove_duplicate=False)]
    calls = [ModuleCallEntry(path, named.calls.get(path)) for path in dict.fromkeys((*paths, *named.calls))]
    calls[0].signature = ModuleCallSignature(
        inputs=[],
        outputs=[],
        in_spec=in_spec,
        out_spec=named.out_spec,
        forward_arg_names=list(bound.arg_names),
    )
    return calls


def _try(inputs: torch.export.AdditionalInputs, program: torch.export.ExportedProgram) -> None:
    try:
        inputs.verify(program)  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError, ValueError) as error:
        raise CaptureError(
            f"the program does not accept one of the additional inputs: {str(error).splitlines()[0]}",
            loc=("dynamic_shapes",),
            remedy="leave that input out, or change the module so that it holds for all of them",
        ) from error
