"""Constants of a program: tensors and objects that are neither parameters nor buffers, and their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import exporter
from exporter.capture import capture
from exporter.torch_internals import VERSION
from schema.errors import UnsupportedError
from tests.capture_cases import Case, Module, both

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
