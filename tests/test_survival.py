"""Whatever a program can be, it comes back from a file exactly, or is refused when it is saved."""

from __future__ import annotations

import collections
import enum
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.export import Dim
from torch.export._trace import _export
from torch.export.experimental import _export_forward_backward
from torch.utils import _pytree as pytree

import archive
import exporter
import loader
from exporter import Call
from schema.errors import FormatError, InputError, UnsupportedError
from tests.databases.judging import assert_survives
from tests.program_equality import same
from tests.rewriting import rewrite

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # torch's own, while it exports


class Model(torch.nn.Module):
    """Holds a tensor of every kind; what it computes is given."""

    def __init__(self, compute: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("buffer", torch.ones(4))
        self.register_buffer("scratch", torch.ones(4), persistent=False)
        self.constant = torch.arange(4.0)
        self.compute = compute

    def forward(self, *args: Any) -> Any:
        return self.compute(self, *args)


def changes(model: Model, x: torch.Tensor) -> Any:
    model.buffer.add_(x.sum(0))
    model.scratch.mul_(2)
    x.add_(1)
    return x, model.buffer + model.scratch


def changes_a_parameter(model: Model, x: torch.Tensor) -> Any:
    with torch.no_grad():
        model.linear.bias.add_(1)
    return model.linear(x)


def switches_modes(model: Model, x: torch.Tensor) -> Any:
    with torch.no_grad():
        y = model.linear(x)
        with torch.enable_grad():
            z = y * model.buffer
    with torch.autocast("cpu", dtype=torch.bfloat16):
        u = model.linear(z)
        with torch.autocast("cpu", enabled=False):
            v = u.float() @ x.t()
    return y, z, u, v


def nested(model: Model, x: torch.Tensor) -> Any:
    def inner(a: torch.Tensor) -> torch.Tensor:
        return torch.cond(a.max() > 1, lambda b: model.linear(b), lambda b: b * model.scratch, (a,))

    return torch.cond(x.sum() > 0, inner, lambda a: model.linear(a) * model.constant, (x,))


def reads_items(_: Model, n: torch.Tensor) -> Any:
    a, b = n.tolist()
    torch._check(a >= 2)
    torch._check(b <= 100)
    torch._check(b <= a * 2)
    return a, b, torch.zeros(a), a + b, a * 2 > b


def computes_sizes(_: Model, x: torch.Tensor) -> Any:
    a, b = x.shape
    torch._check(b % 3 == 0)
    parts = (
        a // 2,
        a % 3,
        -a,
        max(a, b),
        a / b,
        int(a / 2),
        a << 2,
        a < b,
        torch.sym_not(a < b),
        torch.sym_ite(a < b, a, b),
    )
    return (*parts, x.view(a, b // 3, 3), x.new_zeros(a, b + 1), torch.sym_sum([a, b, a]))


X = torch.linspace(-1, 1, 12).reshape(3, 4)
D, ROWS = Dim("d"), Dim("rows", min=2, max=64)

PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any]] = {
    "element types": (
        lambda _, x: [x.to(getattr(torch, n)) for n in ("uint16", "complex64", "float8_e5m2")],
        (X,),
        None,
    ),
    "numbers": (
        lambda _, x: (x + math.inf, x * -0.0, x + math.nan, x * complex(-0.0, math.nan), x + 5e-324),
        (X,),
        None,
    ),
    "named tuples": (lambda _, x: (x.max(0), x.sort(), torch.linalg.qr(x), torch.frexp(x)), (X,), None),
    "optional tensors": (lambda _, x: x[:, torch.tensor([1, 0])] + x[..., :2], (X,), None),
    "outputs of all kinds": (lambda m, x: {"a": (x, x, [None, 3]), 1: ("é", 2.5, m.buffer, m.constant)}, (X,), None),
    "inputs of all kinds": (lambda _, x, i, f, b, s, n: x * i + f, (X, 2, 2.5, True, "é", None), None),
    "aliases": (lambda _, x, y: (x + y, x.view(-1), x.t()), (X, X), None),
    "nothing": (lambda m, x: m.buffer.add_(x.sum()) is None or None, (X,), None),
    "changes": (changes, (X,), ({0: D},)),
    "a changed parameter": (changes_a_parameter, (X,), None),
    "modes": (switches_modes, (X,), None),
    "nested branches": (nested, (X,), ({0: D},)),
    "a constant in a branch": (
        lambda _, x: torch.cond(x.sum() > 0, lambda a: a + torch.tensor([1.0, 2, 3, 4]), lambda a: a * 2, (x,)),
        (X,),
        None,
    ),
    "items": (reads_items, (torch.tensor([3, 4]),), None),
    "an item without bounds": (lambda _, n: (n.item(), n + n.item()), (torch.tensor(3),), None),
    "sizes": (computes_sizes, (torch.ones(4, 6),), ({0: Dim.DYNAMIC, 1: Dim.AUTO},)),
    "derived sizes": (lambda _, x, y: torch.cat([x, x]) + y, (X, torch.ones(6, 4)), ({0: D}, {0: 2 * D})),
    "equal sizes": (lambda _, x, y: x + y, (X, X.clone()), ({0: ROWS}, {0: ROWS})),
    "an integer": (lambda _, x, k: (x[:k], k + x.shape[0]), (X, 2), ({0: Dim.DYNAMIC}, Dim.DYNAMIC)),
    "sizes of values": (lambda _, x: (x.nonzero(), x[x > 0], x.unique().shape[0]), (X,), None),
}


FAILS_IN_TORCH = {("inference", "a changed parameter"), ("inference", "modes")}
"""What torch cannot export: it fails with an IndexError of its own."""


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("ir", ["training", "inference"])
def test_programs_of_torch_and_ours_survive(name: str, ir: str, tmp_path: Path) -> None:
    compute, args, shapes = PROGRAMS[name]
    shapes = shapes and (shapes,)  # of *args
    ours = exporter.capture(Model(compute), args, dynamic_shapes=shapes, ir=ir)  # type: ignore[arg-type]
    assert_survives(ours, tmp_path / "program")
    if (ir, name) not in FAILS_IN_TORCH:
        theirs = _export(Model(compute), args, dynamic_shapes=shapes, pre_dispatch=ir == "training")
        assert_survives(theirs, tmp_path / "program")


def edited(value: Any) -> torch.export.ExportedProgram:
    """A program of which a node has an argument that no capture would give it."""
    program = exporter.capture(Model(lambda _, x: x + 1), (X,), dynamic_shapes=(({0: D},),))
    node = next(node for node in program.graph.nodes if node.op == "call_function")
    node.args = node.args[0], value
    program.graph_module.recompile()
    return program


VALUES: dict[str, Any] = {
    "floats": [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1e300, 1.0, 1, True, False, 0],
    "complex": [complex(0.0, -0.0), complex(-0.0, math.inf), complex(math.nan, 1)],
    "whole numbers": [-(2**63), 2**63 - 1, 2**64 - 1],
    "texts": ["", "é😀", "\"'\\\n\x00"],
    "nested": [[1, [2, (3, [])], ()], (1, (2, [3, ()])), {"a": [1], "b": {"c": (1, None)}}],
    "keys": {1: 2, "1": 3, (1, 2): [4], None: 5, 2.5: 6},
    "slices": [slice(None), slice(1, None, -2), ...],
    "element types": [getattr(torch, n) for n in dir(torch) if isinstance(getattr(torch, n), torch.dtype)],
    "devices": [torch.device(name) for name in ("cpu", "cpu:0", "meta")],
    "layouts": [getattr(torch, n) for n in dir(torch) if isinstance(getattr(torch, n), torch.layout)],
    "memory formats": [getattr(torch, n) for n in dir(torch) if isinstance(getattr(torch, n), torch.memory_format)],
    "operators": [torch.ops.aten.add.Tensor, torch.ops.higher_order.cond],
}


@pytest.mark.parametrize("name", VALUES)
def test_arguments_and_user_metadata_survive(name: str, tmp_path: Path) -> None:
    program = edited(VALUES[name])
    assert_survives(program, tmp_path / "program")
    node = next(node for node in program.graph.nodes if node.op == "call_function")
    node.args, node.kwargs = (node.args[0], node.args[0]), {"alpha": node.args[1]}
    node.meta["custom"] = program.graph_module.meta["custom"] = {"note": VALUES[name]}
    program.graph_module.recompile()
    assert_survives(program, tmp_path / "program")


def test_results_inside_of_arguments_survive(tmp_path: Path) -> None:
    program = edited(1)
    x, node = (next(node for node in program.graph.nodes if node.name == name) for name in ("args_0", "add"))
    node.kwargs = {"alpha": [x, (x, None), [slice(x, None, x)], {"k": x, "l": [1]}]}
    program.graph_module.recompile()
    assert_survives(program, tmp_path / "program")


class Color(enum.IntEnum):
    RED = 1


Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024 - what users write


@pytest.mark.parametrize(("value", "plain"), [(Color.RED, 1), (np.float64(1.5), 1.5)])
def test_derived_numbers_come_back_plain(value: Any, plain: Any, tmp_path: Path) -> None:
    exporter.save(edited(value), tmp_path / "program")
    node = next(n for n in loader.load(tmp_path / "program").graph.nodes if n.op == "call_function")
    assert same(node.args[1], plain)


REFUSED = {
    "2**64 does not fit": (2**64, "does not fit in 64 bits"),
    "half of a pair": ("\ud800", "half of a surrogate pair"),
    "a named tuple": (Pair(1, 2), "type Pair"),
    "a set": ({1}, "type set"),
    "bytes": (b"a", "type bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_come_back_is_refused_at_save(name: str, tmp_path: Path) -> None:
    value, reason = REFUSED[name]
    with pytest.raises(UnsupportedError, match=reason):
        exporter.save(edited(value), tmp_path / "program")


def test_what_no_reader_calls_is_refused_at_save(tmp_path: Path) -> None:
    program = exporter.capture(Model(lambda _, x: torch.ops.aten._print("hello") or x + 1), (X,))
    with pytest.raises(UnsupportedError, match=r"no archive may call the operator aten\._print"):
        exporter.save(program, tmp_path / "program")


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._by = torch.nn.Parameter(torch.rand(4))
        self.register_buffer("offset", torch.rand(4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self._by + self.offset


class TakesModules(torch.nn.Module):
    def forward(self, x: torch.Tensor, parts: list[Any], scale: Any, *, distance: Any) -> torch.Tensor:
        return distance(parts[0](x), scale(x))


@pytest.mark.filterwarnings("ignore:`torch.utils._pytree._register_pytree_node`:FutureWarning")  # by torch itself
@pytest.mark.parametrize("capture", [exporter.capture, torch.export.export])
def test_modules_among_the_inputs_are_their_tensors(capture: Callable[..., Any], tmp_path: Path) -> None:
    path, scale = tmp_path / "program", Scale()
    parts, given = [torch.nn.Sequential(torch.nn.Linear(4, 4))], {"distance": torch.nn.PairwiseDistance()}
    program = capture(TakesModules(), (X, parts, scale), given)
    assert_survives(program, path)
    exporter.save(program, path, record_outputs=True)
    assert loader.verify(path).ok
    assert [port.name for port in archive.inspect(path).methods[0].inputs] == [
        *("x", "parts[0]['0.weight']", "parts[0]['0.bias']", "scale._by", "scale.offset"),
    ]
    expected = program.module()(X, parts, scale, **given)
    run, loaded = loader.load_module(path), loader.load(path)
    args, kwargs = loaded.example_inputs
    assert same(loaded.module()(*args, **kwargs), expected)
    assert same(run(*args, **kwargs), expected)
    assert same(run(X, parts, scale, **given), expected)
    assert same(run(X, parts, {"_by": scale._by, "offset": scale.offset}, **given), expected)
    with pytest.raises(InputError, match=r"scale has keys weight, expected a Scale with _by, offset"):
        run(X, parts, torch.nn.Linear(4, 4, bias=False), **given)


def test_a_module_among_the_inputs_has_one_name_per_tensor(tmp_path: Path) -> None:
    exporter.save(exporter.capture(Model(lambda _, x, module: module(x)), (X, torch.nn.Linear(4, 4))), tmp_path / "a")

    def repeat(documents: dict[str, Any], _manifest: dict[str, Any]) -> None:
        module = documents["calls"]["entries"][0][1][2][3][0][3][1]
        module[2][1] = ["weight", "weight"]

    rewrite(tmp_path / "a", tmp_path / "b", repeat)
    with pytest.raises(FormatError, match=r"not one name per tensor of a module \(at calls"):
        loader.load(tmp_path / "b")


class Fields(collections.OrderedDict[str, Any]):
    """Says that its parts are items, as outputs of models do; a stand-in for it says that they are attributes."""


pytree.register_pytree_node(
    Fields,
    lambda fields: (list(fields.values()), list(fields)),
    lambda values, names: Fields(zip(names, values, strict=True)),
    serialized_type_name="tests.test_survival.Fields",
    flatten_with_keys_fn=lambda fields: ([(pytree.MappingKey(k), v) for k, v in fields.items()], list(fields)),
)


def test_fields_of_outputs_are_named_as_a_stand_in_names_them(tmp_path: Path) -> None:
    exporter.export(Model(lambda _, x: (Fields({"a": x + 1, "b c": x}), {"a": x})), (X,), path=tmp_path / "program")
    outputs = archive.inspect(tmp_path / "program").methods[0].outputs
    assert [port.name for port in outputs] == ["output[0].a", "output[0]['b c']", "output[1]['a']"]


def branches(scale: torch.Tensor) -> Callable[..., Any]:
    return lambda _, x: torch.cond(x.sum() > 0, lambda a: a + torch.tensor([1.0, 2, 3, 4]), lambda a: a * scale, (x,))


def test_constants_in_branches_are_tensors_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "program"
    program = exporter.capture(Model(branches(torch.ones(4))), (X.abs(),))
    exporter.save(program, path, record_outputs=True)
    stored = [tensor.name for tensor in archive.inspect(path).tensors]
    assert "__constants__/true_graph_0._tensor_constant0" in stored
    for run in (loader.load(path).module(), loader.load_module(path)):
        assert same(pytree.tree_leaves(run(X.abs())), pytree.tree_leaves(program.module()(X.abs())))


@pytest.mark.parametrize(("name", "tensor"), [("_tensor_constant0", 999), ("forward", 0), ("a.b", 0)])
def test_a_malformed_attribute_is_refused(name: str, tensor: int, tmp_path: Path) -> None:
    path = tmp_path / "program"
    exporter.save(exporter.capture(Model(branches(torch.ones(4))), (X,)), path)

    def change(documents: dict[str, Any], _manifest: dict[str, Any]) -> None:
        attributes = next(graph["attributes"] for graph in documents["graph"]["graphs"] if "attributes" in graph)
        attributes[0] = [name, tensor]

    rewrite(path, tmp_path / "other", change)
    for load in (loader.load, loader.load_module):
        with pytest.raises(FormatError):
            load(tmp_path / "other")


class Trained(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)
        self.two = torch.nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.norm(self.two(self.one(x)))
        return y.sum(), y.detach()


def test_joint_graphs_survive(tmp_path: Path) -> None:
    shapes = ({0: Dim.DYNAMIC},)
    assert_survives(
        _export_forward_backward(torch.export.export(Trained(), (X,), dynamic_shapes=shapes)), tmp_path / "a"
    )
    tied = Trained()
    tied.two.weight = tied.one.weight  # which torch refuses
    x = X.clone().requires_grad_()
    assert_survives(exporter.capture(tied, (x,), ir="inference", joint_loss_index=0), tmp_path / "b")


def test_methods_share_weights_and_constants(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(64, 64)
            self.table = torch.rand(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) @ self.table

        def other(self, x: torch.Tensor) -> torch.Tensor:
            return self.table @ self.linear(x)

    path, module, x = tmp_path / "program", Two(), torch.ones(64, 64)
    exporter.export(module, path=path, methods={"forward": Call((x,)), "other": Call((x,))})
    assert [tensor.name for tensor in archive.inspect(path).tensors if "example" not in tensor.name] == [
        *("linear.weight", "linear.bias", "__constants__/table"),
    ]
    for method in ("forward", "other"):
        program = loader.load(path, method=method)
        assert same(program.module()(x), getattr(module, method)(x))


ACTIVATION = torch.nn.GELU()


@pytest.mark.parametrize("strict", [True, False])
def test_a_module_that_is_no_submodule_stays_in_the_module_stack(strict: bool, tmp_path: Path) -> None:
    """Dynamo names one that it finds among the globals by the expression that finds it, quotes and all."""

    class Calls(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ACTIVATION(x)

    program = torch.export.export(Calls(), (torch.ones(2),), strict=strict)
    stacks = [node.meta["nn_module_stack"] for node in program.graph.nodes if node.op == "call_function"]
    assert any("G['" in path for stack in stacks for path, _ in stack.values()) == strict
    assert_survives(program, tmp_path / "model")
    assert exporter.capture(Calls(), (torch.ones(2),), strict=strict).graph_module.code == program.graph_module.code
