"""Stack traces and source names: the ``debug`` section."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from exporter.emit.tables import Table
from exporter.torch_internals import OpOverloadPacket
from schema import debug as documents

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

_FILE = re.compile(r'(?<=File ")([^"\n]+)(?=")')
_GENERATED = re.compile(r"<eval_with_key>\.\d+")
"""Generated code; torch numbers it through a whole process, so the number says nothing."""

_FRAME = re.compile(r"(?m)^(?=  File )")


def _path_shortener() -> Callable[[str], str]:
    """Gives source paths without what tells of the machine: relative to where Python finds it, else the bare name."""
    roots = [PurePath(root) for root in sorted(filter(None, sys.path), key=len, reverse=True)]

    def shorten(path: str) -> str:
        pure = PurePath(path)
        if not pure.is_absolute():
            return path
        root = next((root for root in roots if pure.is_relative_to(root)), None)
        return pure.relative_to(root).as_posix() if root else pure.name

    return cache(shorten)


def emit_debug(modules: list[fx.GraphModule], *, keep_paths: bool) -> documents.Debug:
    """The whole section.

    Args:
        modules: The graph modules, in the order of the ``graph`` section.
        keep_paths: Whether to keep absolute paths of source files.
    """
    emitter = _DebugEmitter(str if keep_paths else _path_shortener())
    nodes = [emitter.nodes([node.meta for node in module.graph.nodes]) for module in modules]
    return documents.Debug(
        frames=emitter.frames.rows, stacks=emitter.stacks.rows, sources=emitter.sources.rows, nodes=nodes
    )


class _DebugEmitter:
    def __init__(self, shorten: Callable[[str], str]) -> None:
        self.frames: Table[str] = Table()
        self.stacks: Table[list[int]] = Table()
        self.sources: Table[list[documents.SourceName]] = Table()
        self._shorten = shorten

    def nodes(self, metas: list[dict[str, Any]]) -> documents.NodesDebug:
        stacks = [self._stack(meta["stack_trace"] or "") if "stack_trace" in meta else 0 for meta in metas]
        sources = [self._sources(meta["source_fn_stack"]) if meta.get("source_fn_stack") else 0 for meta in metas]
        return documents.NodesDebug(stacks, sources)

    def _stack(self, text: str) -> int:
        return 1 + self.stacks.find(text, self._stack_row, text)

    def _stack_row(self, text: str) -> list[int]:
        return [self.frames.find(part, self._frame, part) for part in _FRAME.split(text) if part]

    def _frame(self, text: str) -> str:
        return _GENERATED.sub("<eval_with_key>", _FILE.sub(lambda match: self._shorten(match[0]), text))

    def _sources(self, stack: list[tuple[str, Any]]) -> int:
        rows = [documents.SourceName(name, qualified_name(function)) for name, function in stack]
        return 1 + self.sources.place(rows)


def qualified_name(function: Any) -> str:
    """The name under which debug information mentions a function or class; a name stays as it is."""
    if isinstance(function, str):
        return function
    if isinstance(function, OpOverloadPacket):  # has the name of the C++ function behind it
        return f"torch.ops.{function}"
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}".lstrip(".")
