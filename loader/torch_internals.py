"""Every private torch symbol that ``loader`` uses, and everything that differs between torch versions.

No other file of this package names a private torch module. The symbols that import ``torch._dynamo`` or sympy, which
takes most of a second, are handed out by functions, so that what does not need them does not pay for them.
"""

from __future__ import annotations

import dataclasses
import dis
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch._export import verifier
from torch._functorch import predispatch as predispatch
from torch._library import fake_class_registry
from torch._ops import HigherOrderOperator as HigherOrderOperator, OpOverload as OpOverload
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor, FakeTensorMode as FakeTensorMode
from torch.export import ExportedProgram
from torch.export.exported_program import (
    ModuleCallEntry as ModuleCallEntry,
    ModuleCallSignature as ModuleCallSignature,
    _convert_guards_to_code,
)
from torch.fx import _lazy_graph_module
from torch.utils import _python_dispatch, _pytree
from torch.utils._pytree import SequenceKey as SequenceKey, TreeSpec as TreeSpec

if TYPE_CHECKING:
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

pytree = _pytree
_guards_code: Callable[[torch.fx.GraphModule], list[str]] = _convert_guards_to_code
LazyGraphModule = _lazy_graph_module._LazyGraphModule
NodeBase = torch._C._NodeBase
dispatch_keys = torch._C._dispatch_keys
lazy_clone = torch._lazy_clone
warn_of_data_access = torch._C._set_warn_deprecated_on_mutable_data_ptr


@contextmanager
def state_restored() -> Iterator[None]:
    """Leave torch's dispatch modes as they were, also where a load is cancelled.

    An exception from outside, as Ctrl-C is, may come just as a mode is entered or left, and ``with`` then leaves it on.
    """
    depth, lifting = len(_python_dispatch._get_current_dispatch_mode_stack()), torch._C._only_lift_cpu_tensors()
    flags = {name: value for name, value in vars(_python_dispatch).items() if name.startswith("_is_in_")}
    try:
        yield
    except BaseException:
        while len(_python_dispatch._get_current_dispatch_mode_stack()) > depth:
            _python_dispatch._pop_mode()
        torch._C._set_only_lift_cpu_tensors(lifting)
        vars(_python_dispatch).update(flags)
        raise


def key_types() -> dict[str, Any]:
    """Constructors of the steps that lead from a value to an unbacked symbol in it, by our name."""
    from torch.fx.experimental import symbolic_shapes

    return {
        "method": symbolic_shapes.CallMethodKey,
        "index": SequenceKey,
        "divide": symbolic_shapes.DivideByKey,
        "attribute": symbolic_shapes.InnerTensorKey,
        "convert": lambda _key: symbolic_shapes.ConvertIntKey(),
    }


def source_types() -> Any:
    """The module that holds the classes which describe where a value comes from."""
    import torch._dynamo.source

    return torch._dynamo.source


def symbolic_functions() -> tuple[Any, Any]:
    """The module of torch's symbolic functions, and its integer infinity."""
    from torch.utils._sympy import functions
    from torch.utils._sympy.numbers import int_oo

    return functions, int_oo


def value_range(lower: Any, upper: Any) -> Any:
    """A closed range of a symbol or expression."""
    from torch.utils._sympy.value_ranges import ValueRanges

    return ValueRanges(lower, upper)


def new_shape_env() -> ShapeEnv:
    """An environment for the symbols of one program."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    return ShapeEnv(assume_static_by_default=True)


def fake_sparse(
    mode: Any, shape: list[int], dense: int, block: list[int], indices: torch.dtype, coalesced: bool, **kind: Any
) -> Any:
    """A sparse tensor without memory, and without elements."""
    aten = torch.ops.aten
    with mode:
        if kind["layout"] is torch.sparse_coo:
            made = aten._sparse_coo_tensor_with_dims(len(shape) - dense, dense, shape, **kind)
            return made._coalesced_(coalesced)
        return aten._sparse_compressed_tensor_with_dims(0, dense, shape, block, indices, **kind)


def set_lazy_bits(tensor: torch.Tensor, *, conjugate: bool, negative: bool) -> None:
    """Say that a tensor's elements are the conjugates, or the negatives, of those in memory."""
    if conjugate or negative:
        torch._C._set_conj(tensor, conjugate)
        torch._C._set_neg(tensor, negative)


