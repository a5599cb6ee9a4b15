"""TorchScript modules are captured like the modules that they were made of."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import exporter
import loader
from exporter.capture import capture
from exporter.torch_internals import pytree
from schema.errors import CaptureError
from tests.capture_refusals import refused

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated")


class Net(nn.Module):
    """Tied weights, buffers, a tensor that is neither, and several arguments and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.tied = self.inner[0]
        self.scale = 3
        self.table = torch.arange(3.0)

    def forward(self, x, y: torch.Tensor):
        z = self.inner(x) * self.scale + y + self.table
        return self.tied(z), x.relu()


class Loops(Net):
    """What only a script keeps."""

    def forward(self, x, y: torch.Tensor, times: int = 2):
        for _ in range(times):
            x = self.tied(x)
        if x.shape[0] > 2:
            x = x + y
        return {"x": x, "y": y}


class Deciding(nn.Module):
    def forward(self, x):
        return x.sin() if x.sum() > 0 else x.cos()


class Flat(nn.Module):
    def forward(self, x):
        return x.view(x.size(0), -1)


class Counting(nn.Module):
    """Assigns to a number and to a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.count = self.count + 1
        return x + self.count * self.calls


def traced(module: nn.Module, *args: Any) -> torch.jit.ScriptModule:
    return torch.jit.trace(module.eval(), args)


def scripted(module: nn.Module, *_: Any) -> torch.jit.ScriptModule:
    return torch.jit.script(module.eval())


def loaded(module: nn.Module, *args: Any) -> torch.jit.ScriptModule:
    return torch.jit.load(io.BytesIO(traced(module, *args).save_to_buffer()))


def assert_same_outputs(program: torch.export.ExportedProgram, module: Any, *args: Any) -> None:
    actual, expected = pytree.tree_flatten(program.module()(*args)), pytree.tree_flatten(module(*args))
    assert actual[1] == expected[1]
    assert all(map(torch.equal, actual[0], expected[0]))


X, Y = torch.randn(4, 3), torch.randn(4, 3)


@pytest.mark.parametrize(("make", "module"), [(traced, Net), (loaded, Net), (scripted, Net), (scripted, Loops)])
def test_outputs_names_and_tensors_are_those_of_the_script(make: Any, module: Any):
    script = make(module(), X, Y)
    program = capture(script, (X, Y))
    assert_same_outputs(program, script, X, Y)
    parameters = dict(script.named_parameters(remove_duplicate=False))
    state = {**parameters, **dict(script.named_buffers())}
    assert list(program.graph_signature.parameters) == list(parameters)
    assert {name: tensor.data_ptr() for name, tensor in program.state_dict.items()} == {
        name: tensor.data_ptr() for name, tensor in state.items()
    }


def test_nothing_is_warned_of():
    scripts = [traced(Net(), X, Y), scripted(Loops())]
    deciding, flat = scripted(Deciding()), scripted(Flat())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for script in scripts:
            capture(script, (X, Y))
        capture(deciding, (X,))
        capture(flat, (X,), dynamic_shapes={"x": {0: Dim("n")}})


@pytest.mark.parametrize("make", [traced, scripted])
def test_the_operators_are_those_of_the_eager_module(make: Any):
    module = Net().eval()
    counts = exporter.operator_counts(capture(make(module, X, Y), (X, Y)))
    eager = exporter.operator_counts(torch.export.export(module, (X, Y)))
    assert {name.split(".")[1]: count for name, count in counts.items()} == {
        name.split(".")[1]: count for name, count in eager.items()
    }


def test_outputs_equal_those_of_torchs_converter():
    from torch._export.converter import TS2EPConverter

    script = scripted(Net())
    actual = capture(script, (X, Y)).module()(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = TS2EPConverter(script, (X, Y)).convert().module()(X, Y)
    assert all(map(torch.equal, actual, expected))


def test_arguments_keep_their_names_and_defaults():
    script = scripted(Loops())
    program = capture(script, (), {"x": X, "y": Y, "times": 3})
    assert list(program.example_inputs[1]) == ["x", "y", "times"]
    torch.testing.assert_close(program.module()(x=X, y=Y, times=3), script(X, Y, 3))
    assert "do not fit forward(x, y, times=2)" in refused(script, X).message


@pytest.mark.parametrize("make", [traced, scripted])
def test_sizes_may_vary_where_the_script_reads_them(make: Any):
    script = make(Flat(), torch.ones(4, 2, 3))
    program = capture(script, (torch.ones(4, 2, 3),), dynamic_shapes={"x": {0: Dim("n")}})
    assert_same_outputs(program, script, torch.randn(7, 2, 3))


def test_a_branch_on_a_value_becomes_a_branch_of_the_program():
    script = scripted(Deciding())
    program = capture(script, (X,))
    assert exporter.operator_counts(program)["cond"] == 1
    for x in (X.abs(), -X.abs()):
        assert_same_outputs(program, script, x)


def test_a_buffer_that_is_assigned_is_written_by_the_program_and_the_script_stays_as_it_was():
    for module in (scripted(Counting()), nn.Sequential(scripted(Counting()))):
        program = capture(module, (torch.zeros(1),))
        script = module if isinstance(module, torch.jit.ScriptModule) else module[0]
        assert (script.calls, script.count.item()) == (0, 0)
        run = program.module()
        assert [run(torch.zeros(1)).item() for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("make", [traced, scripted])
def test_a_script_may_be_a_part_of_a_module(make: Any):
    part = make(nn.Linear(3, 3), X)
    module = nn.Sequential(nn.ReLU(), part, nn.ModuleList([part]))
    module.forward = lambda x: module[2][0](module[1](module[0](x)))
    program = capture(module, (X,))
    assert_same_outputs(program, module, X)
    assert set(program.state_dict) == set(module.state_dict())
    assert module[1] is part
    assert module[2][0] is part


def test_a_captured_script_survives_the_file(tmp_path: Path):
    script = scripted(Loops())
    exporter.export(script, (X, Y), path=tmp_path / "m")
    torch.testing.assert_close(loader.load_module(tmp_path / "m")(X, Y), script(X, Y))


def test_what_the_interpreter_refuses_is_told_with_the_line_of_the_source():
    class Wrong(nn.Module):
        def forward(self, x):
            return x.reshape(5)

    error = refused(nn.Sequential(scripted(Wrong())), torch.ones(4))
    assert "TorchScript's interpreter cannot run this" in error.message
    assert error.loc[0].startswith("test_torchscript.py:")
    assert "capture the module that it was made of" in error.remedy


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    @torch.jit.export
    def encode(self, x, times: int = 2):
        return self.linear(x) * times


def test_other_methods_are_captured_too():
    script = scripted(Two())
    program = capture(script, (X,), method="encode")
    assert torch.equal(program.module()(X), script.encode(X))
    outer = nn.Sequential(script)
    outer.forward = lambda x: outer[0].encode(x, times=3)
    assert torch.equal(capture(outer, (X,)).module()(X), script.encode(X, 3))
    assert 'missing the required "forward"' in refused(script, X).message


def test_dynamo_cannot_follow_a_script():
    for module, loc in ((scripted(Net()), ()), (nn.Sequential(scripted(Net())), ("0",))):
        with pytest.raises(
            CaptureError, match=r"the script module Net cannot be followed by Dynamo.*without strict"
        ) as caught:
            capture(module, (X, Y), strict=True)
        assert caught.value.loc == loc


def test_a_script_in_inference_ir():
    script = scripted(Net())
    program = capture(script, (X, Y), ir="inference")
    assert_same_outputs(program, script, X, Y)
    assert "aten.addmm.default" in exporter.operator_counts(program)
