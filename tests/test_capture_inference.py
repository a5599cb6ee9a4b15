"""``exporter.capture(ir="inference")``: functional graphs equal to torch's, and joint graphs of forward and backward.

The oracle is what torch reaches by private functions only: ``torch.export._trace._export(pre_dispatch=False)``, and
``_decompose_exported_program`` with a loss.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch.export import Dim
from torch.export._trace import _export
from torch.export.exported_program import _decompose_exported_program
from torch.export.graph_signature import OutputKind

import exporter
import loader
from exporter.capture import capture
from exporter.torch_internals import SCALAR_TENSOR_INDEXES_SELECT
from schema.errors import CaptureError
from tests.capture_cases import CASES, Module
from tests.databases.judging import assert_survives
from tests.models import cases
from tests.program_equality import assert_equal_programs, same

REFUSED_BY_TORCH = {
    "dynamic_integers": "it returns the placeholder of a fixed number, which its verifier refuses",
    "scalars": "the same",
    "wrapper_subclasses": "IndexError",
}
LOST_BY_TORCH = {"buffer_assigned_anew": "the new values of buffers that forward assigns"}


def lowered(module: torch.nn.Module, *args: Any, **options: Any) -> torch.export.ExportedProgram:
    return capture(module, args, ir="inference", **options)


def outputs(program: torch.export.ExportedProgram) -> list[tuple[str, str | None]]:
    return [(spec.kind.name, spec.target) for spec in program.graph_signature.output_specs]


def assert_runs_as(program: torch.export.ExportedProgram, module: torch.nn.Module, *args: Any) -> None:
    """Two calls give the same outputs and leave the same buffers."""
    module, runnable = copy.deepcopy(module), program.module()
    for _ in range(2):
        torch.testing.assert_close(runnable(*args), module(*args))
    found, expected = (dict(each.named_buffers(remove_duplicate=False)) for each in (runnable, module))
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore")  # both warn of attributes that forward assigns
@pytest.mark.parametrize("name", [name for name in CASES if name not in REFUSED_BY_TORCH | LOST_BY_TORCH])
def test_equals_torch(name):
    if name == "symbolic_indexes" and not SCALAR_TENSOR_INDEXES_SELECT:
        pytest.skip("this torch itself cannot capture an index that is a tensor")
    torch.manual_seed(0)
    case = CASES[name]()
    actual = capture(case.module, case.args, case.kwargs, dynamic_shapes=case.shapes, ir="inference")
    expected = _export(case.module, case.args, case.kwargs, case.shapes, strict=False, pre_dispatch=False)
    assert_equal_programs(actual, expected, same_tensors=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", cases())
def test_models_survive_the_file(name, tmp_path):
    case = cases()[name]()
    program = capture(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes, ir="inference")
    assert program.dialect == "ATEN"
    assert_survives(program, tmp_path / "program")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["dynamic_integers", "scalars"])
def test_numbers_that_are_returned(name):
    case = CASES[name]()
    program = capture(case.module, case.args, case.kwargs, dynamic_shapes=case.shapes, ir="inference")
    assert same(program.module()(*case.args, **case.kwargs), case.module(*case.args, **case.kwargs))


def test_truth_values_reach_operators_as_such():
    """torch makes integers of them, which most operators refuse, and ``var`` takes for a dimension."""
    module, x = Module(lambda self, x, unbiased: x.var(unbiased)), torch.randn(5, 4)
    assert_runs_as(lowered(module, x, True), module, x, True)


def test_integers_may_be_compared():
    """torch makes a symbol of an integer, and forgets where it comes from."""
    module, x = Module(lambda self, x, n: x * n if n == 3 else x), torch.randn(5)
    assert_runs_as(lowered(module, x, 3), module, x, 3)


# --- what forward changes ------------------------------------------------------------------------------------


def test_assigned_buffers_are_written_back():
    """torch loses them without a word."""
    module = CASES["buffer_assigned_anew"]().module
    x = CASES["buffer_assigned_anew"]().args[0]
    program = lowered(module, x)
    expected = torch.export.export(module, (x,)).run_decompositions({})
    assert program.graph_module.code == expected.graph_module.code
    assert outputs(program) == outputs(expected)
    assert_runs_as(program, module, x)


def test_one_value_for_two_buffers():
    def forward(self, x):
        self.a = self.b = x + 1
        return x

    module = Module(forward, buffers={"a": (torch.zeros(2), True), "b": (torch.zeros(2), True)})
    assert_runs_as(lowered(module, torch.ones(2)), module, torch.ones(2))


def test_changed_inputs_are_written_back_by_a_loaded_module(tmp_path):
    def forward(self, x):
        self.calls.add_(1)
        x["a"].mul_(2)
        return x["a"] + self.calls

    module = Module(forward, buffers={"calls": (torch.zeros(()), False)})
    program = lowered(module, {"a": torch.ones(2)})
    assert outputs(program) == [
        ("BUFFER_MUTATION", "calls"),
        ("USER_INPUT_MUTATION", "args_0_a"),
        ("USER_OUTPUT", None),
    ]
    exporter.save(program, tmp_path / "program")
    loaded, given = loader.load_module(tmp_path / "program"), {"a": torch.ones(2)}
    assert [loaded(given).tolist() for _ in range(2)] == [[3, 3], [6, 6]]
    assert given["a"].tolist() == [4, 4]


@pytest.mark.parametrize("leaves_it_on", [False, True])
def test_gradients_that_forward_enables_are_no_part_of_the_program(leaves_it_on):
    """torch fails with an IndexError."""

    def forward(self, x):
        if leaves_it_on:
            torch.set_grad_enabled(True)
        with torch.enable_grad():
            y = x * self.weight
        return y, self.weight

    module = Module(forward, weight=torch.nn.Parameter(torch.ones(3)))
    program = lowered(module, torch.ones(3))
    assert [node.target for node in program.graph.nodes if node.op == "call_function"] == [torch.ops.aten.mul.Tensor]
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore:the module assigns")
def test_each_run_of_the_module_finds_it_as_the_user_left_it():
    def forward(self, x):
        self.calls += 1
        self.seen.append(x)
        return x + self.calls + len(self.seen)

    module = Module(forward, calls=0, seen=[])
    torch.testing.assert_close(lowered(module, torch.zeros(2)).module()(torch.zeros(2)), torch.full((2,), 2.0))
    assert (module.calls, module.seen) == (0, [])


def _in_place(method: str, *args: Any) -> Any:
    def forward(self, x, y):
        getattr(x, method)(*args)
        return x.sum() + y.sum()

    return forward


def _with_gradients(self, x, y):
    with torch.enable_grad():
        self.buffer.copy_(x * self.weight)
    return x


def _forgets(self, x, y):
    self.buffer = None
    return x


def _constant(self, x, y):
    self.constant.add_(1)
    return x + self.constant


_X = torch.ones(2, 3)

REFUSED = {
    "the shape of an input": (_in_place("transpose_", 0, 1), _X, _X.clone(), ("args", 0), "shape or the strides"),
    "inputs that share memory": (_in_place("add_", 1), _X, _X.view(3, 2), ("args", 0), r"shares with args\.1"),
    "an input that is passed twice": (_in_place("add_", 1), _X, _X, ("args", 0), r"shares with args\.1"),
    "a value with gradients": (_with_gradients, _X, _X.clone(), ("buffer",), "computed with gradients"),
    "a buffer that goes": (_forgets, _X, _X.clone(), ("buffer",), "no tensor"),
    "a constant": (_constant, _X, _X.clone(), (), "neither a buffer"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_changes_that_cannot_be_written_back_are_refused(what):
    forward, x, y, loc, message = REFUSED[what]
    module = Module(
        lambda self, x, y: forward(self, x, y),
        buffers={"buffer": (torch.zeros(2, 3), True)},
        weight=torch.nn.Parameter(torch.ones(2, 3)),
        constant=torch.ones(2, 3),
    )
    before = dict(vars(module)["_buffers"])
    with pytest.raises(CaptureError, match=message) as caught:
        lowered(module, x, y)
    assert caught.value.loc == loc
    assert caught.value.remedy
    assert vars(module)["_buffers"] == before


def test_wrapper_subclasses_are_refused_before_the_trace():
    case = CASES["wrapper_subclasses"]()
    with pytest.raises(CaptureError, match="TwoTensor") as caught:
        lowered(case.module, *case.args)
    assert caught.value.stage == "bind"


# --- joint graphs --------------------------------------------------------------------------------------------


class Classifier(torch.nn.Module):
    """A loss, with a buffer of each kind changed, a constant, and outputs beside the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)
        self.linear = torch.nn.Linear(4, 5)
        self.register_buffer("steps", torch.zeros(()), persistent=False)
        self.scale = torch.arange(5.0)

    def forward(self, x, labels):
        self.steps.add_(1)
        logits = self.linear(self.norm(x).relu()) * self.scale
        with torch.no_grad():
            hits = (logits.argmax(-1) == labels).sum()
        return {"hits": hits, "loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits.detach()}


class Sliced(torch.nn.Module):
    """A loss behind a size that is known only at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x):
        count = x.sum().to(torch.int64).item()
        torch._check(count >= 0)
        torch._check(count < 10)
        return self.linear(x)[:count].sum()


class TiedLoss(torch.nn.Module):
    """Tied weights, a parameter without a gradient, numbers in and out. torch refuses each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 4)
        self.head = torch.nn.Linear(4, 7)
        self.head.weight = self.embedding.weight
        self.unused = torch.nn.Parameter(torch.ones(2))

    def forward(self, ids, factor):
        logits = self.head(self.embedding(ids)).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, ids.flatten()) * factor, self.unused.detach(), 3


