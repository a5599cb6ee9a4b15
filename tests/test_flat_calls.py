"""Calls of what is no operator: captured as torch captures them, stored by name, and called where that is admitted."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

import archive
import exporter
import loader
from archive.graph_text import graph_lines
from exporter.capture import capture
from schema.errors import ArchiveError, ClassError, FormatError, OperatorError, UnsupportedError
from tests import flat_calls
from tests.capture_cases import Module, both
from tests.flat_calls import ADMITTED, CASES, attention, indexed, scaled, wrapped
from tests.program_equality import assert_loaded_equal
from tests.rewriting import caller, rewrite

ROOT = Path(__file__).parent.parent

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning"),  # torch copies its own so
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
]


def plain(result: Any) -> list[torch.Tensor]:
    """A result as tensors that can be compared."""
    return [result.a, result.b] if isinstance(result, TwoTensor) else [result]


def same(left: Any, right: Any) -> bool:
    pairs = zip(plain(left), plain(right), strict=True)
    return type(left) is type(right) and all(torch.equal(one, other) for one, other in pairs)


@pytest.fixture
def archived(tmp_path: Path) -> Path:
    """A program that calls an autograd function of the tests and one of torch's, in a file."""
    case = scaled()
    exporter.export(case.module, case.args, path=tmp_path / "program", record_outputs=True)
    return tmp_path / "program"


@pytest.mark.parametrize("make", CASES)
def test_calls_of_functions_are_captured_as_by_torch(make):
    case = make()
    assert same(both(case).module()(*case.args), case.module(*case.args))


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("way", [torch.export.export, capture])
def test_programs_that_call_functions_survive_the_file_and_run(make, way, tmp_path):
    """torch's own file refuses them."""
    case, path = make(), tmp_path / "program"
    program = way(case.module, case.args)
    exporter.save(program, path, keep_paths=True)
    loaded = loader.load(path, debug=True, **ADMITTED)
    assert_loaded_equal(loaded, program)
    exporter.save(loaded, tmp_path / "again", keep_paths=True)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    expected = case.module(*case.args)
    for module in (loaded.module(), loader.load_module(path, **ADMITTED)):
        assert same(module(*case.args), expected)


def test_gradients_are_those_of_the_function(archived):
    case = scaled()
    for module in (loader.load(archived, **ADMITTED).module(), loader.load_module(archived, **ADMITTED)):
        case.module.load_state_dict(module.state_dict())
        case.module.zero_grad()
        for each in (module, case.module):
            each(*case.args).sum().backward()
        assert torch.equal(module.linear.weight.grad, case.module.linear.weight.grad)
        assert module.linear.weight.grad.abs().max() >= 10_000, "each of the two calls says a hundred times its own"


