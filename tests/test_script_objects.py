"""Script objects: captured as torch captures them, stored by their state, and made of it where they are admitted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._higher_order_ops.torchbind import enable_torchbind_tracing

import archive
import exporter
import loader
from archive.render import summary_lines
from exporter import Call
from exporter.capture import capture
from exporter.torch_internals import VERSION
from schema.errors import CaptureError, ClassError, FormatError, InputError, UnsupportedError, WeightsError
from tests.capture_cases import Case, Module, both
from tests.program_equality import assert_equal_programs, assert_loaded_equal
from tests.rewriting import rewrite
from tests.script_objects import (
    ADMITTED,
    CASES,
    NAMESPACE,
    calls_methods,
    changes_its_object,
    classes,
    holds_objects,
    returns_its_object,
    run,
    shares_memory,
    takes_an_object,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, while it decomposes

ROOT = Path(__file__).parent.parent
FOLLOWED = pytest.mark.skipif(
    VERSION < (2, 13), reason="Dynamo of this torch cannot follow what modules hold or return"
)


@pytest.fixture
def script() -> Any:
    """Classes that torch ships for its own tests."""
    return classes()


@pytest.fixture
def archived(script: Any, tmp_path: Path) -> Path:
    """A program that pushes to a queue of its own and pops from it, and takes another object, in a file."""
    case = calls_methods(script)
    exporter.export(case.module, case.args, case.kwargs, path=tmp_path / "program", record_outputs=True)
    return tmp_path / "program"


# --- capture --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", CASES)
def test_script_objects_are_captured_as_by_torch(make, script):
    case = make(script)
    before = dict(vars(case.module))
    program = both(case)
    assert dict(vars(case.module)) == before
    torch.testing.assert_close(run(program.module(), case), run(make(script).module, case))


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=FOLLOWED)])
def test_an_object_that_is_traced_as_it_is_keeps_its_name(script, strict):
    container = script._ConstantTensorContainer(torch.ones(2))
    case = Case(Module(lambda self, x: x + self.inner.held.get(), inner=Module(None, held=container)), (torch.ones(2),))
    with enable_torchbind_tracing():
        program = both(case, strict=strict)
    assert list(program.constants) == ["inner.held"]


@pytest.mark.parametrize(
    "make",
    [takes_an_object, *(pytest.param(make, marks=FOLLOWED) for make in (returns_its_object, holds_objects))],
)
def test_script_objects_are_captured_in_strict_mode(make, script):
    """torch's own program of a module that holds one cannot be run: it holds the fakes of the trace."""
    case = make(script)
    program = capture(case.module, case.args, case.kwargs, strict=True)
    if make is takes_an_object:
        assert_equal_programs(program, torch.export.export(case.module, case.args, case.kwargs, strict=True))
    torch.testing.assert_close(run(program.module(), case), run(case.module, case))


def test_a_module_may_return_an_object_that_it_holds(script, tmp_path):
    """torch fails."""
    module = Module(lambda self, x: (x + 1, self.foo), foo=script._Foo(1, 2))
    program = capture(module, (torch.ones(1),))
    assert program.module()(torch.ones(1))[1] is module.foo
    loaded = survives(program, tmp_path / "program")
    assert loaded.module()(torch.ones(1))[1] is loaded.constants["foo"]


def test_an_object_of_the_module_is_not_taken_for_an_input_of_its_name(script):
    """torch files both under one key, and its program computes with the wrong one."""

    def forward(self, x, foo):
        ops = torch.ops._TorchScriptTesting
        return ops.takes_foo(self.foo, x) * 100 + ops.takes_foo(foo, x)

    module, foo = Module(forward, foo=script._Foo(1, 2)), script._Foo(3, 4)
    program = capture(module, (torch.ones(1), foo))
    assert program.constants["foo"] is module.foo
    assert program.module()(torch.ones(1), foo).item() == module(torch.ones(1), foo).item() == 307


def refused(module: torch.nn.Module, *args: Any) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        capture(module, args)
    assert caught.value.stage == "bind"
    return caught.value


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_an_object_without_a_fake_is_refused_by_name():
    quantized = torch.nn.Sequential(torch.nn.ReLU(), torch.ao.nn.quantized.Linear(2, 2))
    error = refused(quantized, torch.ones(1, 2))
    assert error.loc == ("1._packed_params._packed_params",)
    assert 'register_fake_class("quantized::LinearPackedParamsBase")' in error.remedy


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_an_object_that_cannot_be_taken_apart_is_refused():
    name = "quantized::LinearPackedParamsBase"
    torch._library.register_fake_class(name, type("Fake", (), {"__obj_unflatten__": classmethod(lambda cls, _: cls())}))
    try:
        quantized = torch.ao.nn.quantized.Linear(2, 2)
        error = refused(quantized, torch.ones(1, 2))
        packed = quantized._packed_params._packed_params
        assert "__obj_flatten__" in refused(Module(lambda self, x: 1), {"packed": packed}).remedy
    finally:
        torch._library.fake_class_registry.deregister_fake_class(name)
    assert "__obj_flatten__" in error.remedy


