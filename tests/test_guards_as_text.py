"""Programs that `torch.export.load` gave have guards only as text: they survive, or their loss is told."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim

import exporter
import loader
from tests.databases.judging import assert_survives

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, while it loads


class Guarded(torch.nn.Module):
    def __init__(self, holds: Callable[[int, int, int], Any]) -> None:
        super().__init__()
        self.holds = holds

    def forward(self, x: torch.Tensor, *more: Any, key: dict[str, Any]) -> torch.Tensor:
        holds = self.holds(x.shape[0], more[1].shape[1], key["k"][0].shape[0])
        return x.sum() + 1 if holds else x.sum() - 1


CONDITIONS: dict[str, Callable[[int, int, int], Any]] = {
    "divisible": lambda a, b, c: a % 2 == 0,
    "sums": lambda a, b, c: 2 * a + 3 != b - c,
    "quotients": lambda a, b, c: a // 2 < b // c,
    "products": lambda a, b, c: a * b * c >= 3 * a * a,
    "powers": lambda a, b, c: a**3 > b,
    "the larger": lambda a, b, c: max(a, b) > c,
    "the smaller": lambda a, b, c: min(a, b, c) <= 17,
    "a fraction": lambda a, b, c: a / b < 0.7,
    "rounded": lambda a, b, c: math.floor(a / 3) != b,
    "truncated": lambda a, b, c: int(a * 1.5) != b + c,
    "absolute": lambda a, b, c: abs(a - b) < 18,
    "several": lambda a, b, c: (a > 3 and b != 4) or c == 9,
}


def loaded_by_torch(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def guarded(holds: Callable[[int, int, int], Any]) -> torch.export.ExportedProgram:
    both = {0: Dim.AUTO, 1: Dim.AUTO}
    inputs = (torch.ones(8, 6), torch.ones(2), torch.ones(4, 12)), {"key": {"k": [torch.ones(5, 3)]}}
    shapes = {"x": both, "more": (None, both), "key": {"k": [both]}}
    return torch.export.export(Guarded(holds), *inputs, dynamic_shapes=shapes)


@pytest.mark.parametrize("name", CONDITIONS)
def test_guards_that_are_only_text_survive(name: str, tmp_path: Path) -> None:
    program = guarded(CONDITIONS[name])
    assert program._guards_code
    assert_survives(loaded_by_torch(program), tmp_path / "program")
    assert loader.load(tmp_path / "program")._guards_code == program._guards_code


@pytest.mark.parametrize(
    "text",
    ["__import__('os').getcwd() != ''", "L['x'].size()[0] % 2", "L['x'].size()[0]%2 == 0", "L['nowhere'] == 1", "("],
)
def test_a_text_that_is_no_guard_is_dropped_with_a_warning(text: str, tmp_path: Path) -> None:
    program = loaded_by_torch(guarded(CONDITIONS["divisible"]))
    program._guards_code.append(text)
    with pytest.warns(UserWarning, match="is only text, in which no condition can be read: it is dropped"):
        exporter.save(program, tmp_path / "program")
    assert loader.load(tmp_path / "program")._guards_code == program._guards_code[:-1]
