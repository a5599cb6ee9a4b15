"""Every private torch symbol that ``exporter`` uses, and everything that differs between torch versions.

No other file of this package names a private torch module. Functions that torch leaves untyped are handed on as
``Any``; classes that appear in our annotations keep their type. Read with torch 2.11, 2.13 and 2.15; run with 2.13.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch._dynamo
import torch._dynamo.convert_frame
import torch._dynamo.functional_export
import torch._dynamo.utils
import torch._dynamo.variables.builder
import torch._functorch.config
import torch._refs
import torch._subclasses.fake_tensor
import torch.amp.autocast_mode
import torch.distributed
import torch.export._trace
import torch.export._unlift
import torch.export.dynamic_shapes
import torch.fx._lazy_graph_module
import torch.nn.utils.stateless
from torch._dispatch.python import enable_python_dispatcher as _enable_python_dispatcher
from torch._dynamo.exc import TorchDynamoException as TorchDynamoException
from torch._dynamo.source import (
    AttrSource as AttrSource,
    ConstantSource as ConstantSource,
    GetItemSource as GetItemSource,
    LocalSource as LocalSource,
    TensorProperty as TensorProperty,
    TensorPropertySource as TensorPropertySource,
)
from torch._dynamo.symbolic_convert import InstructionTranslatorBase
from torch._export.utils import (
    deregister_module_as_pytree_input_node as _deregister_module_as_pytree_input_node,
    register_module_as_pytree_input_node as _register_module_as_pytree_input_node,
)
from torch._export.verifier import TrainingIRVerifier as TrainingIRVerifier, Verifier as Verifier
from torch._functorch import predispatch as predispatch
from torch._functorch._aot_autograd.graph_capture_wrappers import create_functional_call as _create_functional_call
from torch._functorch._aot_autograd.graph_compile import aot_stage2_export as _aot_stage2_export
from torch._functorch.aot_autograd import (
    _aot_export_function,
    aot_export_joint_with_descriptors as _aot_export_joint_with_descriptors,
)
from torch._guards import (
    CompileContext as CompileContext,
    CompileId,
    Source as Source,
    TracingContext as TracingContext,
    compile_context as _compile_context,
    tracing as _tracing,
)
from torch._library import (
    fake_class_registry as fake_class_registry,
    opaque_object as opaque_object,
    simple_registry as simple_registry,
)
from torch._library.custom_ops import OPDEFS
from torch._library.fake_class_registry import FakeScriptObject as FakeScriptObject
from torch._ops import (
    HigherOrderOperator as HigherOrderOperator,
    OpOverload as OpOverload,
    OpOverloadPacket as OpOverloadPacket,
)
from torch._prims_common import is_integer_dtype as _is_integer_dtype
from torch._subclasses.fake_tensor import (
    DataDependentOutputException as DataDependentOutputException,
    DynamicOutputShapeException as DynamicOutputShapeException,
    FakeTensor as FakeTensor,
    FakeTensorMode as FakeTensorMode,
    UnsupportedFakeTensorException as UnsupportedFakeTensorException,
    UnsupportedOperatorException as UnsupportedOperatorException,
    unset_fake_temporarily as _unset_fake_temporarily,
)
from torch._subclasses.functional_tensor import FunctionalTensor as FunctionalTensor
from torch.export.custom_ops import _call_custom_autograd_function_in_pre_dispatch as _call_custom_autograd_function
from torch.export.exported_program import ModuleCallEntry as ModuleCallEntry, ModuleCallSignature as ModuleCallSignature
from torch.fx.experimental import proxy_tensor as proxy_tensor
from torch.fx.experimental.sym_node import SymNode as SymNode
from torch.fx.experimental.symbolic_shapes import (
    CallMethodKey as CallMethodKey,
    ConstraintViolationError as ConstraintViolationError,
    ConvertIntKey as ConvertIntKey,
    DimDynamic as DimDynamic,
    DivideByKey as DivideByKey,
    EqualityConstraint as EqualityConstraint,
    GuardOnDataDependentSymNode as GuardOnDataDependentSymNode,
    InnerTensorKey as InnerTensorKey,
    PropagateUnbackedSymInts as PropagateUnbackedSymInts,
    RelaxedUnspecConstraint as RelaxedUnspecConstraint,
    ShapeEnv as ShapeEnv,
    ShapeGuardPythonPrinter as ShapeGuardPythonPrinter,
    StatelessSymbolicContext as StatelessSymbolicContext,
    StrictMinMaxConstraint as StrictMinMaxConstraint,
    SubclassSymbolicContext as SubclassSymbolicContext,
    SymIntSymbolicContext as SymIntSymbolicContext,
    _free_unbacked_symbols_with_path as _unbacked_paths,
    free_unbacked_symbols as _free_unbacked_symbols,
    uninteresting_files as _uninteresting_files,
)
from torch.fx.passes.runtime_assert import insert_deferred_runtime_asserts as _insert_deferred_runtime_asserts
from torch.fx.passes.split_module import split_module as _split_module
from torch.utils import _pytree
from torch.utils._python_dispatch import (
    _disable_current_modes,
    is_traceable_wrapper_subclass as _is_traceable_wrapper_subclass,
    is_traceable_wrapper_subclass_type as _is_traceable_wrapper_subclass_type,
)
from torch.utils._pytree import SequenceKey as SequenceKey, TreeSpec as TreeSpec
from torch.utils._sympy.numbers import int_oo as int_oo
from torch.utils._sympy.symbol import SymT as SymT, symbol_is_type as symbol_is_type
from torch.utils._sympy.value_ranges import ValueRangeError as ValueRangeError, ValueRanges as ValueRanges

CALLS_AUTOGRAD_FUNCTION: Any = _call_custom_autograd_function
pytree = _pytree
InstructionTranslator = InstructionTranslatorBase

VERSION: tuple[int, int] = (lambda found: (int(found[0]), int(found[1])))(
    re.findall(r"\d+", str(torch.__version__))[:2]
)
"""The running torch, as (major, minor)."""

NODES_CARRY_CUSTOM = VERSION >= (2, 13)
"""From 2.13 on, a node that a pass creates gets the ``custom`` metadata of its first argument."""

SCALAR_TENSOR_INDEXES_SELECT = VERSION >= (2, 13)
"""From 2.13 on, ``x[i]`` with a scalar integer tensor ``i`` is traced as ``select(item(i))``."""

TENSOR_ASSERTS_ARE_ASYNC = VERSION >= (2, 15)
"""From 2.15 on, ``torch._assert`` of a tensor is traced as ``_assert_async``."""

SYMBOLS_ARE_VERSIONED = VERSION >= (2, 13)
"""From 2.13 on, a shape environment counts how often it has replaced symbols."""

# --- dynamic shapes ------------------------------------------------------------------------------------------

DimHint: Any = torch.export.dynamic_shapes._DimHint
DerivedDim: Any = torch.export.dynamic_shapes._DerivedDim
TrackedFake: Any = torch._dynamo.variables.builder.TrackedFake  # type: ignore[attr-defined]
free_unbacked_symbols: Any = _free_unbacked_symbols
unbacked_paths: Any = _unbacked_paths
insert_deferred_runtime_asserts: Any = _insert_deferred_runtime_asserts
uninteresting_files: Any = _uninteresting_files


def marked_dims(tensor: torch.Tensor) -> dict[int, Any]:
    """What ``torch._dynamo.mark_dynamic`` and ``maybe_mark_dynamic`` noted on a tensor: a hint for each dimension."""
    ranges = {noted.dim: noted for noted in getattr(tensor, "_dynamo_dynamic_range", ())}
    hints = {
        **dict.fromkeys(getattr(tensor, "_dynamo_dynamic_indices", ()), torch.export.Dim.DYNAMIC),
        **dict.fromkeys(getattr(tensor, "_dynamo_weak_dynamic_indices", ()), torch.export.Dim.AUTO),
    }
    return {dim: hint(ranges[dim].min, ranges[dim].max) if dim in ranges else hint for dim, hint in hints.items()}


# --- tracing -------------------------------------------------------------------------------------------------

ModuleStackTracer: Any = proxy_tensor._ModuleStackTracer
TorchFunctionMetadataMode: Any = proxy_tensor.TorchFunctionMetadataMode
PreDispatchTorchFunctionMode: Any = proxy_tensor.PreDispatchTorchFunctionMode
make_fx: Any = proxy_tensor.make_fx
get_proxy_mode: Any = proxy_tensor.get_proxy_mode
get_proxy_slot: Any = proxy_tensor.get_proxy_slot
track_tensor_tree: Any = proxy_tensor.track_tensor_tree
access_subclass_inner_tensor: Any = torch.ops.export.access_subclass_inner_tensor.default
maybe_disable_thunkify: Any = proxy_tensor.maybe_disable_thunkify
enable_python_dispatcher: Any = _enable_python_dispatcher
tracing: Any = _tracing
unset_fake_temporarily: Any = _unset_fake_temporarily
STACK_TRACE_ANCHORS: set[tuple[str, str]] = getattr(torch.fx.proxy, "_STACK_TRACE_ANCHORS", set())
"""Functions, by file and name, whose frames belong into stack traces although they are not called ``forward``."""
register_module_as_pytree_node: Any = _register_module_as_pytree_input_node
deregister_module_as_pytree_node: Any = _deregister_module_as_pytree_input_node
ARGUMENT_SHORTCUTS: dict[type, Any] = {
    kind: convert
    for kind, convert in torch.fx.proxy._create_arg_bypass.items()
    if kind not in (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)
}
"""How a tracer converts arguments, by type; without the types that ``make_fx`` converts in its own way."""
reparametrize_module: Any = torch.nn.utils.stateless._reparametrize_module
check_input_constraints_pre_hook: Any = torch.export._unlift._check_input_constraints_pre_hook
is_integer_dtype: Any = _is_integer_dtype
is_traceable_wrapper_subclass: Any = _is_traceable_wrapper_subclass
is_wrapper_class: Any = _is_traceable_wrapper_subclass_type
refs_tensor: Any = torch._refs.tensor
is_functorch_wrapped: Any = torch._C._functorch.is_functorch_wrapped_tensor
compiler_flags: Any = torch.compiler
function_modes: Any = torch.overrides._get_current_function_mode_stack
_is_function_mode_enabled: Any = torch._C._is_torch_function_mode_enabled
dynamo_config: Any = torch._dynamo.config
functorch_config: Any = torch._functorch.config
aot_export_function: Any = _aot_export_function
functional_call_of: Any = _create_functional_call
aot_export_joint_with_descriptors: Any = _aot_export_joint_with_descriptors
unobserved: Any = torch._C.DisableTorchFunction
"""While it is entered, no mode sees the calls: they leave no mark in the metadata of nodes."""
aot_stage2_export: Any = _aot_stage2_export

fake_script_object: Any = fake_class_registry.maybe_to_fake_obj
has_fake_class: Any = fake_class_registry.has_fake_class
is_torchbind_object: Any = fake_class_registry._is_script_object
traces_with_itself: Any = fake_class_registry.tracing_with_real
_opaque: Any = opaque_object
_renamed = VERSION >= (2, 15)
FollowedSpecs: Any = torch.export._trace._ExportModuleSpecTrackerDict
"""The one type of dictionary that Dynamo lets a module fill while it is followed, and returns."""

is_opaque_value: Any = _opaque.is_custom_class_obj if _renamed else _opaque.is_opaque_value
is_opaque_reference_type: Any = _opaque.is_opaque_symbolic_type if _renamed else _opaque.is_opaque_reference_type
opaque_type_name: Any = _opaque.get_opaque_type_name


def pre_dispatch_tracer() -> Any:
    """The tracer of the trace that sees the next call of a function; None outside of traces and inside operators."""
    for mode in function_modes() if _is_function_mode_enabled() else ():
        if isinstance(mode, PreDispatchTorchFunctionMode):
            return mode.tracer
    return None


BACKENDS_THAT_DECOMPOSE: tuple[Any, ...] = (
    torch.backends.mkldnn,
    torch.backends.nnpack,
    torch.backends.cudnn,
)
"""Backends whose composite operators choose another kernel, and so another graph, when they are on."""

fake_tensor: Any = torch._subclasses.fake_tensor
FAKE_TENSOR_LOGGER = FakeTensorMode.__module__
"""Where torch logs what goes wrong in an operator's rule for shapes, before it raises it."""


