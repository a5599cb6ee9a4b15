"""A program is loaded where the user wants it, whatever it was captured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import exporter
import loader
from schema.errors import UsageError
from tests.rewriting import rewrite


class Model(torch.nn.Module):
    """Devices as arguments, in a region, in values and of weights, constants and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("offset", torch.ones(4))
        self.shift = torch.arange(4.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            noise = torch.zeros(4, device=x.device) + self.shift
        return self.linear(x).to(torch.float64).to(x.device) + noise + self.offset


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An archive as a machine with a GPU would write it."""

    def move(documents: dict[str, Any], manifest: dict[str, Any]) -> None:
        for table in ("arguments", "values"):
            for row in documents["graph"][table]:
                if isinstance(row, list):
                    _replace(row, ["device", "cpu", None], ["device", "cuda", 0])
        for tensor in manifest["tensors"]:
            tensor["device"] = "cuda:0"

    torch.manual_seed(0)
    exporter.export(Model(), (torch.ones(2, 4),), path=tmp_path / "here", record_outputs=True)
    return rewrite(tmp_path / "here", tmp_path / "there", move)


def _replace(row: list[Any], old: list[Any], new: list[Any]) -> None:
    if row == old:
        row[:] = new
    for item in row:
        if isinstance(item, list):
            _replace(item, old, new)


def devices_of(program: torch.export.ExportedProgram) -> set[str]:
    """Every device that a program speaks of."""
    found = {str(tensor.device) for tensor in (*program.state_dict.values(), *program.constants.values())}
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", []):
            leaves = torch.utils._pytree.tree_leaves((node.args, node.kwargs, node.meta.get("val")))
            found |= {str(leaf) for leaf in leaves if isinstance(leaf, torch.device)}
            found |= {str(leaf.device) for leaf in leaves if isinstance(leaf, torch.Tensor)}
    return found


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), {"cuda:0": "cpu"}, {"cuda": "cpu"}])
def test_everything_is_put_on_the_wanted_device(elsewhere: Path, device: Any) -> None:
    program = loader.load(elsewhere, device=device)
    assert devices_of(program) == {"cpu"}
    x = torch.ones(2, 4)
    expected = loader.load(elsewhere.with_name("here")).module()(x)
    assert torch.equal(program.module()(x), expected)
    assert torch.equal(loader.load_module(elsewhere, device=device)(x), expected)
    assert loader.verify(elsewhere, device=device).ok


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens without a GPU")
def test_a_device_that_is_not_here_is_an_error_with_the_remedy(elsewhere: Path) -> None:
    for load in (loader.load, loader.load_module):
        with pytest.raises(UsageError, match=r"cuda:0.*not available here; pass device=\"cpu\""):
            load(elsewhere)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_program_captured_on_the_cpu_runs_on_a_gpu(tmp_path: Path) -> None:
    model = Model()
    exporter.export(model, (torch.ones(2, 4),), path=tmp_path / "model", record_outputs=True)
    program = loader.load(tmp_path / "model", device="cuda:0")
    assert devices_of(program) == {"cuda:0"}
    x = torch.ones(2, 4, device="cuda:0")
    for run in (program.module(), loader.load_module(tmp_path / "model", device="cuda:0")):
        torch.testing.assert_close(run(x).cpu(), model(x.cpu()), rtol=1e-3, atol=1e-3)
    assert loader.verify(tmp_path / "model", device="cuda:0").ok