# --- saved and loaded -----------------------------------------------------------------------------------------


def survives(program: torch.export.ExportedProgram, path: Path) -> torch.export.ExportedProgram:
    """Save a program and load it: it is the same, and saving it again gives the same bytes."""
    exporter.save(program, path, keep_paths=True)
    loaded = loader.load(path, debug=True, **ADMITTED)
    assert_loaded_equal(loaded, program)
    content = path.read_bytes()
    exporter.save(loaded, path, keep_paths=True)
    assert path.read_bytes() == content
    return loaded


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("way", ["captured", "functional", "by torch", "decomposed by torch"])
def test_programs_with_script_objects_survive_the_file_and_run(make, way, script, tmp_path):
    case = make(script)
    if "torch" in way:
        program = torch.export.export(case.module, case.args, case.kwargs)
        program = program.run_decompositions({}) if way.startswith("decomposed") else program
    else:
        program = capture(case.module, case.args, case.kwargs, ir="inference" if way == "functional" else "training")
    loaded = survives(program, tmp_path / "program")
    module = loader.load_module(tmp_path / "program", **ADMITTED)
    for _ in range(2):  # objects change with every call
        expected = run(case.module, case)
        for each in (loaded.module(), module):
            torch.testing.assert_close(run(each, case), expected)


def test_a_program_is_loaded_and_runs_without_a_fake_of_the_class(script, tmp_path):
    case, registry = holds_objects(script), torch._library.fake_class_registry
    exporter.save(capture(case.module, case.args), tmp_path / "program")
    name = "_TorchScriptTesting::_Foo"
    fake = registry.deregister_fake_class(name)
    try:
        loaded = loader.load(tmp_path / "program", **ADMITTED)
    finally:
        registry.register_fake_class(name, fake)
    assert loaded.graph_signature.input_specs[0].arg.fake_val is None
    torch.testing.assert_close(run(loaded.module(), case), run(case.module, case))


def test_a_loaded_program_can_be_traced_again(script, tmp_path):
    case = calls_methods(script)
    exporter.save(capture(case.module, case.args, case.kwargs), tmp_path / "program")
    again = loader.load(tmp_path / "program", **ADMITTED).run_decompositions({})
    assert any(node.target is torch.ops.higher_order.with_effects for node in again.graph.nodes)
    torch.testing.assert_close(run(again.module(), case), run(case.module, case))


@FOLLOWED
def test_a_strict_program_of_torch_holds_fakes_and_comes_back_with_the_objects(script, tmp_path):
    """It cannot be run as torch makes it; loaded, it can."""
    case = holds_objects(script)
    program = torch.export.export(case.module, case.args, strict=True)
    exporter.save(program, tmp_path / "program")
    loaded = loader.load(tmp_path / "program", **ADMITTED)
    assert list(loaded.constants) == list(program.constants)
    torch.testing.assert_close(run(loaded.module(), case), run(case.module, case))


def test_what_is_one_object_stays_one_in_all_methods(script, tmp_path):
    case = holds_objects(script)
    call = Call(case.args)
    exporter.export(case.module, methods={"forward": call, "__call__": call}, path=tmp_path / "two")
    inspected = archive.inspect(tmp_path / "two")
    assert [row.name for row in inspected.methods[1].objects] == ["one", "same", "inner.other"]
    constants = loader.load(tmp_path / "two", **ADMITTED).constants
    assert constants["one"] is constants["same"] is not constants["inner.other"]
    foo = script._Foo(3, 4)
    case = takes_an_object(script)
    program = capture(case.module, case.args, {"foo": foo})
    exporter.save(program, tmp_path / "taken")
    loaded = loader.load(tmp_path / "taken", **ADMITTED)
    assert loaded.constants["foo"] is loaded.example_inputs[1]["foo"]


def test_memory_that_an_object_shares_with_a_weight_stays_shared(script, tmp_path):
    case = shares_memory(script)
    exporter.export(case.module, case.args, path=tmp_path / "whole")
    exporter.export(case.module, case.args, path=tmp_path / "bare", weights=False)
    with pytest.raises(WeightsError, match="leaves 1 weight out"):
        loader.load(tmp_path / "bare", **ADMITTED)
    given = {"weight": torch.tensor([5.0, 6.0])}
    for name, weights, expected in (("whole", None, [0.0, 3.0]), ("bare", given, [15.0, 18.0])):
        program = loader.load(tmp_path / name, weights=weights, **ADMITTED)
        assert list(program.constants) == ["first", "holder", "last"]
        held, _ = program.constants["holder"].__getstate__()
        assert held.data_ptr() == program.state_dict["weight"].data_ptr()
        assert program.module()(torch.ones(2)).tolist() == expected