_LABELS = torch.tensor([1, 2, 3])
_BATCH = {0: Dim("batch", min=2)}

JOINT = {
    "static": (Classifier, (torch.randn(3, 4), _LABELS), None, 1),
    "dynamic": (Classifier, (torch.randn(3, 4), _LABELS), (_BATCH, _BATCH), 1),
    "data dependent": (Sliced, (torch.ones(5, 4) / 4,), None, 0),
    "a changed input": (lambda: _Scaled(changes=True), (torch.randn(3),), None, 0),
}


class _Scaled(torch.nn.Module):
    def __init__(self, *, changes: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.changes = changes

    def forward(self, x):
        x = x.add_(1) if self.changes else x
        return (x * self.weight).sum()


@pytest.mark.parametrize(("name", "strict"), [*((name, False) for name in JOINT), ("data dependent", True)])
def test_joint_graphs_equal_torch(name, strict, tmp_path):
    make, args, shapes, loss = JOINT[name]
    module = make()
    actual = lowered(module, *args, dynamic_shapes=shapes, joint_loss_index=loss, strict=strict)
    expected = _decompose_exported_program(
        torch.export.export(module, args, dynamic_shapes=shapes, strict=strict),
        cia_to_decomp={},
        python_decomp_table={},
        joint_loss_index=loss,
        decompose_custom_triton_ops=False,
    )
    assert_equal_programs(actual, expected, same_tensors=True)
    if not strict:
        assert_survives(actual, tmp_path / "program")


def gradients(program: torch.export.ExportedProgram, *args: Any) -> dict[str, torch.Tensor]:
    """Run a joint graph; what it returns as gradients, by what they are gradients of."""
    users = iter(args)
    values = [
        next(users) if spec.target is None else (program.state_dict | program.constants)[spec.target]
        for spec in program.graph_signature.input_specs
    ]
    results = program.graph_module(*values)
    kinds = (OutputKind.GRADIENT_TO_PARAMETER, OutputKind.GRADIENT_TO_USER_INPUT)
    specs = program.graph_signature.output_specs
    return {str(s.target): value for s, value in zip(specs, results, strict=True) if s.kind in kinds}


def test_gradients_of_tied_and_unused_parameters():
    module, ids = TiedLoss(), torch.tensor([[1, 2], [3, 4]])
    program = lowered(module, ids, 2, joint_loss_index=0)
    module(ids, 2)[0].backward()
    expected = {"head.weight": module.head.weight.grad, "head.bias": module.head.bias.grad}
    torch.testing.assert_close(gradients(program, ids, 2), expected)


def test_gradients_of_inputs_name_the_input():
    """torch names them after a node that the graph does not have."""
    x = torch.randn(3, requires_grad=True)
    found = gradients(lowered(_Scaled(), x, joint_loss_index=0), x.detach())
    torch.testing.assert_close(found, {"weight": x.detach(), "x": torch.ones(3)})


def test_two_parameters_with_one_gradient():
    """torch looks gradients up by the node that computes them."""
    module = Module(lambda self, x: (x + self.a + self.b).sum(), a=_parameter(), b=_parameter())
    found = gradients(lowered(module, torch.ones(3), joint_loss_index=0), torch.ones(3))
    torch.testing.assert_close(found, {"a": torch.ones(3), "b": torch.ones(3)})


def _parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(3))


