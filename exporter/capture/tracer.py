"""The tracer of ``make_fx``, with the same nodes made with less work."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import torch

from exporter.capture.artifacts import Request
from exporter.capture.progress import Entering
from exporter.capture.reads import ReadCountingMode
from exporter.torch_internals import (
    ARGUMENT_SHORTCUTS,
    STACK_TRACE_ANCHORS,
    ModuleStackTracer,
    OpOverload,
    proxy_tensor,
    uninteresting_files,
)

_Line = tuple[int, int]
"""A line of a function that is running: the identity of its code, and the number."""


class FrugalTracer(ModuleStackTracer):  # type: ignore[misc]
    """torch's module tracer; what it finds out for every node anew is found out once for each kind of node.

    torch records and formats the whole Python stack for each node, some 80 frames, and then keeps the few called
    ``forward``. Looking at each frame's function first gives the same text, and equal layers share it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.records = bool(getattr(self, "record_stack_traces", True))
        self.record_stack_traces = False
        self.functions: dict[int, tuple[CodeType, bool]] = {}  # by identity: the hash of code is costly
        self.texts: dict[tuple[_Line, ...], str] = {}

    def create_node(self, *args: Any, **kwargs: Any) -> Any:
        """Create a node and note where in the user's ``forward`` it comes from."""
        node = super().create_node(*args, **kwargs)
        wanted = self.records and node.op not in ("placeholder", "output") and not node.stack_trace
        if wanted and (text := self._stack_trace(sys._getframe(1))):
            node.stack_trace = text
        return node

    def create_arg(self, a: Any) -> Any:
        """Convert an argument; torch has shortcuts for common types, but tries the rare types before them."""
        shortcut = ARGUMENT_SHORTCUTS.get(type(a))
        return super().create_arg(a) if shortcut is None else shortcut(self, a)

    def _stack_trace(self, frame: FrameType | None) -> str:
        functions, place = self.functions, []
        while frame is not None:
            code = frame.f_code
            key = id(code)
            if key not in functions:
                functions[key] = code, _is_kept(code)
            if functions[key][1]:
                place.append((key, frame.f_lineno))
            frame = frame.f_back
        lines = tuple(place)
        if lines not in self.texts:
            self.texts[lines] = _formatted([(functions[key][0], line) for key, line in lines])
        return self.texts[lines]


def _is_kept(code: CodeType) -> bool:
    file, name = code.co_filename, code.co_name
    wanted = name == "forward" or file.endswith("torch/__init__.py") or (file, name) in STACK_TRACE_ANCHORS
    return wanted and file not in uninteresting_files()


def _formatted(lines: list[tuple[CodeType, int]]) -> str:
    frames = [
        traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False)
        for code, line in reversed(lines)
    ]
    return "".join(traceback.StackSummary.from_list(frames).format()).strip()


def _telling(entering: Entering) -> type[FrugalTracer]:
    """Return the tracer that says which module it enters."""

    class TellingTracer(FrugalTracer):
        def call_module(self, m: torch.nn.Module, *args: Any) -> Any:
            entering(m, self.graph)
            return super().call_module(m, *args)

    return TellingTracer


@contextmanager
def frugal_tracing(entering: Entering | None) -> Iterator[None]:
    """Make ``make_fx`` use ``FrugalTracer`` and more; it names them by globals and takes no arguments for them."""
    module: Any = proxy_tensor
    frugal = {
        "_ModuleStackTracer": _telling(entering) if entering else FrugalTracer,
        "TorchFunctionMetadataMode": ReadCountingMode,
        "_should_save_eager_input_vals": _once_for_each_operator(module._should_save_eager_input_vals),
    }
    before = {name: getattr(module, name) for name in frugal}
    try:
        vars(module).update(frugal)
        yield
    finally:
        vars(module).update(before)


@contextmanager
def in_stack_traces(request: Request) -> Iterator[None]:
    """Let the frames of another method than ``forward`` belong into stack traces, too."""
    other = request.options.method != "forward"  # a forward of another name in its code has none, as in torch
    code = getattr(inspect.unwrap(request.method), "__code__", None)
    place = {(code.co_filename, code.co_name)} if other and code else set()
    added = place - STACK_TRACE_ANCHORS
    STACK_TRACE_ANCHORS.update(added)
    try:
        yield
    finally:
        STACK_TRACE_ANCHORS.difference_update(added)


def _once_for_each_operator(decide: Any) -> Any:
    """Remember what is decided by an operator's tags alone; for a higher-order operator it depends on the call."""
    decided: dict[OpOverload, bool] = {}

    def remembered(target: Any, call: Any = None) -> bool:
        if not isinstance(target, OpOverload):
            return bool(decide(target, call))
        if target not in decided:
            decided[target] = decide(target)
        return decided[target]

    return remembered