@contextmanager
def outside_of_modes() -> Iterator[None]:
    """Compute with tensors as if nothing was being traced."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def collective_remaps() -> tuple[dict[Any, Any], dict[Any, str]]:
    """Return the functional collective for each eager one, and the name of each reduce operation.

    Both are empty until a process group exists: no collective can be called before.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return {}, {}
    from torch.distributed import _functional_collectives as functional

    return functional.traceable_collective_remaps, functional.REDUCE_OP_TO_STR


# --- Dynamo --------------------------------------------------------------------------------------------------

DimConstraint: Any = torch.export.dynamic_shapes._Constraint
IntWrapper: Any = torch.export.dynamic_shapes._IntWrapper
mark_dynamic: Any = torch._dynamo.mark_dynamic
maybe_mark_dynamic: Any = torch._dynamo.maybe_mark_dynamic
compile_frame: Any = torch._dynamo.convert_frame.compile_frame
compile_context: Any = _compile_context
metrics_context: Any = torch._dynamo.utils.get_metrics_context
DynamoRoot: Any = torch._dynamo.functional_export.ModuleToTrace
"""The module that torch puts on top; a line of it stands in every stack trace of a strict capture."""
DynamoRootResult: Any = torch._dynamo.functional_export.ExportTracerOutput
DynamoGraphTransformer: Any = torch._dynamo.functional_export.DynamoGraphTransformer
DYNAMO_FOLDER = os.path.dirname(str(torch._dynamo.__file__))
FIRST_COMPILATION: Any = CompileId(frame_id=0, frame_compile_id=0)
"""torch starts to count anew before each strict capture, and notes this number in the program."""