def test_running_a_program_changes_its_own_objects_and_no_others(archived, script):
    case = calls_methods(script)
    content = archived.read_bytes()
    first, second = (loader.load_module(archived, **ADMITTED) for _ in range(2))
    before = run(first, case)[0].tolist()
    first.queue.top().add_(1)
    assert run(first, case)[0].tolist() != before
    assert run(second, case)[0].tolist() == before
    assert run(loader.load_module(archived, **ADMITTED), case)[0].tolist() == before
    assert archived.read_bytes() == content


def test_recorded_outputs_leave_the_objects_as_they_were_and_are_verified(script, tmp_path):
    for make in (calls_methods, returns_its_object):
        case = make(script)
        program = capture(case.module, case.args, case.kwargs)
        exporter.save(program, tmp_path / "plain")
        exporter.save(program, tmp_path / "recorded", record_outputs=True)
        plain, recorded = (archive.inspect(tmp_path / name).methods[0] for name in ("plain", "recorded"))
        assert plain.objects == recorded.objects
        assert recorded.expected
        report = loader.verify(tmp_path / "recorded", **ADMITTED)
        assert report.ok, report


def test_tensors_of_an_object_go_where_the_program_goes(archived):
    constants = loader.load(archived, device="meta", **ADMITTED).constants
    assert [tensor.device.type for tensor in constants["queue"].get_raw_queue()] == ["meta"]


