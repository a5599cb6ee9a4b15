"""A capture, also one that fails, leaves module, arguments and torch as they were."""

from __future__ import annotations

import builtins
import gc
import math
import warnings
from typing import Any

import pytest
import torch
from torch.export import Dim

from exporter.capture import capture
from schema.errors import CaptureError
from tests.capture_cases import CASES
from tests.capture_refusals import ones
from tests.program_equality import assert_equal_programs


def everything(module: torch.nn.Module) -> Any:
    """All that a capture might change about a module, by identity."""
    found = []
    for name, owner in module.named_modules():
        for key, value in vars(owner).items():
            items = list(value.items()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
            found.append(
                (name, key, id(value), [id(item[1]) if isinstance(item, tuple) else id(item) for item in items])
            )
    return found


def surroundings() -> Any:
    from torch.nn.modules import module as registry

    return (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.compiler.is_compiling(),
        torch.compiler.is_exporting(),
        [torch._C._get_mkldnn_enabled(), torch._C._get_nnpack_enabled(), torch._C._get_cudnn_enabled()],
        torch.overrides._get_current_function_mode_stack(),
        torch.utils._python_dispatch._get_current_dispatch_mode_stack(),
        len(registry._global_buffer_registration_hooks),
        torch._guards.TracingContext.try_get(),
        builtins.max,
        builtins.min,
        math.pow,
        torch.fx.experimental.proxy_tensor._ModuleStackTracer,
        torch.fx.experimental.proxy_tensor.TorchFunctionMetadataMode,
        torch.fx.experimental.proxy_tensor._should_save_eager_input_vals,
        dict(vars(torch.fx.experimental.sym_node.SymNode)),
        gc.isenabled(),
        torch._dynamo.config.specialize_int,
        torch._dynamo.config.capture_scalar_outputs,
        torch.get_rng_state().tolist(),
    )


class Marking(torch.nn.Module):
    """Assigns whatever a module can assign, and then may fail."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.linear = torch.nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(3))
        self.calls = 0
        self.cache = {"list": [1, 2], "none": None}
        self.names = {"a", "b"}

    def forward(self, x):
        y = self.linear(x)
        self.seen = self.seen + 1
        self.calls += 1
        self.cache["list"].append(y)
        self.cache["new"] = y
        self.names.add("c")
        self.added = y
        self.later = torch.nn.ReLU()
        self.register_buffer("extra", y.detach())
        self.linear.training = False
        torch._C._set_grad_enabled(False)
        if self.fails:
            raise ValueError("after all that")
        return y + torch.rand(3)


@pytest.mark.parametrize("fails", [False, True])
def test_module_inputs_and_torch_are_as_before(fails):
    module, x = Marking(fails=fails), torch.randn(4, 3, requires_grad=True)
    before = (
        everything(module),
        surroundings(),
        dict(vars(x)),
        x._version,
        {k: v.clone() for k, v in module.state_dict().items()},
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            capture(module, (x,), dynamic_shapes={"x": {0: Dim.AUTO}})
    except CaptureError:
        assert fails
    after = everything(module), surroundings(), dict(vars(x)), x._version
    assert after == before[:4]
    assert all(torch.equal(v, before[4][k]) for k, v in module.state_dict().items())
    assert module.cache == {"list": [1, 2], "none": None}
    assert module.names == {"a", "b"}


def test_an_assigned_tensor_is_warned_of():
    with pytest.warns(UserWarning, match=r"self\.0\.last, self\.0\.seen\[0\]|self\.0\.seen\[0\], self\.0\.last"):
        capture(torch.nn.Sequential(CASES["attributes_changed_by_forward"]().module), (ones(2),))


def test_input_containers_are_not_changed():
    items = {"y": ones(2)}
    x = ones(2)
    case = CASES["inputs_changed_in_place"]()
    capture(case.module, (x, items))
    assert x.tolist() == [1, 1]
    assert items["y"].tolist() == [1, 1]


def test_a_capture_inside_a_fake_mode():
    from torch._subclasses.fake_tensor import FakeTensorMode

    module, x = torch.nn.Linear(2, 2), ones(1, 2)
    with FakeTensorMode():
        program = capture(module, (x,))
    assert_equal_programs(program, torch.export.export(module, (x,)))


def test_a_function_mode_of_the_user_sees_what_torch_lets_it_see():
    class Noting(torch.overrides.TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.read: set[str] = set()

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.read.add(str(getattr(func, "__self__", func)))
            return func(*args, **(kwargs or {}))

    module, args = torch.nn.Linear(3, 2), (ones(4, 3),)
    with Noting() as noting:
        capture(module, args)
    with Noting() as noting_torch:
        torch.export.export(module, args)
    assert str(torch.Tensor.layout) in noting.read
    assert noting.read <= noting_torch.read


@torch.no_grad()
def _suspended_without_gradients():
    yield


def _drop_a_suspended_generator(_: object) -> None:
    generator = _suspended_without_gradients()
    next(generator)
    cycle = [generator]
    cycle.append(cycle)


def test_garbage_is_not_closed_while_a_capture_records():
    class Allocates(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Identity()

        def forward(self, x):
            for _ in range(9):
                x = self.inner(x)
                kept = [[] for _ in range(2 * gc.get_threshold()[0])]  # the collector would run
            return x * len(kept)

    module, x = Allocates(), torch.randn(2)
    expected = capture(module, (x,))
    assert_equal_programs(capture(module, (x,), on_event=_drop_a_suspended_generator), expected)
