"""A loaded program can be copied, transformed, captured again and compiled, with what the saved one gives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils import _pytree as pytree

import exporter
import loader
from tests.program_equality import assert_equal_programs, assert_loaded_equal, normal, same
from tests.test_survival import PROGRAMS, Model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # torch's own

NAMES = ["changes", "modes", "nested branches", "items", "derived sizes", "equal sizes", "an integer"]


class Survivor(NamedTuple):
    """A program, what came back from its file, inputs for both, and which of their sizes vary."""

    saved: torch.export.ExportedProgram
    loaded: torch.export.ExportedProgram
    args: tuple[Any, ...]
    shapes: Any


@pytest.fixture(params=NAMES)
def survivor(request: pytest.FixtureRequest, tmp_path: Path) -> Survivor:
    compute, args, shapes = PROGRAMS[request.param]
    torch._dynamo.reset()
    saved = exporter.capture(Model(compute), copy.deepcopy(args), dynamic_shapes=shapes and (shapes,))
    exporter.save(saved, tmp_path / "program", keep_paths=True)
    return Survivor(saved, loader.load(tmp_path / "program", debug=True), args, shapes)


def outputs(run: Callable[..., Any], args: tuple[Any, ...]) -> list[Any]:
    return pytree.tree_leaves(run(*copy.deepcopy(args)))


def texts(program: torch.export.ExportedProgram) -> list[str]:
    graph = normal(program.graph_module.print_readable(print_output=False))
    return [graph, program.graph_module.code, str(program.graph_signature)]


def test_its_copy_is_the_same(survivor: Survivor) -> None:
    assert_loaded_equal(copy.deepcopy(survivor.loaded), survivor.saved)


def test_it_is_decomposed_to_the_same(survivor: Survivor) -> None:
    found, expected = survivor.loaded.run_decompositions(), survivor.saved.run_decompositions()
    assert texts(found) == texts(expected)
    assert found.range_constraints == survivor.saved.range_constraints
    assert same(outputs(found.module(), survivor.args), outputs(expected.module(), survivor.args))


def test_it_is_captured_again_to_the_same(survivor: Survivor) -> None:
    again = [
        exporter.capture(program.module(), copy.deepcopy(survivor.args), dynamic_shapes=survivor.shapes)
        for program in (survivor.loaded, survivor.saved)
    ]
    assert_equal_programs(*again)


def test_it_is_exported_again_to_the_same(survivor: Survivor) -> None:
    again = [
        torch.export.export(program.module(), copy.deepcopy(survivor.args), dynamic_shapes=survivor.shapes)
        for program in (survivor.loaded, survivor.saved)
    ]
    assert_equal_programs(*again)


def test_it_is_unflattened_to_the_same(survivor: Survivor) -> None:
    found, expected = (torch.export.unflatten(program) for program in (survivor.loaded, survivor.saved))
    assert same(outputs(found, survivor.args), outputs(expected, survivor.args))
    assert same([*found.state_dict().items()], [*expected.state_dict().items()])


def test_it_is_compiled_to_the_same(survivor: Survivor) -> None:
    found = torch.compile(survivor.loaded.module(), backend="aot_eager")
    assert same(outputs(found, survivor.args), outputs(survivor.saved.module(), survivor.args))