COPIED_METADATA: list[str] = [key for key in torch.fx.proxy._COPY_META_FIELDS if key != "custom"]
"""Metadata that a node takes over from the one it is made of, but for annotations of the user's."""

STRAY_STATE_IS_PERSISTENT = VERSION < (2, 15)
"""Before 2.15, a constant that Dynamo took for a buffer is still called a persistent one."""


def transforms_captured_objects(sources: dict[int, Any]) -> dict[str, Any]:
    """Return the argument of ``DynamoGraphTransformer`` that lets tensors of closures be attributes; 2.11 has none."""
    return {"graph_inputs": sources} if VERSION >= (2, 13) else {}


def clean_dynamo_root(graph_module: torch.fx.GraphModule) -> None:
    """Take the name of ``DynamoRoot``'s attribute out of all names."""
    torch._dynamo.functional_export.clean_nn_module_stack_and_source_fn(graph_module, True)
    torch._dynamo.functional_export.clean_export_root(graph_module)


def pytree_codegen(in_spec: TreeSpec, out_spec: TreeSpec) -> Any:
    """Return what lets a flat graph be called with structured arguments."""
    names = [f"arg_{index}" for index in range(in_spec.num_children)]
    return torch.fx.graph._PyTreeCodeGen(torch.fx.graph._PyTreeInfo(names, in_spec, out_spec))