def test_a_fresh_process_makes_the_same_program(script, tmp_path):
    for make in CASES:
        case = make(script)
        exporter.export(case.module, case.args, case.kwargs, path=tmp_path / make.__name__, keep_paths=True)
    code = f"""
import pathlib, torch, exporter, loader
from schema.errors import ClassError
from tests.program_equality import assert_loaded_equal
from tests.script_objects import *
folder = pathlib.Path({str(tmp_path)!r})
try:
    loader.load(folder / "shares_memory", **ADMITTED)
except ClassError as error:
    print(error)
script = classes()
for make in CASES:
    case, path = make(script), folder / make.__name__
    loaded = loader.load(path, debug=True, **ADMITTED)
    assert_loaded_equal(loaded, exporter.capture(case.module, case.args, case.kwargs))
    exporter.save(loaded, folder / "again", keep_paths=True)
    assert path.read_bytes() == (folder / "again").read_bytes()
    expected = run(case.module, case)
    torch.testing.assert_close(run(loader.load_module(path, **ADMITTED), case), expected)
    torch.testing.assert_close(run(loaded.module(), case), expected)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert "no library in this process registers torch.classes._TorchScriptTesting._ContainsTensor" in first
    assert last == "done"


def test_torchs_own_file_and_the_way_back(script, tmp_path):
    from archive.cli_convert import to_archive, to_torch

    case = changes_its_object(script)
    torch.export.save(torch.export.export(case.module, case.args), tmp_path / "model.pt2")
    to_archive(tmp_path / "model.pt2", tmp_path / "model", trust=True, weights=True)
    to_torch(tmp_path / "model", tmp_path / "back.pt2", method="forward", weights=None, **ADMITTED)
    for program in (loader.load(tmp_path / "model", **ADMITTED), torch.export.load(tmp_path / "back.pt2")):
        torch.testing.assert_close(run(program.module(), case), run(case.module, case))


# --- what is shown, refused and admitted ----------------------------------------------------------------------


def test_inspect_shows_objects_with_their_class_and_state(archived):
    method = archive.inspect(archived).methods[0]
    assert [(row.name, row.kind, row.state) for row in method.objects] == [
        ("queue", f"{NAMESPACE}._TensorQueue", "(('init_tensor', <tensor 0>), ('queue', [<tensor 1>]))"),
        ("taken_foo", f"{NAMESPACE}._Foo", "[3, 4]"),
    ]
    assert [(port.name, port.kind, port.value) for port in method.inputs][1] == (
        "taken['foo']",
        f"{NAMESPACE}._Foo",
        None,
    )
    lines = list(summary_lines(archive.inspect(archived)))
    assert f"  object taken_foo: {NAMESPACE}._Foo, state [3, 4]" in lines
    assert any(line.endswith(f"  {NAMESPACE}._Foo") for line in lines)


def test_a_call_with_another_object_is_refused(archived, script):
    module = loader.load_module(archived, **ADMITTED)
    for wrong, said in ((1, "of type int"), (script._TensorQueue(torch.ones(1)), "a torch.classes.*_TensorQueue")):
        with pytest.raises(InputError, match=rf"taken\['foo'\] is {said}, expected a {NAMESPACE}._Foo"):
            module(torch.ones(2), taken={"foo": wrong})


@pytest.mark.parametrize("load", [loader.load, loader.load_module])
@pytest.mark.parametrize("allowed", [[], ["torch"], ["torch.classes"], ["torch.classes._TorchScript"], ["_Foo"]])
def test_a_class_that_is_not_admitted_is_refused_with_what_to_do(load, allowed, archived):
    with pytest.raises(ClassError, match=f"uses script objects of the class {NAMESPACE}._") as caught:
        load(archived, allow_ops=["_TorchScriptTesting"], allow_classes=allowed)
    assert f'pass allow_classes=["{NAMESPACE}"]' in caught.value.remedy
    assert f"--allow-classes {NAMESPACE}" in caught.value.remedy


@pytest.mark.parametrize("load", [loader.load, loader.load_module])
def test_single_classes_can_be_admitted(load, archived):
    names = [f"{NAMESPACE}._TensorQueue", f"{NAMESPACE}._Foo"]
    load(archived, allow_classes=names)
    with pytest.raises(ClassError, match="_Foo"):
        load(archived, allow_classes=names[:1])


@pytest.mark.parametrize("load", [loader.load, loader.load_module])
def test_a_class_of_inputs_is_asked_for_where_the_archive_holds_no_object_of_it(load, archived, tmp_path):
    def change(documents: dict[str, Any], manifest: dict[str, Any]) -> None:
        method = manifest["methods"][0]
        method["objects"].pop()
        del method["example"], method["expected"]
        next(row for row in documents["graph"]["values"] if row[1:2] == ["taken_foo"])[3] = None

    changed = rewrite(archived, tmp_path / "changed", change)
    with pytest.raises(ClassError, match=f"{NAMESPACE}._Foo"):
        load(changed, allow_classes=[f"{NAMESPACE}._TensorQueue"])
    load(changed, **ADMITTED)


def test_what_a_class_does_not_take_for_its_state_is_refused(archived, tmp_path):
    odd = ["dict", [["list", []]], [1]]
    states = [
        (state, "_Foo cannot be made of its state: ") for state in (None, ["tuple", ["a", 1]], ["tensor", 0], odd)
    ]
    for state, reason in (*states, (["list", [["tensor", 99]]], "no tensor 99")):
        changed = rewrite(archived, tmp_path / "x", lambda _, manifest, s=state: manifest["objects"][1].update(state=s))
        with pytest.raises(FormatError, match=rf"{reason}.*\(at objects.1\)"):
            loader.load(changed, **ADMITTED)


def test_a_refusal_names_the_package_whose_library_registers_the_class(script, tmp_path, monkeypatch):
    (tmp_path / "archive_test_objects").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    library = tmp_path / "archive_test_objects" / "_C.so"
    monkeypatch.setattr("exporter.emit.providers.loaded_libraries", lambda: [str(library)])
    case = shares_memory(script)
    exporter.export(case.module, case.args, path=tmp_path / "program")
    assert [row.provider for row in archive.inspect(tmp_path / "program").methods[0].objects] == [
        "archive_test_objects"
    ]
    with pytest.raises(ClassError) as caught:
        loader.load(tmp_path / "program")
    assert caught.value.remedy.startswith("if you trust it, import archive_test_objects and pass allow_classes=")
    assert f"--import archive_test_objects --allow-classes {NAMESPACE}" in caught.value.remedy


def without_a_state(script: Any) -> Any:
    return script._ConstantTensorContainer(torch.ones(2))


def quantized(script: Any) -> Any:
    return script._ContainsTensor(torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))


def opaque(_script: Any) -> Any:
    return torch.Generator()


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            without_a_state,
            "an object of class .*._ConstantTensorContainer cannot be stored: the class does not say what its state is",
        ),
        (quantized, f"the state of an object of class {NAMESPACE}._ContainsTensor .* quantized tensor"),
        (opaque, "an object of type Generator cannot be stored"),
    ],
)
def test_an_object_without_a_plain_state_is_refused_at_save_by_name(make, reason, script, tmp_path):
    case = shares_memory(script)
    program = capture(case.module, case.args)
    program.constants["holder"] = make(script)
    with pytest.raises(UnsupportedError, match=reason) as caught:
        exporter.save(program, tmp_path / "program", record_outputs=False)
    assert caught.value.loc == ("holder",)
    assert "keep its data in parameters, buffers or other tensors" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_methods_that_every_object_of_python_has_are_not_called(script, tmp_path):
    case = calls_methods(script)
    for ir in ("training", "inference"):
        program = capture(case.module, case.args, case.kwargs, ir=ir)
        node = next(node for node in program.graph.nodes if "push" in node.args)
        node.args = tuple("__setstate__" if arg == "push" else arg for arg in node.args)
        with pytest.raises(UnsupportedError, match="no method that a graph may call"):
            exporter.save(program, tmp_path / "program")
