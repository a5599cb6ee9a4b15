"""Stack traces at the price of the few frames that are kept."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from exporter.capture.artifacts import Request
from exporter.capture.progress import Entering
from exporter.torch_internals import STACK_TRACE_ANCHORS, ModuleStackTracer, proxy_tensor, uninteresting_files


class FrameWalkingTracer(ModuleStackTracer):  # type: ignore[misc]
    """torch's module tracer, with the same stack traces made another way.

    torch records and formats the whole Python stack for each node, some 80 frames, and then keeps the few called
    ``forward``. Looking at each frame's name first gives the same text; on a Llama it saves an eighth of the trace.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.records = bool(getattr(self, "record_stack_traces", True))
        self.record_stack_traces = False

    def create_node(self, *args: Any, **kwargs: Any) -> Any:
        """Create a node and note where in the user's ``forward`` it comes from."""
        node = super().create_node(*args, **kwargs)
        wanted = self.records and node.op not in ("placeholder", "output") and not node.stack_trace
        if wanted and (text := _forward_frames(sys._getframe(1))):
            node.stack_trace = text
        return node


def _telling(entering: Entering) -> type[FrameWalkingTracer]:
    """Return the tracer that says which module it enters."""

    class TellingTracer(FrameWalkingTracer):
        def call_module(self, m: torch.nn.Module, *args: Any) -> Any:
            entering(m, self.graph)
            return super().call_module(m, *args)

    return TellingTracer


@contextmanager
def frame_walking(entering: Entering | None) -> Iterator[None]:
    """Make ``make_fx`` use ``FrameWalkingTracer``; it names its tracer by a global and takes no argument for it."""
    module: Any = proxy_tensor
    before = module._ModuleStackTracer
    module._ModuleStackTracer = _telling(entering) if entering else FrameWalkingTracer
    try:
        yield
    finally:
        module._ModuleStackTracer = before


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


def _forward_frames(frame: FrameType | None) -> str:
    kept = []
    while frame is not None:
        code = frame.f_code
        file, name = code.co_filename, code.co_name
        if name == "forward" or file.endswith("torch/__init__.py") or (file, name) in STACK_TRACE_ANCHORS:
            kept.append((file, frame.f_lineno, name))
        frame = frame.f_back
    skipped = uninteresting_files()
    summary = [traceback.FrameSummary(*place, lookup_line=False) for place in reversed(kept) if place[0] not in skipped]
    return "".join(traceback.StackSummary.from_list(summary).format()).strip()
