"""Where in the user's own code something happened."""

from __future__ import annotations

import linecache
import os
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from exporter.torch_internals import InstructionTranslator, ShapeEnv
from schema.errors import Loc

_TORCH = os.path.dirname(str(torch.__file__)) + os.sep
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_CAPTURE = _OURS + "pipeline.py"
_NOT_THE_USERS = (_TORCH, _OURS, "<")
_PYTHONS = os.path.dirname(os.__file__) + os.sep
_INSTALLED = ("site-packages", "dist-packages")
"""Below Python's own folder, but a library is part of the model as much as the user's own files are."""

_READ_LINE = re.compile(r"# (.+):(\d+) in ")
"""The line that Dynamo was reading, as the shape environment notes it."""

_READ_ROOT = "._export_root."
"""Where the names of submodules begin in what Dynamo calls a module."""


def place_of_node(node: torch.fx.Node) -> Loc:
    """Return the module that a node comes from, and the innermost line of ``forward``."""
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    lines = re.findall(r'File "(.*)", line (\d+), in', node.meta.get("stack_trace") or "")
    return _place(stack[-1] if stack else "", *(lines[-1] if lines else ()))


@dataclass(frozen=True)
class Spot:
    """What of the user's was running: the innermost module, and the innermost line.

    Attributes:
        module: The qualified name of the module.
        file: The file of the line.
        line: Its number.
        variables: The local variables there.
    """

    module: str = ""
    file: str = ""
    line: int = 0
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loc(self) -> Loc:
        """The place for an error: ``0.norm, model.py:12``."""
        return _place(self.module, self.file, self.line)

    @property
    def code(self) -> str:
        """The line itself."""
        return linecache.getline(self.file, self.line).strip()


def spot_of(error: Exception, module: torch.nn.Module) -> Spot:
    """Return what was running when an error was raised, or what Dynamo was reading."""
    if readers := _readers(error):
        return _read_spot(readers)
    names, frames = _names(module), list(traceback.walk_tb(error.__traceback__))
    modules = [names[key] for frame, _ in frames if (key := _runs(frame)) in names]
    users = [at for at in frames if _is_users(at[0].f_code.co_filename)]
    chosen = users or [at for at in frames if at[0].f_code.co_name == "forward"]
    inside = modules[-1] if modules else ""
    if not chosen:
        return Spot(inside)
    frame, line = chosen[-1]
    return Spot(inside, frame.f_code.co_filename, line, frame.f_locals)


def _readers(error: BaseException | None) -> list[Any]:
    """Return Dynamo's readers, one for each function of the user's that was running; a cause may know more of them."""
    if error is None:
        return []
    owners = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    readers = [owner for owner in owners if isinstance(owner, InstructionTranslator)]
    return max(readers, _readers(error.__cause__ or error.__context__), key=len)


def _read_spot(readers: list[Any]) -> Spot:
    users = [reader for reader in readers if _is_users(reader.f_code.co_filename)]
    if not users:
        return Spot()
    modules = [path for path, _ in users[-1].nn_module_stack.values()]
    return Spot(
        modules[-1].partition(_READ_ROOT)[2] if modules else "",
        users[-1].f_code.co_filename,
        users[-1].lineno,
        {name: _example(variable) for name, variable in users[-1].symbolic_locals.items()},
    )


def _example(variable: Any) -> Any:
    """Return the fake or symbol that a variable stands for in Dynamo."""
    proxy = vars(variable.unwrap()).get("proxy")
    return proxy.node.meta.get("example_value") if proxy is not None else None


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
        if read := _READ_LINE.search(at.maybe_user_loc or ""):
            return _place("", *read.groups())
    return ()


def running_users_frame() -> FrameType | None:
    """Return the innermost running frame that is the user's, or else the innermost ``forward``, of this capture."""
    frame: FrameType | None = sys._getframe(1)
    innermost = None
    while frame is not None and frame.f_code.co_filename != _CAPTURE:
        if _is_users(frame.f_code.co_filename):
            return frame
        if frame.f_code.co_name == "forward":
            innermost = innermost or frame
        frame = frame.f_back
    return innermost


def running_spot(module: torch.nn.Module) -> Spot:
    """Return what is running."""
    frame = running_users_frame()
    inside = _names(module).get(running_module(frame), "")
    return Spot(inside, frame.f_code.co_filename, frame.f_lineno, frame.f_locals) if frame else Spot(inside)


def running_module(frame: FrameType | None) -> int | None:
    """Return the key of the innermost module that runs a frame."""
    while frame is not None and (key := _runs(frame)) is None:
        frame = frame.f_back
    return key if frame is not None else None


def _is_users(file: str) -> bool:
    """Whether a file is neither torch's nor ours nor Python's."""
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
