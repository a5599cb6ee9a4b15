"""``preserve_module_call_signature``: submodules keep the way in which they are called, also through the file."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import pytest
import torch
from torch.export import Dim
from torch.export._trace import _export
from torch.utils import _pytree as pytree

import exporter
import loader
from exporter.capture import capture
from schema.errors import CaptureError
from tests.program_equality import assert_equal_programs

nn = torch.nn


class Nested(nn.Module):
    """Takes positional, optional and keyword arguments, and returns a tree with a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("offset", torch.ones(4))

    def forward(self, x, y=None, *, scale=2):
        return {"main": self.linear(x) * scale + self.offset, "rest": (x if y is None else y.sin(), 3)}


class Calls(nn.Module):
    """Calls one submodule twice, another one below a container."""

    def __init__(self) -> None:
        super().__init__()
        self.a = Nested()
        self.b = nn.Sequential(Nested(), nn.ReLU())

    def forward(self, x):
        first = self.a(x, x.cos(), scale=3)
        second = self.b[0](first["main"], first["rest"][0])
        third = self.a(self.b[1](second["main"]), x, scale=3)
        return {"sum": third["main"] + first["rest"][1], "rest": third["rest"][0]}


class Tied(nn.Module):
    """Holds one submodule under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = self.b = nn.Linear(4, 4)

    def forward(self, x):
        return self.b(self.a(x)).relu() + self.b(x)


class Hooked(nn.Module):
    """A submodule has hooks of the user's own, which compute; they belong to its caller."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.a.register_forward_pre_hook(lambda module, args: (args[0].tanh(),))
        self.a.register_forward_hook(lambda module, args, result: result.exp())

    def forward(self, x):
        return self.a(x) + 1


class Frozen(nn.Module):
    """One submodule runs without gradients: in a subgraph."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        with torch.no_grad():
            y = self.a(x)
        return self.b(y) + 1


class Outer(nn.Module):
    """Has such a region below, and a submodule that updates a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.norm, self.never = Frozen(), nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x):
        return self.norm(self.frozen(x))


class Sized(nn.Module):
    """A submodule takes a size, and a number that only the data know."""

    def __init__(self) -> None:
        super().__init__()
        self.a = self.Inner()

    class Inner(nn.Module):
        def forward(self, x, rows, count):
            return x.reshape(rows * 2, 2).reshape(rows, 4) + torch.ones(count).sum()

    def forward(self, x):
        count = x[0, 0].to(torch.int64).item()
        torch._check(count > 0)
        torch._check(count < 9)
        return self.a(x.relu(), x.shape[0], count) * 2


BATCH = ({0: Dim("batch", min=2, max=9)},)
CASES = {
    "twice": (Calls, ("a",), None),
    "below": (Calls, ("a", "b.0", "b.1"), BATCH),
    "nested": (Calls, ("b.0.linear", "a.linear", "a"), None),
    "second_name": (Tied, ("b",), None),
    "both_names": (Tied, ("b", "a"), None),
    "hooked": (Hooked, ("a",), None),
    "beside_a_region": (Frozen, ("b",), None),
    "around_a_region": (Outer, ("frozen.b", "frozen", "norm", "never"), None),
}


def make(
    kind: Any, paths: Any, shapes: Any = None, ir: Any = "training"
) -> tuple[nn.Module, torch.export.ExportedProgram]:
    torch.manual_seed(0)
    module = kind()
    return module, capture(module, (ones(),), dynamic_shapes=shapes, preserve_module_call_signature=paths, ir=ir)


def ones() -> torch.Tensor:
    return torch.ones(2, 4)


