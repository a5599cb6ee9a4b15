"""Stage ``symbolize``: arguments, parameters and buffers become fake tensors with symbolic sizes.

The specification is kept beside the tensors, never marked on them, so that a capture leaves the user's tensors as
they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporter.capture.artifacts import Bound, Leaf, State, Symbolic
from exporter.capture.equalities import equalities_of
from exporter.capture.objects import fake_of, fakes_of
from exporter.capture.paths import loc_of
from exporter.capture.subclasses import inner_tensors
from exporter.torch_internals import (
    AttrSource,
    DimDynamic,
    DimHint,
    FakeTensorMode,
    RelaxedUnspecConstraint,
    ShapeEnv,
    StatelessSymbolicContext,
    StrictMinMaxConstraint,
    SubclassSymbolicContext,
    SymIntSymbolicContext,
    TensorProperty,
    TensorPropertySource,
    TrackedFake,
    UnsupportedFakeTensorException,
    ValueRanges,
    functorch_config,
    is_traceable_wrapper_subclass,
)
from schema.errors import CaptureError, Loc


def symbolize(bound: Bound) -> Symbolic:
    """Make the fakes that the module is traced with.

    Args:
        bound: The checked arguments.

    Returns:
        A fake for each leaf and for each parameter and buffer, and the equalities that the specification implies.

    Raises:
        CaptureError: There is no fake of some tensor, as of a quantized one.
    """
    module = bound.request.module
    mode = new_mode(bound)
    shape_env = mode.shape_env
    assert shape_env is not None
    with mode:
        fakes = tuple(_fake(mode, shape_env, leaf) for leaf in bound.leaves)
        equalities = equalities_of(bound, shape_env)
        objects = fakes_of(module, mode)
    sources = tuple(leaf.source for leaf in bound.leaves)
    return Symbolic(bound, module, mode, shape_env, fakes, sources, state_of(module, mode), equalities, objects)


def new_mode(bound: Bound) -> FakeTensorMode:
    """Return a mode to trace the module under, with an environment that has no symbol yet."""
    shape_env = ShapeEnv(
        tracked_fakes=[],
        trace_asserts=True,
        prefer_deferred_runtime_asserts_over_guards=bound.request.options.deferred_asserts,
        co_fields=_code_fields(bound.request.method),
    )
    with functorch_config.patch(fake_tensor_allow_unsafe_data_ptr_access=False):
        return FakeTensorMode(shape_env=shape_env, allow_non_fake_inputs=True, export=True)


def state_of(module: torch.nn.Module, mode: FakeTensorMode | None = None) -> State:
    """Return the module's tensors, and with a mode their fakes."""
    buffers = dict(module.named_buffers(remove_duplicate=False))
    real = {**dict(module.named_parameters(remove_duplicate=False)), **buffers}
    return State(
        real=real,
        fake=_fakes_of_state(mode, real) if mode else {},
        buffers=frozenset(buffers),
        volatile=frozenset(
            f"{path}.{name}" if path else name
            for path, owner in module.named_modules(remove_duplicate=False)
            for name in owner._non_persistent_buffers_set
        ),
    )


def _fakes_of_state(mode: FakeTensorMode, real: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of one tensor share one fake, so that ties stay ties."""
    once: dict[int, torch.Tensor] = {}
    for name, tensor in real.items():
        if id(tensor) not in once:
            once[id(tensor)] = _faked(mode, tensor, (name,), static_shapes=True)
    return {name: once[id(tensor)] for name, tensor in real.items()}


def _code_fields(method: Any) -> Mapping[str, Any]:
    """Where the method is written, for the log of the shape environment."""
    code = getattr(getattr(method, "func", method), "__code__", None)
    return {name: getattr(code, name, None) for name in ("co_name", "co_filename", "co_firstlineno")}


def _fake(mode: FakeTensorMode, shape_env: ShapeEnv, leaf: Leaf) -> Any:
    if isinstance(leaf.value, torch.Tensor):
        context = _context(shape_env, leaf)
        fake: Any = _faked(mode, leaf.value, loc_of(leaf.path), source=leaf.source, symbolic_context=context)
    elif leaf.hint is not None:
        fake = shape_env.create_unspecified_symint_and_symbol(leaf.value, leaf.source, DimDynamic.DYNAMIC)
        must_vary = leaf.hint.type.name == "DYNAMIC"
        context = SymIntSymbolicContext(constraint=RelaxedUnspecConstraint(warn_only=False)) if must_vary else None
    else:
        return fake_of(mode, leaf.value)
    tracked: Any = shape_env.tracked_fakes
    tracked.append(TrackedFake(fake, leaf.source, context))
    return fake


def _faked(mode: FakeTensorMode, tensor: torch.Tensor, loc: Loc, **how: Any) -> torch.Tensor:
    try:
        return mode.from_tensor(tensor, **how)
    except UnsupportedFakeTensorException as error:
        what = "a quantized tensor" if tensor.is_quantized else f"this {type(tensor).__name__}"
        raise CaptureError(
            f"{what} cannot be captured: torch has no fake of it ({error})",
            loc=loc,
            remedy="keep its values in plain tensors, such as int_repr() with scale and zero point",
        ) from error


def _context(shape_env: ShapeEnv, leaf: Leaf) -> Any:
    dynamic, constraints = [], []
    for index, dim in enumerate(leaf.dims):
        how, constraint = _dimension(dim)
        dynamic.append(how)
        constraints.append(constraint)
        if isinstance(dim, torch.export.Dim):
            source = TensorPropertySource(leaf.source, TensorProperty.SIZE, index)
            shape_env.source_name_to_debug_name[source.name] = dim.__name__
    if is_traceable_wrapper_subclass(leaf.value):
        return SubclassSymbolicContext(
            dynamic_sizes=dynamic,
            constraint_sizes=constraints,
            tensor_source=leaf.source,
            inner_contexts=_inner_contexts(shape_env, leaf),
        )
    return StatelessSymbolicContext(dynamic_sizes=dynamic, constraint_sizes=constraints)


def _inner_contexts(shape_env: ShapeEnv, leaf: Leaf) -> dict[str, Any]:
    """What varies of a wrapper subclass varies of each tensor inside that has as many dimensions."""
    inner = inner_tensors(leaf.value)
    dims = {
        name: leaf.dims if value.dim() == leaf.value.dim() else (None,) * value.dim() for name, value in inner.items()
    }
    return {
        name: _context(shape_env, Leaf(value, leaf.path, AttrSource(leaf.source, name), dims[name]))
        for name, value in inner.items()
    }


def _dimension(dim: Any) -> tuple[DimDynamic, Any]:
    """A constraint alone makes a dimension vary; a hint says so without one."""
    match dim:
        case torch.export.Dim():
            return DimDynamic.STATIC, StrictMinMaxConstraint(vr=ValueRanges(dim.min, dim.max), warn_only=False)
        case DimHint() if dim.type.name == "DYNAMIC":
            return DimDynamic.DYNAMIC, RelaxedUnspecConstraint(warn_only=False)
        case DimHint() if dim.type.name == "AUTO":
            return DimDynamic.DYNAMIC, None
        case _:
            return DimDynamic.STATIC, None
