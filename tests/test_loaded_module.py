"""A loaded module takes what the program was captured for, and says in one line what does not fit."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim

import exporter
import loader
from schema.errors import InputError, UsageError
from tests.models import cases


class Model(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, *, flag: bool, extra: dict[str, torch.Tensor]) -> torch.Tensor:
        return (x + y.sum() if flag else x) * extra["scale"]


def arguments(batch: int = 4, width: int = 6) -> dict[str, Any]:
    return {
        "x": torch.ones(batch, width),
        "y": torch.ones(batch),
        "flag": True,
        "extra": {"scale": torch.ones(())},
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("module") / "model"
    given = arguments()
    batch, half = Dim("batch", min=2, max=8), Dim("half", min=1, max=50)
    shapes = {"x": {0: batch, 1: 2 * half}, "y": {0: batch}, "flag": None, "extra": {"scale": None}}
    args = (given.pop("x"), given.pop("y"))
    exporter.export(Model(), args, given, path=path, dynamic_shapes=shapes)
    return path


@pytest.fixture(scope="module")
def module(path: Path) -> loader.ProgramModule:
    return loader.load_module(path)


@pytest.mark.parametrize(("batch", "width"), [(2, 2), (8, 100), (3, 4)])
def test_sizes_in_range_are_taken(module: loader.ProgramModule, batch: int, width: int) -> None:
    assert module(**arguments(batch, width)).shape == (batch, width)


def test_arguments_may_be_given_by_position_or_name(module: loader.ProgramModule) -> None:
    given = arguments()
    x, y = given.pop("x"), given.pop("y")
    assert torch.equal(module(x, y, **given), module(x, y=y, **given))


def changed(**changes: Any) -> dict[str, Any]:
    return {**arguments(), **changes}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (changed(x=[1]), "x is of type list, expected a tensor of torch.float32"),
        (changed(x=torch.ones(4, 6, dtype=torch.float64)), "x is of torch.float64, expected torch.float32"),
        (changed(x=torch.ones(6)), r"x has 1 dimensions \(shape \[6\]\), expected 2"),
        (changed(y=torch.ones(5)), r"dimension 0 of y \(shape \[5\]\) is 5, expected 4"),
        (arguments(batch=9), r"dimension 0 of x \(shape \[9, 6\]\) is 9, expected 2 to 8"),
        (arguments(width=5), r"dimension 1 of x \(shape \[4, 5\]\) is 5, which is not 2\*half for any whole number"),
        (arguments(width=102), r"dimension 1 of x \(shape \[4, 102\]\) is 102, expected 2 to 100"),
        (changed(flag=False), "flag is False, and the program was captured for True"),
        (changed(flag=torch.ones(2)), r"flag is tensor\(\[1., 1.\]\), and the program was captured for True"),
        (changed(extra={"scalar": torch.ones(())}), "extra has keys scalar, expected a dict with scale"),
        (changed(extra={"scale": 1.0}), r"extra\['scale'\] is of type float, expected a tensor"),
        (changed(more=1), "unknown argument more, expected x, y, flag, extra"),
        ({"x": torch.ones(4, 6)}, "missing argument"),
    ],
)
def test_a_wrong_input_is_named(module: loader.ProgramModule, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        module(**given)
    assert "\n" not in str(caught.value)


def test_a_program_and_its_module_refuse_the_same(path: Path, module: loader.ProgramModule) -> None:
    program = loader.load(path).module()
    for given in (arguments(batch=9), changed(y=torch.ones(5)), arguments(width=102)):
        with pytest.raises(InputError):
            module(**given)
        with pytest.raises((AssertionError, RuntimeError)):
            program(given.pop("x"), given.pop("y"), **given)


def test_too_many_and_repeated_arguments(module: loader.ProgramModule) -> None:
    with pytest.raises(InputError, match="5 arguments, expected 4"):
        module(1, 2, 3, 4, 5)
    with pytest.raises(InputError, match="x is given twice"):
        module(torch.ones(4, 6), **arguments())


def test_keys_may_come_in_another_order(tmp_path: Path) -> None:
    class Pick(torch.nn.Module):
        def forward(self, d: dict[str, torch.Tensor]) -> torch.Tensor:
            return d["x"] - d["y"]

    one, two = torch.ones(2), torch.zeros(2)
    exporter.export(Pick(), ({"x": one, "y": two},), path=tmp_path / "model")
    assert torch.equal(loader.load_module(tmp_path / "model")({"y": two, "x": one}), one)


def test_nan_is_only_nan(tmp_path: Path) -> None:
    class Scale(torch.nn.Module):
        def forward(self, x: torch.Tensor, factor: float) -> torch.Tensor:
            return x * factor

    x = torch.ones(2)
    exporter.export(Scale(), (x, 2.5), path=tmp_path / "number")
    with pytest.raises(InputError, match=r"factor is nan, and the program was captured for 2\.5"):
        loader.load_module(tmp_path / "number")(x, float("nan"))
    exporter.export(Scale(), (x, float("nan")), path=tmp_path / "nan")
    assert loader.load_module(tmp_path / "nan")(x, float("nan")).isnan().all()


def test_a_guard_speaks_of_the_inputs(tmp_path: Path) -> None:
    class Even(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.shape[0] % 2 == 0 else x

    exporter.export(Even(), (torch.ones(4),), path=tmp_path / "model", dynamic_shapes={"x": {0: Dim.AUTO}})
    with pytest.raises(InputError, match=r"the inputs do not fulfil x\.shape\[0\] % 2 == 0"):
        loader.load_module(tmp_path / "model")(torch.ones(5))


def test_a_module_can_be_copied_and_pickled(path: Path, module: loader.ProgramModule) -> None:
    import copy
    import pickle

    expected = module(**arguments())
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(again(**arguments()), expected)


def test_options_that_are_none_are_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="verify is 'complete'; pass one of 'sections', 'full'"):
        loader.load_module(path, verify="complete")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="allow_ops is the text 'torchvision'"):
        loader.load(path, allow_ops="torchvision")


WORDS = re.compile(r"def|run|return|del|slice|dict|zip|None|True|False|[vfckna][0-9]+")


@pytest.mark.parametrize("name", cases())
def test_nothing_of_the_file_stands_in_the_code_that_runs_it_but_numbers(name: str, tmp_path: Path) -> None:
    case = cases()[name]()
    path = tmp_path / "model"
    exporter.export(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes, path=path)
    source = loader.load_module(path)._program.code.source
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    assert tokens
    assert not [token.string for token in tokens if token.type == tokenize.NAME and not WORDS.fullmatch(token.string)]
    assert {token.type for token in tokens} <= {
        *(tokenize.NAME, tokenize.NUMBER, tokenize.OP, tokenize.NEWLINE, tokenize.NL),
        *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
    }
