"""Modules with script objects, of classes that torch ships for its own tests; not every wheel has them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.testing._internal import torchbind_impls

from tests.capture_cases import Case, Module

NAMESPACE = "torch.classes._TorchScriptTesting"
ADMITTED: dict[str, Any] = {"allow_ops": ["_TorchScriptTesting"], "allow_classes": [NAMESPACE]}


def classes() -> Any:
    """The classes, after their library was loaded; a test that asks is skipped where there is none."""
    try:
        torchbind_impls.init_torchbind_implementations()
    except OSError:
        pytest.skip("this torch comes without its test library of script classes")
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


def calls_methods(script: Any) -> Case:
    """What comes out of the queue went in before, and what goes in comes out of the next call."""

    def forward(self, x, taken):
        self.queue.push(x.cos())
        return self.queue.pop() + taken["foo"].add_tensor(x)

    queue = script._TensorQueue(torch.zeros(2))
    queue.push(torch.full((2,), 7.0))
    return Case(Module(forward, queue=queue), (torch.ones(2),), {"taken": {"foo": script._Foo(3, 4)}})


def shares_memory(script: Any) -> Case:
    """A parameter and an object have one memory, between two other constants."""

    def forward(self, x):
        return (x + self.first) * self.weight + self.holder.get() + self.last

    weight = torch.nn.Parameter(torch.arange(2.0))
    first, last = torch.ones(2), torch.zeros(2)
    module = Module(forward, weight=weight, first=first, holder=script._ContainsTensor(weight.detach()), last=last)
    return Case(module, (torch.ones(2),))


CASES = [holds_objects, takes_an_object, returns_its_object, changes_its_object, calls_methods, shares_memory]


def run(call: Any, case: Case) -> list[torch.Tensor]:
    """The first output of a module, called with copies of the example."""
    args, kwargs = copy.deepcopy((case.args, case.kwargs))
    output = call(*args, **kwargs)
    return [output[0] if isinstance(output, tuple) else output]
