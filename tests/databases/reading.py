"""Programs read from files: the half of a survival that has nothing of the models.

This module must import nothing that imports the suites.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

from torch.testing._internal.common_utils import DeterministicGuard

import exporter
import loader
from loader.opening import open_method
from tests.databases.tasks import TRUSTED, one_line
from tests.program_text import program_texts

_REGISTER = ("torch.testing._internal.hop_db", "torch.testing._internal.custom_op_db", "transformers.integrations.moe")
"""What must be imported all the same: it registers the custom operators of the suites."""


def read(name: str) -> Iterator[str]:
    """Load a program and compare it with what it said when it was saved.

    Args:
        name: Path of the archive.

    Yields:
        Why the program did not survive, or an empty text.
    """
    for registers in _REGISTER:
        importlib.import_module(registers)
    try:
        _assert_survived(Path(name))
    except Exception as error:  # whatever it is, the program did not survive
        yield one_line(error) or type(error).__name__
    else:
        yield ""


def _assert_survived(path: Path) -> None:
    program = loader.load(path, debug=True, allow_ops=TRUSTED)
    found, expected = program_texts(program), json.loads(path.with_suffix(".texts").read_text())
    assert list(found) == list(expected), f"says other things: {sorted(found.keys() ^ expected.keys())}"
    for where, text in expected.items():
        assert found[where] == text, f"{where}: {_where_they_part(found[where], text)}"
    with open_method(path, allow_ops=TRUSTED) as opened:
        recorded = opened.method.expected
    # Outputs are recorded anew: what they are is a part of the bytes.
    second = path.with_suffix(".second")
    with DeterministicGuard(True, warn_only=True):
        exporter.save(program, second, keep_paths=True, record_outputs=recorded is not None)
    assert second.read_bytes() == path.read_bytes(), "other bytes, or outputs, when saved again"


def _where_they_part(found: str, expected: str) -> str:
    place = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), 0)
    return f"{found[max(place - 40, 0) : place + 60]!r}, not {expected[max(place - 40, 0) : place + 60]!r}"
