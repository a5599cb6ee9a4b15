"""PyTorch's own collections of modules: every program that torch captures survives the file, exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

import loader
from tests.databases.judging import assert_runs_alike, assert_survives
from tests.databases.samples import EXAMPLES, MODULES, REFUSED_BY_TORCH, Sample, example, module_samples

pytestmark = pytest.mark.filterwarnings("ignore")  # the collections warn


def _survives(sample: Sample, folder: Path) -> None:
    path = folder / "program"
    assert_survives(sample.by_torch(), path)
    assert_runs_alike(loader.load(path).module(), loader.load_module(path), sample)


@pytest.mark.parametrize("name", EXAMPLES)
def test_export_db(name: str, tmp_path: Path) -> None:
    _survives(example(name), tmp_path)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in REFUSED_BY_TORCH])
def test_module_db(name: str, tmp_path: Path) -> None:
    for sample in module_samples(name):
        _survives(sample, tmp_path)
