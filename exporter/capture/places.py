"""Where in the user's own code something happened."""

from __future__ import annotations

import os
import re
import sys
import traceback
from types import FrameType

import torch

from exporter.torch_internals import ShapeEnv
from schema.errors import Loc

_TORCH = os.path.dirname(str(torch.__file__)) + os.sep
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NOT_THE_USERS = (_TORCH, _OURS, "<")


def source_line_of(stack_trace: str | None) -> Loc:
    """Return the innermost line of a node's stack trace."""
    lines = re.findall(r'File "(.*)", line (\d+), in', stack_trace or "")
    return (_line(lines[-1][0], lines[-1][1]),) if lines else ()


def place_of(error: Exception, module: torch.nn.Module) -> Loc:
    """Return the innermost module that was running with the innermost line of the user's: ``0.norm, model.py:12``."""
    names = {id(vars(owner)): name for name, owner in reversed(list(module.named_modules()))}
    inside = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if frame.f_code.co_name == "forward" and isinstance(owner, torch.nn.Module):
            inside = names.get(id(owner.__dict__), inside)
    users, line = users_frame_of(error)
    where = _line(users.f_code.co_filename, line) if users else ""
    place = ", ".join(part for part in (inside, where) if part)
    return (place,) if place else ()


def users_frame_of(error: Exception) -> tuple[FrameType | None, int]:
    """Return the innermost frame that is neither torch's nor ours, or else the innermost ``forward``, and its line."""
    frames = list(traceback.walk_tb(error.__traceback__))
    users = [at for at in frames if not at[0].f_code.co_filename.startswith(_NOT_THE_USERS)]
    forwards = [at for at in frames if at[0].f_code.co_name == "forward"]
    chosen = users or forwards
    return chosen[-1] if chosen else (None, 0)


def running_users_frame() -> FrameType | None:
    """Return the innermost frame that is running and neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame = frame.f_back
    return frame


def place_of_fixing(symbol: str, shape_env: ShapeEnv) -> Loc:
    """Return the line that fixed a symbol; the environment notes it, see ``tracing_environment``."""
    for fixed, at in getattr(shape_env, "replacements_slocs", {}).items():
        if str(fixed) == symbol and isinstance(at.framework_loc, traceback.FrameSummary):
            return (_line(at.framework_loc.filename, at.framework_loc.lineno),)
    return ()


def _line(file: str, line: int | str | None) -> str:
    return f"{os.path.basename(file)}:{line}"