# --- TorchScript ---------------------------------------------------------------------------------------------


RecursiveScriptModule: Any = torch.jit._script.RecursiveScriptModule
optimized_execution: Any = torch.jit._fuser.optimized_execution


def torchscript_converter() -> Any:
    """Return torch's converter of TorchScript, a module that takes half a second to import."""
    from torch._export import converter

    return converter


# --- graph passes --------------------------------------------------------------------------------------------

SET_GRAD_ENABLED: Any = torch._C._set_grad_enabled
ENTER_AUTOCAST: Any = torch.amp.autocast_mode._enter_autocast
EXIT_AUTOCAST: Any = torch.amp.autocast_mode._exit_autocast
split_module: Any = _split_module
lazy_graph_modules: Any = torch.fx._lazy_graph_module._use_lazy_graph_module
LazyGraphModule: Any = torch.fx._lazy_graph_module._LazyGraphModule

# --- emitting ------------------------------------------------------------------------------------------------


class TreeSerializer(NamedTuple):
    """How a container type was registered.

    Attributes:
        name: The name it was registered under, None if without one.
        dump: Its own ``to_dumpable_context``, if it has one.
    """

    name: str | None
    dump: Any


def tree_serializer(kind: Any) -> TreeSerializer | None:
    """How a container type was registered with pytree; None if it was not."""
    registered = pytree.SUPPORTED_SERIALIZED_TYPES.get(kind)
    if registered is None:
        return None
    name = registered.serialized_type_name
    return TreeSerializer(
        None if name == pytree.NO_SERIALIZED_TYPE_NAME_FOUND else name, registered.to_dumpable_context
    )