NO_LOSS = {
    "out of range": (lambda self, x: (x * self.weight).sum(), {}, 1, "there is no output 1"),
    "not a number": (lambda self, x: x * self.weight, {}, 0, r"shape \(3,\)"),
    "without a gradient": (lambda self, x: x.sum(), {}, 0, "depend on anything"),
    "beside another gradient": (lambda self, x: ((x * self.weight).sum(), self.weight * 2), {}, 0, "not the loss"),
    "of a constant": (lambda self, x: (x * self.weight * self.constant).sum(), {}, 0, "gradients of a constant tensor"),
    "in training IR": (lambda self, x: (x * self.weight).sum(), {"ir": "training"}, 0, "in inference IR"),
    "with calls": (
        lambda self, x: (x * self.weight).sum(),
        {"preserve_module_call_signature": ("inner",)},
        0,
        "no calls",
    ),
}


@pytest.mark.parametrize("what", NO_LOSS)
def test_what_is_no_loss_is_refused(what):
    forward, options, loss, message = NO_LOSS[what]
    module = Module(
        forward, weight=_parameter(), constant=torch.ones(3, requires_grad=True), inner=torch.nn.Linear(1, 1)
    )
    with pytest.raises(CaptureError, match=message) as caught:
        capture(module, (torch.ones(3),), **({"ir": "inference"} | options), joint_loss_index=loss)
    assert caught.value.remedy


def test_a_parameter_that_forward_changes_has_no_gradient():
    def forward(self, x):
        with torch.no_grad():
            self.weight.add_(1)
        return (x * self.weight).sum()

    with pytest.raises(CaptureError, match="requires a gradient"):
        lowered(Module(forward, weight=_parameter()), torch.ones(3), joint_loss_index=0)


def test_an_unknown_ir_is_refused():
    with pytest.raises(CaptureError, match="no IR 'edge'"):
        capture(_Scaled(), (torch.ones(3),), ir="edge")


def test_warnings_name_the_attribute_once():
    def forward(self, x):
        self.last = x + 1
        return self.last

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        lowered(Module(forward), torch.ones(2))
    assert ["self.last" in str(each.message) for each in told] == [True]
