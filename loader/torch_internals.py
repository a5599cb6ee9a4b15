"""Every private torch symbol that ``loader`` uses, and everything that differs between torch versions.

No other file of this package names a private torch module. The symbols that import ``torch._dynamo`` or sympy, which
takes most of a second, are handed out by functions, so that what does not need them does not pay for them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch._functorch import predispatch as predispatch
from torch._ops import HigherOrderOperator as HigherOrderOperator, OpOverload as OpOverload
from torch.utils import _pytree
from torch.utils._pytree import SequenceKey as SequenceKey, TreeSpec as TreeSpec

if TYPE_CHECKING:
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

pytree = _pytree


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


def fake_mode() -> Any:
    """A mode for values of tensors that have no memory, with a shape environment of its own."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    shape_env = ShapeEnv(assume_static_by_default=True)
    return FakeTensorMode(allow_fallback_kernels=False, allow_non_fake_inputs=True, shape_env=shape_env)


def fake_tensor(mode: Any, shape: Any, strides: Any, dtype: torch.dtype, device: torch.device, grad: bool) -> Any:
    """A tensor without memory."""
    with mode:
        return torch.empty_strided(shape, strides, dtype=dtype, device=device, requires_grad=grad)


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
    from torch._export import verifier

    with suppress(KeyError):
        return verifier.load_verifier(dialect)
    return None


def exported_program(**parts: Any) -> torch.export.ExportedProgram:
    """Put a program together; torch verifies it."""
    return torch.export.ExportedProgram(**parts)


def call_entry(fqn: str, signature: Any) -> Any:
    """One entry of a module call graph."""
    from torch.export.exported_program import ModuleCallEntry

    return ModuleCallEntry(fqn=fqn, signature=signature)


def call_signature(**parts: Any) -> Any:
    """The signature of one entry of a module call graph."""
    from torch.export.exported_program import ModuleCallSignature

    return ModuleCallSignature(**parts)


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