def assert_unflattens(program: torch.export.ExportedProgram, module: nn.Module) -> nn.Module:
    """The modules of the program compute what those of the user compute, and update the same buffers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about nodes that it adds itself
        unflattened = torch.export.unflatten(program)
    x = torch.linspace(1, 2, 8).reshape(2, 4)
    for _ in range(2):
        torch.testing.assert_close(pytree.tree_leaves(unflattened(x)), pytree.tree_leaves(module(x)))
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(operator.attrgetter(name)(unflattened), buffer)
    return unflattened


@pytest.mark.parametrize("name", ["below", "both_names", "hooked", "nested", "twice"])
def test_equals_torch_and_unflattens_in_strict_mode(name):
    kind, paths, shapes = CASES[name]
    how = {"dynamic_shapes": shapes, "preserve_module_call_signature": paths, "strict": True}
    module = kind()
    program = capture(module, (ones(),), **how)
    assert_equal_programs(program, torch.export.export(module, (ones(),), **how), same_tensors=True)
    assert_unflattens(program, module)


@pytest.mark.parametrize("ir", ["training", "inference"])
@pytest.mark.parametrize("name", CASES)
def test_equals_torch_and_unflattens(name, ir):
    kind, paths, shapes = CASES[name]
    module, program = make(kind, paths, shapes, ir)
    expected = _export(
        module,
        (ones(),),
        dynamic_shapes=shapes,
        preserve_module_call_signature=paths,
        strict=False,
        pre_dispatch=ir == "training",
    )
    assert_equal_programs(program, expected, same_tensors=True)
    assert_unflattens(program, module)


def test_each_call_has_a_signature_of_its_own():
    _, program = make(Calls, ("a",))
    calls = {entry.fqn: entry.signature for entry in program.module_call_graph}
    assert [argument.name for argument in calls["a"].inputs] == ["x", "cos", ""]
    assert [argument.name for argument in calls["a@1"].inputs] == ["relu", "x", ""]
    assert calls["a"].in_spec == calls["a@1"].in_spec
    assert calls["b.0"] is None


def test_preserved_modules_are_called_as_before():
    module, program = make(Calls, ("a",))
    called = []
    unflattened = assert_unflattens(program, module)
    unflattened.a.register_forward_pre_hook(lambda _, args, kwargs: called.append((args, kwargs)), with_kwargs=True)
    unflattened(ones())
    args, kwargs = called[0]
    assert len(args) == 2
    assert list(kwargs) == ["scale"]


def test_a_region_leaves_no_mark_of_a_call_in_its_subgraph():
    """torch leaves its marks there, and with them operators that nothing outside of torch knows."""
    for kind, path in ((Frozen, "a"), (Outer, "frozen.a")):
        module, program = make(kind, (path,))
        assert "tracepoint" not in program.graph_module.print_readable(print_output=False)
        assert_unflattens(program, module)


def test_sizes_and_numbers_may_be_arguments():
    """torch refuses both."""
    module, program = make(Sized, ("a",), BATCH)
    signature = next(entry.signature for entry in program.module_call_graph if entry.fqn == "a")
    assert len(signature.inputs) == 3
    assert_unflattens(program, module)


def test_a_second_name_that_is_not_preserved_is_no_error():
    """torch fails with a KeyError."""
    module, program = make(Tied, ("a",))
    assert_unflattens(program, module)


@pytest.mark.parametrize("name", ["below", "both_names", "around_a_region"])
def test_a_loaded_program_unflattens_too(name, tmp_path):
    kind, paths, shapes = CASES[name]
    module, program = make(kind, paths, shapes)
    exporter.save(program, tmp_path / "calls.safetensors")
    loaded = loader.load(tmp_path / "calls.safetensors")
    assert loaded.module_call_graph == program.module_call_graph
    assert_unflattens(loaded, module)


def refused(module: nn.Module, *paths: Any) -> CaptureError:
    before = [dict(vars(owner)) for owner in module.modules()]
    with pytest.raises(CaptureError) as caught:
        capture(module, (ones(),), preserve_module_call_signature=paths)
    assert [dict(vars(owner)) for owner in module.modules()] == before
    assert caught.value.remedy
    return caught.value


def test_a_name_that_is_no_submodule_is_refused_before_tracing():
    for path in ("a.liner", "", "a@1"):
        error = refused(Calls(), "a", path)
        assert error.stage == "bind"
        assert repr(path) in str(error)
    assert "such as a.linear" in str(refused(Calls(), "a.liner"))


def test_a_name_alone_is_refused():
    with pytest.raises(CaptureError, match="is of type str, not a sequence"):
        capture(Calls(), (ones(),), preserve_module_call_signature="a")


def test_a_graph_has_no_calls_to_preserve():
    program = capture(Calls(), (ones(),))
    assert "not called" in str(refused(program.module(), "a"))


def test_what_no_signature_can_describe_is_refused():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Module()
            self.a.forward = lambda x, how: x + 1

        def forward(self, x):
            return self.a(x, {1, 2})

    error = refused(Odd(), "a")
    assert error.loc == ("a",)
    assert "a set goes in" in str(error)


def test_two_ways_of_calling_one_submodule_are_refused():
    class Twice(Calls):
        def forward(self, x):
            return self.a(x)["main"] + self.a(x, y=x)["main"]

    assert refused(Twice(), "a").loc == ("a",)
