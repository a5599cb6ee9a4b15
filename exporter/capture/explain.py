"""One error for everything that can go wrong: what, where in the user's own code, and what to do about it."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

from exporter.torch_internals import (
    ConstraintViolationError,
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
    UnsupportedOperatorException,
    ValueRangeError,
)
from schema.errors import CaptureError, Loc

_TORCH = os.path.dirname(str(torch.__file__)) + os.sep
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep

Explanation = tuple[str, str]
"""What is wrong, and what to do."""


def explain(error: Exception, stage: str, module: torch.nn.Module) -> CaptureError:
    """Return the error to raise instead of one that escaped from a stage.

    Args:
        error: What was raised: by the user's module, or by torch.
        stage: The stage that was running.
        module: The user's module.

    Returns:
        An error with the place in the user's code; the caller chains it to the original.
    """
    describe = next((how for kind, how in _EXPLANATIONS if isinstance(error, kind)), None)
    message, remedy = describe(error) if describe else _unforeseen(error, stage)
    return CaptureError(message, loc=_place(error, module), remedy=remedy, stage=stage)


def source_line_of(stack_trace: str | None) -> Loc:
    """Return the innermost line of a node's stack trace."""
    lines = re.findall(r'File "(.*)", line (\d+), in', stack_trace or "")
    return (f"{os.path.basename(lines[-1][0])}:{lines[-1][1]}",) if lines else ()


def _place(error: Exception, module: torch.nn.Module) -> Loc:
    """Return the innermost module that was running, and the innermost line of the user's."""
    names = {id(vars(owner)): name for name, owner in reversed(list(module.named_modules()))}
    inside = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if frame.f_code.co_name == "forward" and isinstance(owner, torch.nn.Module):
            inside = names.get(id(owner.__dict__), inside)
    users, line = _users_frame(error)
    where = f"{os.path.basename(users.f_code.co_filename)}:{line}" if users else ""
    return tuple(part for part in (inside, where) if part)


def _users_frame(error: Exception) -> tuple[FrameType | None, int]:
    """Return the innermost frame that is neither torch's nor ours, or else the innermost ``forward``, and its line."""
    frames = list(traceback.walk_tb(error.__traceback__))
    users = [at for at in frames if not at[0].f_code.co_filename.startswith((_TORCH, _OURS, "<"))]
    forwards = [at for at in frames if at[0].f_code.co_name == "forward"]
    chosen = users or forwards
    return chosen[-1] if chosen else (None, 0)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _data_dependent(error: Any) -> Explanation:
    frame, _ = _users_frame(error)
    words = _names_of_symbols(frame.f_locals if frame else {})
    condition, opposite = (_in_words(cond, words) for cond in (error.cond, getattr(error.cond, "negated", None)))
    checks = f": torch._check({condition}) or torch._check({opposite})" if opposite else ""
    return (
        f"the module decides by a value that is known only at run time: {condition}",
        f"branch with torch.cond or torch.where, or state what always holds{checks or ' with torch._check'}",
    )


def _in_words(condition: Any, words: dict[str, str]) -> str:
    """Write a condition with the user's names for its symbols."""
    if condition is None:
        return ""
    relation = getattr(condition, "rel_op", None)
    text = f"{condition.lhs} {relation} {condition.rhs}" if relation else str(condition)
    return re.sub(r"\b[a-z]+\d+\b", lambda found: words.get(found[0], found[0]), text)


def _names_of_symbols(variables: dict[str, Any]) -> dict[str, str]:
    words: dict[str, str] = {}
    for name, value in variables.items():
        if isinstance(value, torch.SymInt | torch.SymFloat):
            words[str(value.node.expr)] = name
        elif isinstance(value, torch.Tensor):
            sizes: tuple[Any, ...] = tuple(value.shape)
            for index, size in enumerate(sizes):
                if isinstance(size, torch.SymInt):
                    words.setdefault(str(size.node.expr), f"{name}.shape[{index}]")
    return words


def _value_needed(error: Any) -> Explanation:
    return (
        f"the module needs the value of a tensor while it is traced, through {_operator(error)}",
        "branch with torch.cond, choose with torch.where, or keep the value in a tensor",
    )


def _unsupported(error: Any) -> Explanation:
    return (
        f"{_operator(error)} cannot be traced: it has no rule for shapes",
        "register one with torch.library.register_fake, or replace the operator",
    )


def _operator(error: Any) -> str:
    return str(getattr(error, "func", None) or _first_line(error))


def _constraint(error: Exception) -> Explanation:
    text = str(error)
    fixes = [line.strip() for line in text.partition("Suggested fixes:")[2].splitlines() if line.strip()]
    reasons = re.findall(r"^\s*- (.*)$", text, flags=re.MULTILINE)
    reason = reasons[0].rstrip(".") if reasons else _first_line(error)
    remedy = f"specify {', '.join(fixes)}" if fixes else "use Dim.AUTO and let the module decide"
    return f"the module does not hold for all the sizes that dynamic_shapes admits: {reason}", remedy


def _unforeseen(error: Exception, stage: str) -> Explanation:
    what = f"{type(error).__name__}: {_first_line(error)}"
    if stage == "trace":
        remedy = (
            "call the module with the same arguments; if that works, this line uses something that cannot be traced"
        )
        return f"forward raised {what}", remedy
    return f"stage {stage!r} failed with {what}", "report this, with the module and the arguments"


_EXPLANATIONS: tuple[tuple[type[Exception], Callable[[Any], Explanation]], ...] = (
    (GuardOnDataDependentSymNode, _data_dependent),
    (DataDependentOutputException, _value_needed),
    (DynamicOutputShapeException, _value_needed),
    (UnsupportedOperatorException, _unsupported),
    (ConstraintViolationError, _constraint),
    (ValueRangeError, _constraint),
)
