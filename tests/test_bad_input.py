"""Bad input gives one clear error of our family, and a failed write loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import exporter
import loader
from archive.documents import check_document
from archive.reading import open_archive
from schema.debug import Debug
from schema.errors import (
    AccessError,
    ArchiveError,
    FormatError,
    IntegrityError,
    UnsupportedError,
    UsageError,
)
from tests.models import cases
from tests.rewriting import rewrite


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = cases()["dynamic"]()
    path = tmp_path_factory.mktemp("original") / "model"
    exporter.export(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes, path=path)
    return path


def test_an_unchanged_rewrite_loads(original: Path, tmp_path: Path) -> None:
    same = rewrite(original, tmp_path / "same", lambda documents, manifest: None)
    assert same.read_bytes() == original.read_bytes()


def test_stack_traces_that_would_fill_the_memory_are_refused() -> None:
    frames = ["x" * 500_000]
    for stacks in ([[0, 0, 0]], [[0, 0]] * 300):
        with pytest.raises(FormatError, match="a stack trace that is too long"):
            check_document(Debug(frames=frames, stacks=stacks), ("debug",))
    check_document(Debug(frames=frames, stacks=[[0, 0]] * 200), ("debug",))


def test_every_truncation_is_refused(original: Path, tmp_path: Path) -> None:
    content, cut = original.read_bytes(), tmp_path / "cut"
    for size in {*range(0, len(content), 97), len(content) - 1}:
        cut.write_bytes(content[:size])
        with pytest.raises(FormatError):
            loader.load(cut)


def test_every_changed_byte_is_noticed(original: Path, tmp_path: Path) -> None:
    content, changed = bytearray(original.read_bytes()), tmp_path / "changed"
    for place in range(0, len(content), 61):
        content[place] ^= 4
        changed.write_bytes(content)
        content[place] ^= 4
        with pytest.raises(ArchiveError):
            loader.load(changed, verify="full")


def test_a_changed_weight_is_noticed_on_request(tmp_path: Path) -> None:
    path = tmp_path / "model"
    exporter.export(torch.nn.Linear(64, 64), (torch.ones(1, 64),), path=path)
    with open_archive(path) as archive:
        place = archive.entries["weight"].start + 5
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    loader.load(path)
    for act in (lambda: loader.load(path, verify="full"), lambda: loader.load_module(path, verify="full")):
        with pytest.raises(IntegrityError, match=r"bytes of a tensor have changed \(at weight\)"):
            act()
    report = loader.verify(path)
    assert [check.name for check in report.checks if not check.ok] == ["digests"]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda path: None, AccessError, "model"),
        (lambda path: path.mkdir(), AccessError, "it is a folder"),
        (lambda path: path.write_bytes(b""), FormatError, "empty|missing|bytes"),
        (lambda path: path.write_text("no archive at all, but text"), FormatError, "archive"),
        (lambda path: torch.save({}, path), FormatError, "archive"),
    ],
)
def test_what_is_no_archive(
    make: Callable[[Path], Any], kind: type[ArchiveError], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "model")
    for act in (loader.load, loader.load_module, open_archive):
        with pytest.raises(kind, match=message) as caught:
            act(tmp_path / "model")
        assert "\n" not in str(caught.value)
    assert not loader.verify(tmp_path / "model").ok


def test_weights_alone_are_not_an_archive(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(FormatError, match="archive export"):
        loader.load(tmp_path / "weights.safetensors")


def test_a_method_that_is_not_there(original: Path) -> None:
    with pytest.raises(UsageError, match="forward"):
        loader.load(original, method="decode")


def test_a_device_that_is_not_there(original: Path) -> None:
    with pytest.raises(UsageError, match=r"cuda:99.*not available"):
        loader.load(original, device="cuda:99")
    with pytest.raises(UsageError, match="no such device"):
        loader.load(original, device="toaster")


class Text(torch.nn.Module):
    def forward(self, x: torch.Tensor, text: object) -> torch.Tensor:
        return x + 1


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: _with_state("__program__/x"), "reserved"),
        (lambda: _with_state('a"b'), "cannot be an attribute's name"),
        (lambda: exporter.capture(Text(), (torch.ones(1), "it's")), "holds a quote"),
        (lambda: exporter.capture(Text(), (torch.ones(1), {"it's": torch.ones(1)})), "holds a quote"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nothing_is_written(
    program: Callable[[], torch.export.ExportedProgram], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    path.write_text("the older file")
    with pytest.raises(UnsupportedError, match=message):
        exporter.save(program(), path)
    assert path.read_text() == "the older file"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def _with_state(name: str, tensor: torch.Tensor | None = None) -> torch.export.ExportedProgram:
    program = exporter.capture(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    program.state_dict[name] = torch.ones(2) if tensor is None else tensor
    return program


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    program = exporter.capture(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    with pytest.raises(AccessError, match="missing"):
        exporter.save(program, tmp_path / "missing" / "model")


@pytest.mark.parametrize("program", [{}, torch.nn.Linear(1, 1), {"forward": None}, {"not a name": None}])
def test_what_is_no_program(program: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        exporter.save(program, tmp_path / "model")
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be_recorded(tmp_path: Path) -> None:
    class Outside(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(4)[x]

    with pytest.raises(UsageError, match="fails on its own example inputs"):
        exporter.export(Outside(), (torch.tensor([9]),), path=tmp_path / "model", record_outputs=True)
    assert not list(tmp_path.iterdir())


def test_errors_survive_a_process_border() -> None:
    import pickle

    error = FormatError("broken", loc=("graph", 3), remedy="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (FormatError, "broken (at graph.3); mend it")