def constant_function(spec: TreeSpec) -> object:
    """The function, class or autograd function that a tree spec holds for ``flat_apply``; None if it holds none."""
    held = pytree._retrieve_constant(spec) if pytree._is_constant_holder(spec) else None
    return getattr(held, "func", None)


def module_tensors(spec: Any) -> list[str] | None:
    """Names of the tensors of a module that torch took apart; None for what is no module, or took itself apart."""
    context = spec.context
    is_module = isinstance(context, list) and len(context) == 2 and hasattr(context[1], "_proto_cls")
    return context[0] if is_module else None


is_zero_tensor: Any = torch._is_zerotensor
"""Whether a tensor stands for zeros that are nowhere in memory, as derivatives do in forward mode."""


def validate_sparse(tensor: torch.Tensor, parts: list[torch.Tensor]) -> None:
    """Check what a sparse tensor is made of.

    Raises:
        RuntimeError: An index is out of range, or the parts do not fit each other.
    """
    aten = torch.ops.aten
    if tensor.layout is torch.sparse_coo:
        aten._validate_sparse_coo_tensor_args(*parts, tensor.shape, tensor.is_coalesced())
    else:
        aten._validate_sparse_compressed_tensor_args(*parts, tensor.shape, tensor.layout)


def guards_only_as_text(program: torch.export.ExportedProgram) -> list[str]:
    """Guards of a program that its shape environment does not know, as in one that ``torch.export.load`` gave."""
    if not program._guards_code:
        return []
    known = torch.export.exported_program._convert_guards_to_code(program.graph_module)  # type: ignore[no-untyped-call]
    return [guard for guard in program._guards_code if guard not in known]


# --- custom operators ----------------------------------------------------------------------------------------

_REGISTERED_AT = re.compile(r"registered at (.+?\.py):\d+")
_REGISTRARS = (torch.library.__file__, os.path.join(os.path.dirname(torch.__file__), "_library", ""))
"""torch's own code that registers operators for others."""


def custom_op_function(operator: OpOverload) -> Any:
    """The function that ``torch.library.custom_op`` made an operator of, None if it was made otherwise."""
    definition = OPDEFS.get(operator._schema.name)
    return None if definition is None else definition._init_fn


def registration_files(operator: OpOverload) -> list[str]:
    """Python files that register an operator or a kernel of it, in the order in which torch tells them."""
    name = operator._schema.name
    kernel = simple_registry.singleton.find(name).fake_impl.kernel
    told = [
        torch._C._dispatch_dump(f"{name}.{operator._overloadname}".removesuffix(".default")),
        f"registered at {kernel.source}" if kernel else "",
    ]
    files = _REGISTERED_AT.findall("\n".join(told))
    return [file for file in files if not file.startswith(_REGISTRARS)]


def loaded_libraries() -> list[str]:
    """Paths of the libraries that ``torch.ops.load_library`` loaded."""
    return sorted(torch.ops.loaded_libraries)
