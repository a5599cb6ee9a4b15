"""Which documented case of ``torch._export.db`` a failure belongs to."""

from __future__ import annotations

import re
from importlib.resources import files

from exporter.torch_internals import GuardOnDataDependentSymNode

CASES_URL = "https://pytorch.org/docs/main/generated/exportdb/index.html#"
"""Where torch documents the cases; its own messages point there."""

_POINTED_TO = re.compile(rf"{re.escape(CASES_URL)}([\w-]+)")
_BY_TYPE: tuple[tuple[type[BaseException], str], ...] = ((GuardOnDataDependentSymNode, "constrain_as_size_example"),)
"""What torch classifies when it captures strictly, and is the same failure otherwise."""


def classify(error: BaseException | None) -> str | None:
    """Return the name of the case, ``cond_operands``; None where torch has none.

    Args:
        error: What torch raised, with its causes.
    """
    while error is not None:
        if case := _case_of(error):
            return case
        error = error.__cause__
    return None


def _case_of(error: BaseException) -> str | None:
    pointed_to = (name.replace("-", "_") for name in _POINTED_TO.findall(str(error)))
    by_type = (name for kind, name in _BY_TYPE if isinstance(error, kind))
    return next(filter(_is_documented, (*pointed_to, *by_type)), None)


def _is_documented(case: str) -> bool:
    # The package itself is not imported: that makes all the examples, which draws random numbers.
    return files("torch").joinpath("_export", "db", "examples", f"{case}.py").is_file()