def is_wrapper_class(kind: type) -> bool:
    """Whether a class is one of tensors that are made of other tensors."""
    return issubclass(kind, torch.Tensor) and hasattr(kind, "__tensor_unflatten__") and kind is not torch.Tensor


def register_operators(namespace: str) -> None:
    """Have torch register operators of its own that it leaves away until they are used, if it has them."""
    with suppress(ModuleNotFoundError):
        match namespace:
            case "flex_lib":
                import torch._dynamo._trace_wrapped_higher_order_op
            case "quantized_decomposed":
                import torch.ao.quantization.fx._decomposed
            case "torch_attn":
                import torch.nn.attention.varlen
            case "torch_nn":
                import torch.nn.modules.linear_cross_entropy  # noqa: F401


def is_autograd_function(kind: type) -> bool:
    """Whether a class is an autograd function."""
    return issubclass(kind, torch.autograd.Function)


def function_spec(function: Any) -> TreeSpec:
    """The tree spec in which ``flat_apply`` takes what it is to call."""
    from torch._higher_order_ops.flat_apply import func_to_graphable

    return func_to_graphable(function)[1]


def autograd_function_spec() -> TreeSpec:
    """The same of what calls an autograd function by name."""
    from torch.export.custom_ops import _call_custom_autograd_function_in_pre_dispatch

    return function_spec(_call_custom_autograd_function_in_pre_dispatch)


def is_record_class(kind: type) -> bool:
    """Whether a class is a dataclass or one of named tuples, whose constructors take their fields by name."""
    return dataclasses.is_dataclass(kind) or bool(pytree.is_namedtuple_class(kind))


def set_backed_value(shape_env: ShapeEnv, symbol: Any, value: int) -> None:
    """Tell a shape environment the example value of a symbol; 2.11 knows the method by another name."""
    add = getattr(shape_env, "add_backed_var_to_val", None) or shape_env.add_var_to_val
    add(symbol, value)


def unbacked_numbers(shape_env: ShapeEnv, name: str) -> None:
    """See to it that no new unbacked symbol gets the name of one that the program has."""
    for prefix, counter in (("zuf", "unbacked_symfloat_counter"), ("u", "unbacked_symint_counter")):
        number = name.removeprefix(prefix)
        if name.startswith(prefix) and number.isdigit() and isinstance(getattr(shape_env, counter, None), int):
            setattr(shape_env, counter, max(getattr(shape_env, counter), int(number) + 1))


def captured_traceback() -> Any:
    """Where a symbol comes from, as shape environments want to be told it: here."""
    from torch.utils._traceback import CapturedTraceback

    return CapturedTraceback.extract(skip=1)  # type: ignore[no-untyped-call]


def symbolic(number: Any, expression: Any, shape_env: ShapeEnv) -> Any:
    """A number as a symbolic one; a shape environment makes plain ones of constants, and a trace symbolic ones."""
    from torch.fx.experimental.sym_node import SymNode

    wrap: Any = {int: torch.SymInt, float: torch.SymFloat}.get(type(number))
    return wrap(SymNode(expression, shape_env, type(number), number)) if wrap else number


def shape_guard(expression: Any) -> Any:
    """A condition that a shape environment has learnt from elsewhere."""
    from torch._guards import ShapeGuard, SLoc

    return ShapeGuard(expression, SLoc("program-archive", None), False)


def load_verifier(dialect: str) -> Any:
    """Torch's verifier for a dialect, None if it has none by that name."""
    with suppress(KeyError):
        return verifier.load_verifier(dialect)
    return None


def verify_borders(program: torch.export.ExportedProgram) -> None:
    """Torch's own check that signature and module call graph speak of the graph's nodes and the program's tensors."""
    verifier._verify_exported_program_module_call_graph(program)
    verifier._verify_exported_program_signature(program)