def test_a_loaded_program_is_copied_pickled_and_decomposed(archived):
    case, program = scaled(), loader.load(archived, **ADMITTED)
    module = loader.load_module(archived, **ADMITTED)
    expected = module(*case.args)
    decomposed = program.run_decompositions({})
    assert torch.ops.higher_order.flat_apply not in {node.target for node in decomposed.graph.nodes}
    copies = [copy.deepcopy(program).module(), copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    for each in (*copies, decomposed.module()):
        assert torch.equal(each(*case.args), expected)


def test_a_fresh_process_makes_the_same_program(tmp_path):
    for make in CASES:
        case = make()
        exporter.export(case.module, case.args, path=tmp_path / make.__name__, keep_paths=True)
    code = f"""
import pathlib, sys, torch, loader
folder = pathlib.Path({str(tmp_path)!r})
loader.load(folder / "attention")
loader.load(folder / "indexed")
assert "torch._dynamo" not in sys.modules
import exporter
from tests.flat_calls import ADMITTED, CASES
for make in CASES:
    exporter.save(loader.load(folder / make.__name__, debug=True, **ADMITTED), folder / "again", keep_paths=True)
    assert (folder / make.__name__).read_bytes() == (folder / "again").read_bytes()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_recorded_outputs_are_verified(archived):
    report = loader.verify(archived, **ADMITTED)
    assert report.ok, report
    assert not loader.verify(archived).ok


def test_the_graph_shows_what_is_called(archived):
    with archive.reading.open_archive(archived) as file:
        text = "\n".join(graph_lines(file, "forward"))
    assert "self.function_const_func_spec0" in text
    assert "'tests.flat_calls.Scaled', linear, 2.0)" in text


@pytest.mark.parametrize("load", [loader.load, loader.load_module])
def test_torchs_own_function_needs_no_permission(load, tmp_path):
    case = indexed()
    exporter.export(case.module, case.args, path=tmp_path / "program")
    load(tmp_path / "program")


@pytest.mark.parametrize("load", [loader.load, loader.load_module])
@pytest.mark.parametrize("allowed", [[], ["torch"], ["tests.flat"], ["flat_calls"], ["tests.flat_calls.Scaled"]])
def test_a_function_that_is_not_admitted_is_refused_with_what_to_do(load, allowed, archived):
    with pytest.raises(ClassError, match=r"needs the autograd function tests\.flat_calls\.Scaled") as caught:
        load(archived, allow_classes=allowed)
    assert 'import tests.flat_calls and pass allow_classes=["tests.flat_calls"]' in caught.value.remedy
    assert caught.value.loc[:3] == ("graph", "graphs", 0)


def test_a_class_of_tensors_that_is_made_must_be_admitted(tmp_path):
    case = wrapped()
    exporter.export(case.module, case.args, path=tmp_path / "program")
    with pytest.raises(ClassError, match=r"needs the class of wrapper tensors .*\.TwoTensor"):
        loader.load_module(tmp_path / "program")


@pytest.mark.parametrize("load", [loader.load, loader.load_module])
def test_a_module_that_is_not_imported_is_not_imported(load, archived, monkeypatch):
    monkeypatch.delitem(sys.modules, "tests.flat_calls")
    with pytest.raises(ClassError, match=r"tests.flat_calls, which defines Scaled, is not imported"):
        load(archived, **ADMITTED)
    assert "tests.flat_calls" not in sys.modules


@pytest.mark.parametrize("name", ["torch", "ADMITTED", "Module", "scaled"])
def test_what_is_no_autograd_function_is_not_called(name, archived, tmp_path):
    """Also where its module is admitted."""

    def change(documents: dict[str, Any], _: dict[str, Any]) -> None:
        arguments = documents["graph"]["arguments"]
        arguments[arguments.index("tests.flat_calls.Scaled")] = f"tests.flat_calls.{name}"

    assert hasattr(flat_calls, name)
    with pytest.raises(ClassError, match=rf"tests\.flat_calls\.{name} is no autograd function"):
        loader.load(rewrite(archived, tmp_path / "bad", change), **ADMITTED)


def test_the_name_of_a_function_is_not_handed_over_by_a_node(archived, tmp_path):
    def change(documents: dict[str, Any], _: dict[str, Any]) -> None:
        caller(documents, "higher_order::flat_apply").set_operand(2, -1)

    with pytest.raises(FormatError, match="does not name the autograd function"):
        loader.load(rewrite(archived, tmp_path / "bad", change), **ADMITTED)


def test_calls_of_functions_are_not_given_to_other_operators(archived, tmp_path):
    def change(documents: dict[str, Any], _: dict[str, Any]) -> None:
        documents["graph"]["arguments"].append(["list", [["operator", "higher_order::flat_apply"]]])

    with pytest.raises(OperatorError, match="flat_apply among the arguments of a node"):
        loader.load(rewrite(archived, tmp_path / "bad", change), **ADMITTED)


def test_an_archive_says_that_its_reader_must_know_of_functions(archived, tmp_path):
    assert archive.inspect(archived).features == ["functions"]
    case = attention()
    exporter.export(case.module, case.args, path=tmp_path / "inference", ir="inference")
    assert archive.inspect(tmp_path / "inference").features == []


def refused(program: torch.export.ExportedProgram, path: Path) -> ArchiveError:
    with pytest.raises(UnsupportedError) as caught:
        exporter.save(program, path)
    assert not path.exists()
    return caught.value


def test_functions_without_a_name_are_refused_at_save(tmp_path):
    case = indexed()
    program = capture(case.module, case.args)
    spec = program.graph_module.function_const_func_spec0
    for function in (print, type("Local", (TwoTensor,), {"__qualname__": "test.<locals>.Local"})):
        program.graph_module.function_const_func_spec0 = torch.utils._pytree.tree_structure(
            type(spec.context.value)(function)
        )
        error = refused(program, tmp_path / "program")
        assert f"calls the Python function {function.__qualname__}" in error.message
        assert "torch.library.custom_op" in error.remedy


def test_arguments_in_other_containers_are_refused_at_save(tmp_path):
    case = indexed()
    program = capture(case.module, case.args)
    name = next(node.args[1].target for node in program.graph.nodes if "flat_apply" in node.name)
    odd = (("name", torch.Size([1]), None), {})
    setattr(program.graph_module, name, torch.utils._pytree.tree_structure(odd))
    assert "a Size among the arguments of a Python function" in refused(program, tmp_path / "program").message


def test_a_call_given_to_another_operator_is_refused_at_save(tmp_path):
    program = capture(Module(lambda self, x: x + 1), (torch.ones(1),))
    node = next(node for node in program.graph.nodes if node.op == "call_function")
    node.update_arg(1, torch.ops.higher_order.flat_apply)
    assert "may only be called" in refused(program, tmp_path / "program").message
