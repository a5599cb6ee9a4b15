"""Constants of a program: tensors and objects that are neither parameters nor buffers, and their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import exporter
from exporter.capture import capture
from exporter.torch_internals import VERSION
from schema.errors import CaptureError, UnsupportedError
from tests.capture_cases import Case, Module, both
from tests.program_equality import assert_equal_programs

nn = torch.nn


# --- tensors --------------------------------------------------------------------------------------------------


def several_names() -> nn.Module:
    def forward(self, x):
        return x + self.first + self.second + self.inner.third

    shared = torch.ones(3)
    return Module(forward, first=shared, second=shared, inner=Module(None, third=shared))


def names_that_collide() -> nn.Module:
    def forward(self, c_a_b, a_b):
        literal = torch.tensor([1.0, 2.0, 3.0])
        return c_a_b + self.a_b + self.a.b + a_b + literal + torch.tensor([4.0, 5.0, 6.0])

    return Module(
        forward,
        a_b=torch.ones(3),
        a=Module(None, b=torch.zeros(3)),
        buffers={"lifted_tensor_0": (torch.ones(3), True)},
    )


def below_a_submodule() -> nn.Module:
    class Adds(nn.Module):
        def forward(self, x):
            return x + torch.tensor([1.0, 2.0, 3.0]) * SOMEWHERE_ELSE

    return nn.Sequential(Adds(), Adds())


def in_a_branch() -> nn.Module:
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x + self.offset, lambda x: x - self.offset, (x,))

    return Module(forward, offset=torch.ones(3))


SOMEWHERE_ELSE = torch.arange(3.0)


@pytest.mark.parametrize("make", [several_names, names_that_collide, below_a_submodule, in_a_branch])
def test_constant_tensors_are_named_as_torch_names_them(make):
    module = make()
    args = (torch.ones(3),) * (2 if make is names_that_collide else 1)
    program = both(Case(module, args))
    args = tuple(torch.clone(arg) for arg in args)
    torch.testing.assert_close(program.module()(*args), module(*args))


def test_a_literal_does_not_take_the_name_of_an_attribute():
    """torch files both under one name, and its program cannot be made a module."""
    module = Module(lambda self, x: x + self.lifted_tensor_0 + torch.tensor([2.0, 3.0]), lifted_tensor_0=torch.ones(2))
    program = capture(module, (torch.zeros(2),))
    assert list(program.constants) == ["lifted_tensor_0", "lifted_tensor_1"]
    assert program.module()(torch.zeros(2)).tolist() == [3, 4]


# --- opaque objects -------------------------------------------------------------------------------------------

_LIBRARY = torch.library.Library("test_constants", "FRAGMENT")


def _opaque(kind: type, typ: str) -> type:
    from torch._library import opaque_object

    if VERSION >= (2, 15):
        opaque_object.register_custom_class(kind, typ={"reference": "symbolic", "value": "constant"}[typ])
    else:
        opaque_object.register_opaque_type(kind, typ=typ)
    name = f"times_{typ}"
    _LIBRARY.define(f"{name}({kind.__module__}.{kind.__qualname__} by, Tensor x) -> Tensor")
    _LIBRARY.impl(name, lambda by, x: x * by.factor, "CompositeExplicitAutograd")
    torch.library.register_fake(f"test_constants::{name}", lambda by, x: torch.empty_like(x), lib=_LIBRARY)
    return kind


def _base() -> type:
    if VERSION >= (2, 15):
        from torch._custom_class_base import CustomClassBase

        return CustomClassBase
    from torch._opaque_base import OpaqueBase

    return OpaqueBase


class Reference(_base()):
    def __init__(self, factor: int) -> None:
        self.factor = factor


class Value(_base()):
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and self.factor == other.factor

    def __hash__(self) -> int:
        return hash(self.factor)

    def __fx_repr__(self) -> Any:
        return f"Value({self.factor})", {"Value": Value}


_opaque(Reference, "reference")
_opaque(Value, "value")
times = torch.ops.test_constants


def holds_references() -> Case:
    def forward(self, x):
        return times.times_reference(self.one, x) + times.times_reference(self.same, x)

    one = Reference(3)
    return Case(Module(forward, one=one, same=one), (torch.ones(2),))


def takes_a_reference() -> Case:
    return Case(Module(lambda self, by, x: times.times_reference(by, x)), (Reference(4), torch.ones(2)))


def holds_a_value() -> Case:
    return Case(Module(lambda self, x: times.times_value(self.by, x), by=Value(5)), (torch.ones(2),))


def takes_a_value() -> Case:
    return Case(Module(lambda self, by, x: times.times_value(by, x)), (Value(6), torch.ones(2)))


@pytest.mark.parametrize("make", [holds_references, takes_a_reference, holds_a_value, takes_a_value])
def test_opaque_objects_are_captured_and_not_saved(make, tmp_path):
    case = make()
    if VERSION < (2, 13) and make is holds_references:
        pytest.skip("this torch itself cannot run a program that holds an opaque object")
    program = both(case)
    torch.testing.assert_close(program.module()(*case.args), case.module(*case.args))
    with pytest.raises(UnsupportedError, match="cannot be stored"):
        exporter.save(program, tmp_path / "program.safetensors")
    assert not list(tmp_path.iterdir())


# --- script objects -------------------------------------------------------------------------------------------


@pytest.fixture
def script() -> Any:
    """Classes and operators that torch ships for its own tests; not every wheel has them."""
    if not (Path(torch.__file__).parent / "lib" / "libtorchbind_test.so").exists():
        pytest.skip("this torch comes without its test library of script classes")
    from torch.testing._internal import torchbind_impls

    torchbind_impls.init_torchbind_implementations()
    return torch.classes._TorchScriptTesting


def holds_objects(script: Any) -> Case:
    def forward(self, x):
        ops = torch.ops._TorchScriptTesting
        return x + self.one.add_tensor(x) + ops.takes_foo(self.same, x) + ops.takes_foo(self.inner.other, x)

    one = script._Foo(10, 20)
    return Case(Module(forward, one=one, same=one, inner=Module(None, other=script._Foo(1, 2))), (torch.ones(2),))


def takes_an_object(script: Any) -> Case:
    forward = lambda self, x, foo: x + torch.ops._TorchScriptTesting.takes_foo(foo, x)  # noqa: E731
    return Case(Module(forward), (torch.ones(2),), {"foo": script._Foo(3, 4)})


def returns_its_object(script: Any) -> Case:
    return Case(Module(lambda self, x, foo: (x + 1, foo)), (torch.ones(2), script._Foo(3, 4)))


def changes_its_object(script: Any) -> Case:
    def forward(self, x):
        ops = torch.ops._TorchScriptTesting
        ops.queue_push(self.queue, x.cos())
        return ops.queue_pop(self.queue) + ops.queue_size(self.queue)

    return Case(Module(forward, queue=script._TensorQueue(torch.zeros(0))), (torch.ones(2),))


@pytest.mark.parametrize("make", [holds_objects, takes_an_object, returns_its_object, changes_its_object])
def test_script_objects_are_captured_and_not_saved(make, script, tmp_path):
    case = make(script)
    before = dict(vars(case.module))
    program = both(case)
    assert dict(vars(case.module)) == before
    actual, expected = program.module()(*case.args, **case.kwargs), case.module(*case.args, **case.kwargs)
    torch.testing.assert_close(*(list(values)[:1] for values in (actual, expected)))
    with pytest.raises(UnsupportedError, match=r"_Foo|_TensorQueue"):
        exporter.save(program, tmp_path / "program.safetensors")


@pytest.mark.parametrize("make", [takes_an_object, returns_its_object, holds_objects])
def test_script_objects_are_captured_in_strict_mode(make, script):
    """torch's own program of a module that holds one cannot be run: it holds the fakes of the trace."""
    case = make(script)
    program = capture(case.module, case.args, case.kwargs, strict=True)
    if make is takes_an_object:
        assert_equal_programs(program, torch.export.export(case.module, case.args, case.kwargs, strict=True))
    actual, expected = program.module()(*case.args, **case.kwargs), case.module(*case.args, **case.kwargs)
    torch.testing.assert_close(*(list(values)[:1] for values in (actual, expected)))