_PROGRAM_ATTRIBUTES = frozenset(
    {
        *("_graph_module", "_graph_signature", "_state_dict", "_range_constraints", "_module_call_graph"),
        *("_example_inputs", "_constants", "_verifiers", "_guards_code", "_codegen"),
    }
)


def _sets_what_we_know() -> bool:
    """Whether the constructor of programs sets the attributes that :func:`exported_program` sets, and no other."""
    stores = [each.argval for each in dis.get_instructions(ExportedProgram.__init__) if each.opname == "STORE_ATTR"]
    return frozenset(stores) == _PROGRAM_ATTRIBUTES


CAN_ASSEMBLE = _sets_what_we_know()
"""Whether a program can be put together from its parts; else torch's constructor generates code, and verifies again."""


def exported_program(
    *,
    root: torch.nn.Module,
    graph: torch.fx.Graph,
    verifiers: list[Any],
    guarded: bool,
    **parts: Any,
) -> torch.export.ExportedProgram:
    """Put a program together.

    Args:
        root: The module whose attributes the graph reads.
        graph: The graph.
        verifiers: What torch checks it with when it is changed.
        guarded: Whether it has guards. torch walks over the values of all nodes to find out.
        parts: The other arguments of torch's constructor, by name.
    """
    if not CAN_ASSEMBLE:
        return ExportedProgram(root=root, graph=graph, verifiers=verifiers, **parts)
    program = ExportedProgram.__new__(ExportedProgram)
    program._graph_module = LazyGraphModule(root, graph)
    for name, value in parts.items():
        setattr(program, f"_{name}", value)
    program._verifiers = verifiers
    program._guards_code = _guards_code(program._graph_module) if guarded else []
    return program


def qualified_class_name(name: str) -> str:
    """The name that torch gives the class of script objects which Python reaches by a name."""
    return f"__torch__.{name}"


def script_class_name(made: Any) -> str:
    """The name by which Python reaches the class of a script object."""
    return str(made._type().qualified_name()).removeprefix("__torch__.")


def has_script_class(name: str) -> bool:
    """Whether a library that this process has loaded registers a class of script objects."""
    namespace, short = name.split(".")[-2:]
    try:
        torch._C._get_custom_class_python_wrapper(namespace, short)
    except RuntimeError:
        return False
    return True


def make_script_object(name: str, state: Any) -> torch.ScriptObject:
    """A script object of its state; torch holds the state against the type that the class says its state has."""
    made: Any = torch.ScriptObject.__new__(torch.ScriptObject)
    made.__setstate__((state, qualified_class_name(name)))
    return made  # type: ignore[no-any-return]


def state_of(value: Any) -> Any:
    """The state of a script object whose class says what it is, and of anything else itself."""
    made: Any = value
    has_state = isinstance(value, torch.ScriptObject) and "__getstate__" in made._method_names()
    return made.__getstate__() if has_state else value


def fake_script_object(mode: FakeTensorMode, made: torch.ScriptObject) -> Any:
    """What stands for a script object in a trace; None if its class has no fake, or is traced as it is."""
    if not fake_class_registry.has_fake_class(qualified_class_name(script_class_name(made))):
        return None
    fake = fake_class_registry.maybe_to_fake_obj(mode, made)
    return fake if isinstance(fake, fake_class_registry.FakeScriptObject) else None


def find_registered(name: str) -> Any:
    """The container class that was registered with pytree under a name, or has it; None if there is none."""
    known = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(name)
    if known is not None and name != pytree.NO_SERIALIZED_TYPE_NAME_FOUND:
        return known
    for cls in pytree.SUPPORTED_NODES:
        if isinstance(cls, type) and f"{cls.__module__}.{cls.__qualname__}" == name:
            return cls
    return None


def from_dumped_context(cls: Any) -> Any:
    """The function that a container class registered to read its own stored contexts; None if it has none."""
    registered = pytree.SUPPORTED_SERIALIZED_TYPES.get(cls)
    return registered.from_dumpable_context if registered else None


def forget_registered_name(name: str) -> None:
    """Free a name, so that the class that really has it can still be registered under it."""
    pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.pop(name, None)
