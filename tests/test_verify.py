"""``loader.verify`` says what was checked, and finds what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import exporter
import loader
from archive.reading import open_archive
from tests.models import cases
from tests.rewriting import caller, rewrite


@pytest.mark.parametrize("name", cases())
def test_a_good_archive_passes_every_check(name: str, tmp_path: Path) -> None:
    case = cases()[name]()
    path = tmp_path / "model"
    program = exporter.capture(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes)
    state = {key: value.clone() for key, value in program.state_dict.items()}
    exporter.save(program, path, record_outputs=True)
    report = loader.verify(path)
    assert [check.name for check in report.checks] == [
        "header and manifest",
        "digests",
        "forward: documents",
        "forward: operators",
        "forward: rebuild, torch's verifier",
        "forward: recorded example",
    ]
    assert report.ok, report
    assert report.checks[-1].detail == "outputs equal bit for bit"
    assert all(torch.equal(program.state_dict[key], value) for key, value in state.items()), "recording left a mark"


def test_recorded_outputs_take_the_room_of_their_elements(tmp_path: Path) -> None:
    class Part(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x] * 100_000)[:2]

    exporter.export(Part(), (torch.ones(4),), path=tmp_path / "model", record_outputs=True)
    assert (tmp_path / "model").stat().st_size < 10_000
    assert loader.verify(tmp_path / "model").ok


INPUTS: dict[str, Callable[[], torch.Tensor]] = {
    "computed with gradients": lambda: torch.ones(2, 2, requires_grad=True) * 2,
    "sparse rows": lambda: torch.eye(2).to_sparse_csr(),
    "sparse coordinates": lambda: torch.eye(2).to_sparse_coo(),
    "a view": lambda: torch.ones(4, 4)[1::2, 1::2],
}


@pytest.mark.filterwarnings("ignore:(Sparse|The .grad attribute):UserWarning")  # torch's own
@pytest.mark.parametrize("name", INPUTS)
def test_outputs_are_recorded_for_inputs_of_every_kind(name: str, tmp_path: Path) -> None:
    class Product(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x @ y

    exporter.export(Product(), (INPUTS[name](), torch.ones(2, 2)), path=tmp_path / "model", record_outputs=True)
    assert loader.verify(tmp_path / "model").ok


def test_outputs_that_differ_are_found(tmp_path: Path) -> None:
    exporter.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), path=tmp_path / "model", record_outputs=True)

    def change(documents: dict[str, Any], manifest: dict[str, Any]) -> None:
        place = documents["graph"]["targets"].index("aten::linear.default")
        documents["graph"]["targets"][place] = "aten::addmm.default"
        manifest["methods"][0]["operators"][0]["name"] = "aten::addmm.default"
        linear = caller(documents, "aten::addmm.default")
        x, weight, bias = linear.operands
        for index, operand in enumerate((bias, x, weight)):
            linear.set_operand(index, operand)

    path = rewrite(tmp_path / "model", tmp_path / "changed", change)
    last = loader.verify(path).checks[-1]
    assert not last.ok
    assert last.detail.startswith("the outputs of the example differ from those recorded: value 0")
    assert "\n" not in last.detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda method: method["operators"].clear(), "operators are not those"),
        (lambda method: method.update(nodes=1), "1 nodes, and the graph has"),
        (lambda method: method["inputs"][0].update(dtype="float64"), "not the type or shape"),
        (lambda method: method["inputs"][0].update(shape=[7, 2]), "not the type or shape"),
        (lambda method: method["outputs"].clear(), "the signature has 1"),
    ],
)
def test_a_manifest_that_misleads_is_found(change: Any, message: str, tmp_path: Path) -> None:
    exporter.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), path=tmp_path / "model")

    def mislead(documents: dict[str, Any], manifest: dict[str, Any]) -> None:
        change(manifest["methods"][0])

    report = loader.verify(rewrite(tmp_path / "model", tmp_path / "changed", mislead))
    assert [check.name for check in report.checks if not check.ok] == ["forward: documents"]
    assert message in report.checks[-1].detail


def test_without_recorded_outputs_the_example_is_not_run(tmp_path: Path) -> None:
    exporter.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), path=tmp_path / "model")
    report = loader.verify(tmp_path / "model")
    assert report.ok
    assert not any("example" in check.name for check in report.checks)


def test_the_report_is_plain_values(tmp_path: Path) -> None:
    import json

    report = loader.verify(tmp_path / "missing")
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is False
    assert plain["checks"][0]["name"] == "header and manifest"
    assert "missing" in plain["checks"][0]["detail"]


def test_every_section_and_tensor_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "model"
    exporter.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), path=path)
    report = loader.verify(path)
    names = {part.name: part for part in report.parts}
    assert {"weight", "bias", "__program__/forward/graph", "__program__/forward/debug"} <= names.keys()
    assert all(part.ok for part in report.parts)
    assert (names["weight"].kind, names["weight"].nbytes) == ("tensor", 16)
    assert names["__program__/forward/graph"].kind == "section"
    with open_archive(path) as archive:
        place = archive.entries["weight"].start
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    report = loader.verify(path)
    assert not report.ok
    assert [part.name for part in report.parts if not part.ok] == ["weight"]
    assert {"name": "weight", "kind": "tensor", "nbytes": 16, "ok": False} in report.to_dict()["parts"]


def test_what_is_not_in_the_file_is_reported_as_unknown(tmp_path: Path) -> None:
    exporter.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), path=tmp_path / "model", weights=False)
    parts = {part.name: part.ok for part in loader.verify(tmp_path / "model").parts}
    assert (parts["weight"], parts["__program__/forward/graph"]) == (None, True)
