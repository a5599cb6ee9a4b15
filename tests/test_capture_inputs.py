"""What may be an input, and what the program says of it: torch's program, or a refusal before anything is traced."""

from __future__ import annotations

import enum
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils import _pytree as pytree

from exporter.capture import capture
from exporter.torch_internals import VERSION
from schema.errors import CaptureError
from tests.capture_cases import Case, Module, both
from tests.capture_refusals import xy
from tests.program_equality import assert_equal_programs

rand = torch.randn


class Color(enum.Enum):
    """An enumeration."""

    RED = 1


PLAIN: dict[str, Any] = {
    "an enum": Color.RED,
    "a size": torch.Size([2, 2]),
    "a size in a dict": {"a": torch.Size([2, 2])},
    "infinity": float("inf"),
    "a huge integer": 2**70,
    "containers of nothing": {"a": [], "b": ()},
    "a generator": torch.Generator(),
    "keys that are no texts": {(1, 2): rand(2), 3: rand(2)},
    "a parameter": torch.nn.Parameter(rand(2)),
    "a tuple with names of torch's": torch.max(rand(3, 3), 0),
    "a tensor without data": rand(3, device="meta"),
}


@pytest.mark.parametrize("what", PLAIN)
def test_a_value_is_an_input_as_in_torch(what):
    if what in ("an enum", "a generator") and VERSION < (2, 13):
        pytest.skip("this torch itself refuses it")
    both(Case(xy(lambda x, y: x * 2), (rand(2), PLAIN[what])))


@pytest.mark.parametrize("value", [torch.float16, torch.device("cpu"), 1j, slice(0, 2), len, {1}], ids=str)
def test_a_value_that_is_no_input_is_refused_with_a_remedy(value):
    with pytest.raises(CaptureError, match="keep it as an attribute of the module") as caught:
        capture(xy(lambda x, y: x), (rand(2), value))
    assert caught.value.loc == ("y",)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_without_sizes_is_refused():
    with pytest.raises(CaptureError, match="nested tensor of the strided layout"):
        capture(xy(lambda x, y: x), (torch.nested.nested_tensor([rand(2), rand(3)]),))


# --- modules -------------------------------------------------------------------------------------------------


class Sharing(torch.nn.Module):
    """Gets one of its own submodules as an argument."""

    def __init__(self, shared: torch.nn.Module) -> None:
        super().__init__()
        self.own = shared

    def forward(self, x, module):
        return module(x) + self.own(x)


def modules() -> dict[str, tuple[torch.nn.Module, tuple[Any, ...]]]:
    linear = torch.nn.Linear(2, 2)
    call = xy(lambda x, y: y(x))
    return {
        "without tensors": (call, (rand(4, 2), torch.nn.ReLU())),
        "with parameters": (xy(lambda x, y: y(x) + y.weight.sum()), (rand(4, 2), linear)),
        "with buffers it changes": (call, (rand(4, 2), torch.nn.BatchNorm1d(2))),
        "in a list": (xy(lambda x, y: y[1](y[0](x))), (rand(4, 2), [linear, torch.nn.ReLU()])),
        "twice": (xy(lambda x, y: y[1](y[0](x))), (rand(4, 2), [linear, linear])),
        "its own": (Sharing(linear), (rand(4, 2), linear)),
    }


@pytest.mark.parametrize("what", modules())
def test_a_module_is_an_input_as_in_torch(what):
    module, args = modules()[what]
    before = {id(tensor) for leaf in pytree.tree_leaves(args) for tensor in getattr(leaf, "parameters", list)()}
    both(Case(module, args))
    assert before == {id(tensor) for leaf in pytree.tree_leaves(args) for tensor in getattr(leaf, "parameters", list)()}
    assert torch.nn.Linear not in pytree.SUPPORTED_NODES


def test_sizes_may_vary_beside_a_module():
    """torch counts the module as one input and its tensors as others, and fails with an AssertionError."""
    shapes = {"x": {0: Dim("n")}, "y": None}
    program = capture(xy(lambda x, y: y(x)), (rand(4, 2), torch.nn.Linear(2, 2)), dynamic_shapes=shapes)
    assert [str(r) for r in program.range_constraints.values()] == ["VR[0, int_oo]"]


# --- tensors without data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_shapes", [False, True])
@pytest.mark.parametrize("fake_weights", [False, True])
def test_fake_tensors_are_examples_as_in_torch(fake_weights, with_shapes):
    shape_env = ShapeEnv(tracked_fakes=[]) if fake_weights else None
    mode = FakeTensorMode(shape_env=shape_env, allow_non_fake_inputs=True)
    module = torch.nn.Linear(3, 3)
    with mode:
        x = rand(4, 3)
        module = torch.nn.Linear(3, 3) if fake_weights else module
    both(Case(module, (x,), shapes={"input": {0: Dim("n")}} if with_shapes else None))


# --- wrapper subclasses --------------------------------------------------------------------------------------


def two() -> TwoTensor:
    return TwoTensor(rand(4, 3), rand(4, 3))


