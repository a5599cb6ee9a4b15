"""``archive convert``: trusted files of torch.export.save become archives, and archives become such files."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import archive
import exporter
import loader
from archive.cli import main
from tests.models import Case, cases

LOST_BY_TORCH = {"nested"}
"""Cases that torch.export.save refuses: their named tuple is not registered with a name."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line: its exit status, output and errors."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["archive", "convert", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            main()
        return (caught.value.code or 0, *capsys.readouterr())  # type: ignore[return-value]

    return run


def export(case: Case) -> torch.export.ExportedProgram:
    return torch.export.export(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes)


def assert_same(one: torch.export.ExportedProgram, other: torch.export.ExportedProgram) -> None:
    assert one.graph_module.code == other.graph_module.code
    assert one.graph_signature == other.graph_signature
    assert one.range_constraints == other.range_constraints
    assert one.dialect == other.dialect
    assert [str(entry) for entry in one.module_call_graph] == [str(entry) for entry in other.module_call_graph]
    assert set(one.state_dict) == set(other.state_dict)
    for name, tensor in one.state_dict.items():
        assert torch.equal(tensor, other.state_dict[name]), name
        assert tensor.stride() == other.state_dict[name].stride(), name


@pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning")
@pytest.mark.parametrize("name", sorted(cases().keys() - LOST_BY_TORCH))
def test_there_and_back_is_the_same_program(name: str, tmp_path: Path, run: Any) -> None:
    program = export(cases()[name]())
    torch.export.save(program, tmp_path / "model.pt2")
    assert run(tmp_path / "model.pt2", "-o", tmp_path / "model", "--trust")[0] == 0
    there = loader.load(tmp_path / "model")
    assert_same(there, torch.export.load(tmp_path / "model.pt2"))
    assert run(tmp_path / "model", "-o", tmp_path / "back.pt2")[0] == 0
    assert_same(torch.export.load(tmp_path / "back.pt2"), there)


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def test_without_trust_nothing_of_the_file_is_read(linear: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("torch has read the file")

    monkeypatch.setattr(torch.export, "load", fail)
    monkeypatch.setattr(torch, "load", fail)
    output = linear.with_name("x")
    code, _, told = run(linear, "-o", output)
    assert code == 2
    assert "reads" in told
    assert "with pickle, which runs whatever the author of the file wants; pass --trust" in told
    assert not output.exists()


@pytest.mark.parametrize(("text", "notes"), [("(L['x'].size()[0] % 2) == 0", []), ("L['y'] == 0", ["L['y'] == 0"])])
def test_guards_that_are_only_text_are_carried_or_told(text: str, notes: list[str], tmp_path: Path, run: Any) -> None:
    program = export(cases()["dynamic"]())
    program._guards_code[:] = [text]
    torch.export.save(program, tmp_path / "model.pt2")
    code, told, _ = run(tmp_path / "model.pt2", "-o", tmp_path / "model", "--trust", "--json")
    assert code == 0
    facts = json.loads(told)
    assert facts["notes"] == [f"not carried: the guard {note}, which no condition can be read from" for note in notes]
    assert facts["nbytes"] == (tmp_path / "model").stat().st_size
    assert run(tmp_path / "model", "-o", tmp_path / "back.pt2")[1].count("\n") == 1, "nothing more was lost"
    assert torch.export.load(tmp_path / "back.pt2")._guards_code == [each for each in [text] if each not in notes]


def test_an_archive_carries_its_guards_to_torch(tmp_path: Path, run: Any) -> None:
    program = export(cases()["dynamic"]())
    exporter.save(program, tmp_path / "model")
    assert run(tmp_path / "model", "-o", tmp_path / "model.pt2")[0] == 0
    assert torch.export.load(tmp_path / "model.pt2")._guards_code == program._guards_code


def test_weights_can_be_left_out_and_given_back(linear: Path, tmp_path: Path, run: Any) -> None:
    bare, weights, back = (tmp_path / name for name in ("bare", "weights", "back.pt2"))
    assert run(linear, "-o", bare, "--trust", "--no-weights")[0] == 0
    assert archive.inspect(bare).absent.tensors == 2
    assert "pass weights= (--weights FILE)" in run(bare, "-o", back)[2]
    state = torch.export.load(linear).state_dict
    save_file(dict(state), weights)
    assert run(bare, "-o", back, "--weights", weights)[0] == 0
    assert torch.equal(torch.export.load(back).state_dict["weight"], state["weight"])


def test_one_of_several_methods_is_written_and_the_others_are_told(tmp_path: Path, run: Any) -> None:
    linear = torch.nn.Linear(2, 2)
    programs = {name: exporter.capture(linear, (torch.ones(n, 2),)) for n, name in enumerate(("encode", "decode"), 1)}
    exporter.save(programs, tmp_path / "model")
    assert run(tmp_path / "model", "-o", tmp_path / "x.pt2")[0] == 2
    code, told, _ = run(tmp_path / "model", "-o", tmp_path / "x.pt2", "-m", "decode")
    assert (code, told.splitlines()[1]) == (0, "not carried: encode; such a file holds one method")
    assert torch.export.load(tmp_path / "x.pt2").graph_module.code == programs["decode"].graph_module.code


class TestRefused:
    def test_files_of_other_kinds(self, tmp_path: Path, run: Any) -> None:
        output = tmp_path / "x"
        torch.save({}, tmp_path / "other.pt")
        assert "a zip file, as torch.save" in run(tmp_path / "other.pt", "-o", output, "--trust")[2]
        (tmp_path / "text").write_text("a text that is long enough")
        assert "not a program archive" in run(tmp_path / "text", "-o", output)[2]
        assert "No such file or directory; check the path" in run(tmp_path / "missing", "-o", output)[2]
        assert "it is a folder" in run(tmp_path, "-o", output)[2]
        assert not output.exists()

    def test_a_broken_file_of_torch_in_one_line(self, tmp_path: Path, run: Any) -> None:
        with zipfile.ZipFile(tmp_path / "broken.pt2", "w") as file:
            file.writestr("archive/archive_format", "pt2")
        code, _, told = run(tmp_path / "broken.pt2", "-o", tmp_path / "x", "--trust")
        assert code == 1
        assert told.startswith("error: torch.export.load cannot read")
        assert told.count("\n") == 1

    def test_its_own_place_and_places_that_are_not_there(self, linear: Path, tmp_path: Path, run: Any) -> None:
        assert run(linear, "-o", linear, "--trust")[0] == 2
        exporter.save(torch.export.load(linear), tmp_path / "model")
        before = sorted(tmp_path.iterdir())
        code, _, told = run(tmp_path / "model", "-o", tmp_path / "nowhere" / "x.pt2")
        assert (code, "No such file or directory" in told) == (1, True)
        assert run(tmp_path / "model", "-o", tmp_path)[0] == 1
        assert sorted(tmp_path.iterdir()) == before, "something was left"

    def test_what_torch_cannot_write(self, tmp_path: Path, run: Any) -> None:
        exporter.save(export(cases()["nested"]()), tmp_path / "model")
        (tmp_path / "x.pt2").write_text("the older file")
        code, _, told = run(tmp_path / "model", "-o", tmp_path / "x.pt2")
        assert code == 1
        assert told.startswith("error: torch.export.save cannot write this program: ")
        assert told.count("\n") == 1
        assert (tmp_path / "x.pt2").read_text() == "the older file"
