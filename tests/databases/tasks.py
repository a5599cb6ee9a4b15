"""Cases to work on, and how failures are told; without the suites themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schema.errors import CaptureError

if TYPE_CHECKING:
    from tests.databases.samples import Choice

TRUSTED = ("testlib", "transformers", "inline_asm_elementwise")
"""Namespaces of custom operators that the suites register, and an operator that runs text."""


@dataclass(frozen=True)
class Task:
    """One case of a suite in one mode: all of its samples from a number on."""

    suite: str
    name: str
    mode: str
    choice: Choice
    first: int = 0


def one_line(error: BaseException) -> str:
    """Say an error in one line: its kind, and ours with its place."""
    text = " | ".join(line.strip() for line in str(error).splitlines() if line.strip())
    kind = "" if isinstance(error, CaptureError | AssertionError) else f"{type(error).__name__}: "
    return f"{kind}{text}"[:300]