class Wrapped(torch.nn.Module):
    """Has a parameter that is a wrapper subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.p = torch.nn.Parameter(two())

    def forward(self, x):
        return x + self.p.a


SUBCLASSES: dict[str, tuple[torch.nn.Module, tuple[Any, ...], Any]] = {
    "read": (xy(lambda x, y: x.a + x.b), (two(),), None),
    "read and not used": (xy(lambda x, y: (x.a, x * 2)[1]), (two(),), None),
    "returned": (xy(lambda x, y: x.a), (two(),), None),
    "of a result": (xy(lambda x, y: (x * 2).a), (two(),), None),
    "nested": (xy(lambda x, y: x.a.a + x.b.b), (TwoTensor(two(), two()),), None),
    "of two inputs": (xy(lambda x, y: x.a + y.b), (two(), two()), None),
    "of a parameter": (Wrapped(), (rand(4, 3),), None),
    "of varying size": (xy(lambda x, y: x.a + 1), (two(),), {"x": {0: Dim.AUTO}}),
}


@pytest.mark.parametrize("what", SUBCLASSES)
def test_inner_tensors_of_a_subclass_are_read_as_in_torch(what):
    module, args, shapes = SUBCLASSES[what]
    both(Case(module, args, shapes=shapes))
    with pytest.raises(CaptureError):
        capture(xy(lambda x, y: x.a.no_such_thing()), (two(),))
    assert TwoTensor.__getattribute__ is object.__getattribute__


def test_a_size_of_a_subclass_has_no_name():
    """torch takes the Dim and fixes the size without a word."""
    with pytest.raises(CaptureError, match=r"cannot vary under a name.*use Dim\.DYNAMIC or Dim\.AUTO"):
        capture(xy(lambda x, y: x), (two(),), dynamic_shapes={"x": {0: Dim("n")}})


# --- gradients -----------------------------------------------------------------------------------------------


def half_frozen() -> torch.nn.Module:
    linear = torch.nn.Linear(3, 3)
    linear.weight.requires_grad_(False)
    return linear


class Gradients(torch.nn.Module):
    """Has a buffer and a constant that require gradients."""

    def __init__(self, *, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("buffer", rand(3).requires_grad_(), persistent=persistent)
        self.constant = rand(3).requires_grad_()

    def forward(self, x):
        return x * self.buffer + self.constant


def leaf() -> torch.Tensor:
    return rand(4, 3).requires_grad_()


with torch.inference_mode():
    made_in_inference, module_of_inference = rand(4, 3), torch.nn.Linear(3, 3)

GRADIENTS: dict[str, tuple[torch.nn.Module, torch.Tensor]] = {
    "an input": (xy(lambda x, y: (x.detach(), x.requires_grad, x * 2)), leaf()),
    "no leaf": (xy(lambda x, y: x * 2 if x.is_leaf else x), leaf() * 2),
    "a view": (xy(lambda x, y: x * 2), leaf()[1:]),
    "asked for in forward": (xy(lambda x, y: x.requires_grad_() * 2), rand(3)),
    "frozen parameters": (torch.nn.Linear(3, 3).requires_grad_(False), rand(4, 3)),
    "one frozen parameter": (half_frozen(), leaf()),
    "a buffer": (Gradients(persistent=True), rand(4, 3)),
    "a buffer that is not stored": (Gradients(persistent=False), rand(4, 3)),
    "an inference tensor": (xy(lambda x, y: x * 2), made_in_inference),
}


@pytest.mark.parametrize("what", GRADIENTS)
def test_what_requires_a_gradient_requires_it_in_the_program(what):
    module, x = GRADIENTS[what]
    both(Case(module, (x,)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_capture_under_another_grad_mode(mode):
    with mode():
        both(Case(torch.nn.Linear(3, 3), (rand(4, 3),)))


def test_parameters_of_inference_mode_are_refused():
    with pytest.raises(CaptureError, match="made in inference mode") as caught:
        capture(module_of_inference, (rand(4, 3),))
    assert caught.value.loc == ("weight",)


# --- metadata ------------------------------------------------------------------------------------------------


def test_annotations_of_nodes_are_kept():
    def forward(self, x):
        with torch.fx.traceback.annotate({"part": "encoder"}):
            return x * 2

    module, args = Module(forward), (rand(3),)
    with torch.fx.traceback.preserve_node_meta():
        program = capture(module, args)
    with torch.fx.traceback.preserve_node_meta():
        assert_equal_programs(program, torch.export.export(module, args))
    [node] = program.graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Tensor)
    assert node.meta["custom"]["part"] == "encoder"


def test_names_of_arguments_are_kept_in_the_order_of_the_call():
    class Many(torch.nn.Module):
        def forward(self, a, /, b, *c, d, e=None, **f):
            return a + b + sum(c) + d + f["h"]

    program = both(Case(Many(), (rand(2),) * 4, {"h": rand(2), "d": rand(2)}))
    assert program.module_call_graph[0].signature.forward_arg_names == ["a", "b", "c_0", "c_1", "h", "d"]