def test_an_object_of_the_module_is_not_taken_for_an_input_of_its_name(script):
    """torch files both under one key, and its program computes with the wrong one."""

    def forward(self, x, foo):
        ops = torch.ops._TorchScriptTesting
        return ops.takes_foo(self.foo, x) * 100 + ops.takes_foo(foo, x)

    module, foo = Module(forward, foo=script._Foo(1, 2)), script._Foo(3, 4)
    program = capture(module, (torch.ones(1), foo))
    assert program.constants["foo"] is module.foo
    assert program.module()(torch.ones(1), foo).item() == module(torch.ones(1), foo).item() == 307


def refused(module: nn.Module, *args: Any) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        capture(module, args)
    assert caught.value.stage == "bind"
    return caught.value


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_an_object_without_a_fake_is_refused_by_name():
    quantized = nn.Sequential(nn.ReLU(), torch.ao.nn.quantized.Linear(2, 2))
    error = refused(quantized, torch.ones(1, 2))
    assert error.loc == ("1._packed_params._packed_params",)
    assert 'register_fake_class("quantized::LinearPackedParamsBase")' in error.remedy


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_an_object_that_cannot_be_taken_apart_is_refused():
    name = "quantized::LinearPackedParamsBase"
    torch._library.register_fake_class(name, type("Fake", (), {"__obj_unflatten__": classmethod(lambda cls, _: cls())}))
    try:
        quantized = torch.ao.nn.quantized.Linear(2, 2)
        error = refused(quantized, torch.ones(1, 2))
        packed = quantized._packed_params._packed_params
        assert "__obj_flatten__" in refused(Module(lambda self, x: 1), {"packed": packed}).remedy
    finally:
        torch._library.fake_class_registry.deregister_fake_class(name)
    assert "__obj_flatten__" in error.remedy
