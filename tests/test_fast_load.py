"""What is loaded by short cuts is what torch's own constructors would have made: in all that anybody can look at."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import exporter
import loader
from archive.collector import collector_paused
from loader import torch_internals
from loader.rebuild import fakes, graph, nodes, values
from loader.rebuild.memories import Memories
from schema.errors import AccessError
from tests.models import cases
from tests.program_equality import assert_equal_programs, same

Program = torch.export.ExportedProgram


@pytest.fixture(params=cases())
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    case = cases()[request.param]()
    path = tmp_path / "model"
    exporter.export(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes, path=path)
    return path


@pytest.fixture
def publicly(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Program]:
    """Loads a program by torch's public constructors alone."""

    def load(path: Path) -> Program:
        with monkeypatch.context() as patch:
            patch.setattr(graph, "NODES", nodes.PublicNodes)
            patch.setattr(values, "FAKES", fakes.PublicFakes)
            patch.setattr(torch_internals, "CAN_ASSEMBLE", False)
            return loader.load(path, debug=True)

    return load


def test_this_torch_is_one_that_the_short_cuts_fit() -> None:
    assert nodes.NODES is nodes.FastNodes
    assert fakes.FAKES is fakes.FastFakes
    assert torch_internals.CAN_ASSEMBLE


def test_every_attribute_is_as_torch_makes_it(path: Path, publicly: Callable[[Path], Program]) -> None:
    fast, slow = loader.load(path, debug=True), publicly(path)
    assert_equal_programs(fast, slow)
    assert vars(fast).keys() == vars(slow).keys()
    for one, other in zip(_graphs(fast), _graphs(slow), strict=True):
        assert _describe_graph(one) == _describe_graph(other)
        for left, right in zip(one.nodes, other.nodes, strict=True):
            assert _describe_node(left) == _describe_node(right)
            assert left.meta.keys() == right.meta.keys()
            for key in left.meta:
                assert _describe_value(left.meta[key]) == _describe_value(right.meta[key]), (left.name, key)
        one.lint()


def test_no_two_values_share_memory(path: Path) -> None:
    program = loader.load(path)
    tensors = [value for each in _graphs(program) for node in each.nodes for value in _tensors(node.meta.get("val"))]
    assert len({tensor.untyped_storage()._cdata for tensor in tensors}) == len(tensors)
    metas = [node.meta for each in _graphs(program) for node in each.nodes]
    stacks = [id(meta["nn_module_stack"]) for meta in metas if "nn_module_stack" in meta]
    assert len(set(stacks)) == len(stacks)


def test_programs_are_loaded_in_another_process_as_in_this_one(tmp_path: Path) -> None:
    for name, make in cases().items():
        case = make()
        exporter.export(
            case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes, path=tmp_path / f"{name}.model"
        )
    subprocess.run([sys.executable, "-c", f"{_SAY}\nsay(sys.argv[1])", tmp_path], check=True, timeout=300)
    theirs = torch.load(tmp_path / "said.pt", weights_only=False)
    assert theirs.keys() == cases().keys()
    exec(_SAY, here := {})
    here["say"](tmp_path)
    assert same(theirs, torch.load(tmp_path / "said.pt", weights_only=False))


_SAY = """
import pathlib, sys, torch, loader

def run(call, args, kwargs):
    torch.manual_seed(0)
    return torch.utils._pytree.tree_leaves(call(*args, **kwargs))

def say(folder):
    said = {}
    for path in sorted(pathlib.Path(folder).glob("*.model")):
        program = loader.load(path)
        args, kwargs = program.example_inputs
        text = program.graph_module.print_readable(print_output=False)
        said[path.stem] = text, [run(call, args, kwargs) for call in (program.module(), loader.load_module(path))]
    torch.save(said, pathlib.Path(folder) / "said.pt")
"""


def test_neither_dynamo_nor_sympy_is_imported_for_what_needs_neither(tmp_path: Path) -> None:
    path = tmp_path / "model"
    exporter.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), path=path)
    script = (
        "import sys, torch, loader\n"
        "program, module = loader.load(sys.argv[1]), loader.load_module(sys.argv[1])\n"
        "module(torch.ones(1, 2))\n"
        "values = [node.meta['val'] for node in program.graph.nodes if node.op == 'placeholder']\n"
        "assert [(tuple(value.shape), str(value.device), str(value.dtype)) for value in values]\n"
        "print(sorted({'torch._dynamo', 'sympy', 'torch._inductor'} & sys.modules.keys()))\n"
    )
    found = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_the_mode_of_values_becomes_an_ordinary_one_when_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "model"
    exporter.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), path=path)
    values = [node.meta["val"] for node in loader.load(path).graph.nodes if "val" in node.meta]
    mode = values[0].fake_mode
    assert type(mode) is fakes.LazyMode
    total = values[0] + values[0]
    assert isinstance(total, FakeTensor)
    assert type(mode) is FakeTensorMode
    assert all(value.fake_mode is mode for value in (*values, total))


