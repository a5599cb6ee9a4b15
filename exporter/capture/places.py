"""Where in the user's own code something happened."""

from __future__ import annotations

import os
import re
import sys
import traceback
from types import FrameType
from typing import Any

import torch

from exporter.torch_internals import ShapeEnv
from schema.errors import Loc

_TORCH = os.path.dirname(str(torch.__file__)) + os.sep
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_CAPTURE = _OURS + "pipeline.py"
_NOT_THE_USERS = (_TORCH, _OURS, "<")
_PYTHONS = os.path.dirname(os.__file__) + os.sep
_INSTALLED = ("site-packages", "dist-packages")
"""Below Python's own folder, but a library is part of the model as much as the user's own files are."""


def place_of_node(node: torch.fx.Node) -> Loc:
    """Return the module that a node comes from, and the innermost line of ``forward``."""
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    lines = re.findall(r'File "(.*)", line (\d+), in', node.meta.get("stack_trace") or "")
    return _place(stack[-1] if stack else "", *(lines[-1] if lines else ()))


def place_of(error: Exception, module: torch.nn.Module) -> Loc:
    """Return the innermost module that was running with the innermost line of the user's: ``0.norm, model.py:12``."""
    names = _names(module)
    modules = [names[key] for frame, _ in traceback.walk_tb(error.__traceback__) if (key := _runs(frame)) in names]
    users, line = users_frame_of(error)
    return _place(modules[-1] if modules else "", *((users.f_code.co_filename, line) if users else ()))


def place_of_decision(symbol: str, shape_env: ShapeEnv, module: torch.nn.Module) -> Loc:
    """Return where a symbol was fixed, or else guarded, or its range made narrower; see ``tracing_environment``."""
    environment: Any = shape_env
    deciders = getattr(environment, "deciders", {})
    fixed = [at for each, at in environment.replacements_slocs.items() if str(each) == symbol]
    guarded = [guard.sloc for guard in environment.guards if list(map(str, guard.expr.free_symbols)) == [symbol]]
    ranges = [at for each, at in environment.var_to_range_sloc.items() if str(each) == symbol]
    for at in (*fixed, *guarded, *(side for each in ranges for side in (each.upper, each.lower))):
        line = (getattr(at.framework_loc, "filename", ""), getattr(at.framework_loc, "lineno", 0))
        if line in deciders:
            return _place(_names(module).get(deciders[line], ""), *line)
    return ()


def users_frame_of(error: Exception) -> tuple[FrameType | None, int]:
    """Return the innermost frame that is the user's, or else the innermost ``forward``, and its line."""
    frames = list(traceback.walk_tb(error.__traceback__))
    users = [at for at in frames if _is_users(at[0])]
    forwards = [at for at in frames if at[0].f_code.co_name == "forward"]
    chosen = users or forwards
    return chosen[-1] if chosen else (None, 0)


def running_users_frame() -> FrameType | None:
    """Return the innermost running frame that is the user's, or else the innermost ``forward``, of this capture."""
    frame: FrameType | None = sys._getframe(1)
    innermost = None
    while frame is not None and frame.f_code.co_filename != _CAPTURE:
        if _is_users(frame):
            return frame
        if frame.f_code.co_name == "forward":
            innermost = innermost or frame
        frame = frame.f_back
    return innermost


def running_place(module: torch.nn.Module) -> Loc:
    """Return the innermost module that is running with the innermost line of the user's."""
    frame = running_users_frame()
    inside = _names(module).get(running_module(frame), "")
    return _place(inside, *((frame.f_code.co_filename, frame.f_lineno) if frame else ()))


def running_module(frame: FrameType | None) -> int | None:
    """Return the key of the innermost module that runs a frame."""
    while frame is not None and (key := _runs(frame)) is None:
        frame = frame.f_back
    return key if frame is not None else None


def _is_users(frame: FrameType) -> bool:
    """Whether a frame is neither torch's nor ours nor Python's."""
    file = frame.f_code.co_filename
    if file.startswith(_PYTHONS):
        return any(folder in file for folder in _INSTALLED) and not file.startswith(_NOT_THE_USERS)
    return not file.startswith(_NOT_THE_USERS)


def _runs(frame: FrameType) -> int | None:
    """Return the key of the module whose ``forward`` a frame is, None if it is something else."""
    owner = frame.f_locals.get("self") if frame.f_code.co_name == "forward" else None
    return id(vars(owner)) if isinstance(owner, torch.nn.Module) else None


def _names(module: torch.nn.Module) -> dict[int | None, str]:
    """Names by key; the key is the dictionary of attributes, which torch's proxies of a module share with it."""
    return {id(vars(owner)): name for name, owner in reversed(list(module.named_modules()))}


def _place(module: str, file: str = "", line: int | str | None = None) -> Loc:
    place = ", ".join(filter(None, (module, f"{os.path.basename(file)}:{line}" if file else "")))
    return (place,) if place else ()
