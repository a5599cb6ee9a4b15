"""PyTorch's own collections of modules: every program that torch captures survives the file, exactly."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

import loader
from tests.databases import EXAMPLES, MODULES, REFUSED_BY_TORCH, Sample, assert_survives, example, first_inputs
from tests.program_equality import same

pytestmark = pytest.mark.filterwarnings("ignore")  # the collections warn


def _survives(sample: Sample, folder: Path) -> None:
    path = folder / "program"
    assert_survives(sample.by_torch(), path)
    _runs_alike(sample, path)


def _runs_alike(sample: Sample, path: Path) -> None:
    """The program and the module of an archive return the same for the example, bit for bit."""
    results = []
    for run in (loader.load(path).module(), loader.load_module(path)):
        torch.manual_seed(3)
        try:
            results.append(pytree.tree_flatten(run(*copy.deepcopy(sample.args), **copy.deepcopy(sample.kwargs))))
        except (RuntimeError, AssertionError, ValueError) as error:
            # An example may be outside what its own program asserts; then both refuse.
            results.append(type(error).__name__)
    assert same(*results) or all(isinstance(result, str) for result in results), sample.name


@pytest.mark.parametrize("name", EXAMPLES)
def test_export_db(name: str, tmp_path: Path) -> None:
    _survives(example(name), tmp_path)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in REFUSED_BY_TORCH])
def test_module_db(name: str, tmp_path: Path) -> None:
    for sample in first_inputs(name):
        _survives(sample, tmp_path)