@pytest.mark.parametrize("path", ["tied", "dynamic", "training"], indirect=True)
def test_a_loaded_program_is_copied_and_its_graph_pickled(path: Path, publicly: Callable[[Path], Program]) -> None:
    program = loader.load(path)
    args, kwargs = program.example_inputs
    pickled = [pickle.loads(pickle.dumps(each.graph_module)) for each in (loader.load(path), publicly(path))]
    assert pickled[0].code == pickled[1].code
    expected = _leaves(program.module(), args, kwargs)
    assert same(_leaves(copy.deepcopy(loader.load(path)).module(), args, kwargs), expected)


def test_a_pass_that_edits_the_graph_is_seen_in_its_code(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu() + 1

    exporter.export(Model(), (torch.ones(2),), path=tmp_path / "model")
    loaded = loader.load(tmp_path / "model")
    (relu,) = loaded.graph.find_nodes(op="call_function", target=torch.ops.aten.relu.default)
    with loaded.graph.inserting_after(relu):
        negative = loaded.graph.call_function(torch.ops.aten.neg.default, (relu,))
    relu.replace_all_uses_with(negative, delete_user_cb=lambda user: user is not negative)
    loaded.graph.lint()
    loaded.graph_module.recompile()
    assert "neg" in loaded.graph_module.code
    assert loaded.graph_module(torch.ones(2))[0].tolist() == [0.0, 0.0]
    assert loaded.graph._graph_namespace.create_name("relu", None) != "relu"


def _leaves(module: Any, args: Any, kwargs: Any) -> list[Any]:
    torch.manual_seed(0)
    return torch.utils._pytree.tree_leaves(module(*copy.deepcopy(args), **copy.deepcopy(kwargs)))


def _graphs(program: Program) -> Iterator[fx.Graph]:
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            yield module.graph


def _describe_graph(graph: fx.Graph) -> list[Any]:
    namespace = graph._graph_namespace
    return [
        vars(graph).keys(),
        len(graph.nodes),
        type(graph._codegen),
        graph._tracer_cls,
        {str(node) for node in namespace._obj_to_name},
        {str(key): [*map(str, found)] for key, found in graph._find_nodes_lookup_table.table.items() if found},
        str(graph._insert.__self__),
    ]


def _describe_node(node: fx.Node) -> list[Any]:
    slots = [name for kind in type(node).__mro__ for name in getattr(kind, "__slots__", ())]
    assert not set(slots) - set(dir(node))
    return [
        *(type(node), node.name, node.op, node.type, str(node.target), node._sort_key, node._erased, node._repr_fn),
        *map(str, (node.args, node.kwargs, [*node.users], [*node._input_nodes], node.prev, node.next)),
        *(type(part) for part in (node.args, node.kwargs, *node.args, *node.kwargs.values())),
        sorted(vars(node)),
    ]


def _tensors(value: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided]


def _describe_value(value: Any) -> Any:
    leaves, spec = torch.utils._pytree.tree_flatten(value)
    return [spec, *map(_describe_leaf, leaves)]


def _describe_leaf(leaf: Any) -> Any:
    if not isinstance(leaf, FakeTensor):
        return type(leaf), str(leaf)
    return [
        *(type(leaf), str(leaf.shape), str(leaf.stride()), str(leaf.storage_offset()), leaf.dtype, leaf.device),
        *(leaf.layout, leaf.requires_grad, leaf.is_leaf, leaf._is_view()),
        *(str(torch._C._dispatch_keys(leaf)), str(leaf.untyped_storage().nbytes()), leaf._version, leaf.grad),
        {name: str(part) for name, part in vars(leaf).items() if name != "fake_mode"},
    ]


def test_the_garbage_collector_is_back_after_loads(tmp_path: Path) -> None:
    exporter.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), path=tmp_path / "model")
    before = gc.isenabled()
    with collector_paused():
        loader.load(tmp_path / "model")
        assert not gc.isenabled()
        with pytest.raises(AccessError):
            loader.load(tmp_path / "no model")
        assert not gc.isenabled()
    assert gc.isenabled() is before


def test_the_garbage_collector_works_in_a_child_that_was_forked_during_a_load() -> None:
    script = (
        "import gc, os\n"
        "from archive.collector import collector_paused\n"
        "with collector_paused():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os._exit(not gc.isenabled())\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ("a, b, 3", "b * 3, 3, 1"),
        ("a, 3, b", "b * 3, 1, 3"),
        ("a, b", "0, 1"),
        ("a, 1, b", "b, 7, 1"),
        ("a, 4", "b * 4, 1"),
        ("a, b", "b * 2, 2"),
        ("a, 0, b", "b, b, 1"),
        ("1, 1", "a, b"),
        ("a, a", "1, a"),
    ],
)
def test_memory_of_sizes_that_vary_is_as_large_as_torch_makes_it(shape: str, strides: str) -> None:
    shape_env = ShapeEnv()
    symbols = {
        name: shape_env.create_symintnode(
            shape_env.create_unspecified_symbol(size, source=ConstantSource(name)), hint=size
        )
        for name, size in {"a": 5, "b": 6}.items()
    }
    sizes, steps = (list(eval(f"{text},", symbols)) for text in (shape, strides))
    made = Memories().make(sizes, steps, torch.float32)
    expected = torch.empty_strided(tuple(sizes), tuple(steps), device="meta")
    assert str(made.shape) == str(expected.shape)
    assert str(made.stride()) == str(expected.stride())
    hints = [int(each.untyped_storage().nbytes()) for each in (made, expected)]
    assert hints[0] == hints[1]
