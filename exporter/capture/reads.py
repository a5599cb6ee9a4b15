"""What a trace reads of its fake tensors itself: shapes, strides, layouts.

Three modes of the trace see every call of a function. For each placeholder torch reads some twenty attributes, and each
read goes through all three, although only the first does anything about it: it counts. Counts stand in the metadata of
nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from exporter.capture.indexing import RewriteCalls
from exporter.torch_internals import (
    FakeTensor,
    PreDispatchTorchFunctionMode,
    TorchFunctionMetadataMode,
    function_modes,
    unobserved,
)

_ATTRIBUTES = ("device", "dtype", "is_quantized", "layout", "requires_grad", "shape")
_METHODS = ("numel", "storage_offset", "stride")
_READS = frozenset(
    [getattr(torch.Tensor, name).__get__ for name in _ATTRIBUTES] + [getattr(torch.Tensor, name) for name in _METHODS]
)
"""What torch calls when one of these is read."""

_KINDS = (FakeTensor, torch.Tensor)
"""The classes that answer a read without asking anybody; subclasses of the user's do not."""

_OF_TRACES = (TorchFunctionMetadataMode, PreDispatchTorchFunctionMode, RewriteCalls)


class ReadCountingMode(TorchFunctionMetadataMode):  # type: ignore[misc]
    """torch's first mode, which notes what is called; a read is then answered at once.

    Where the user has entered a mode of his own below, it sees reads, too.
    """

    def __init__(self, tracer: Any) -> None:
        super().__init__(tracer)
        self.alone = all(isinstance(mode, _OF_TRACES) for mode in function_modes())

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if not (func in _READS and self.alone and type(args[0]) in _KINDS):
            return super().__torch_function__(func, types, args, kwargs)
        self.tracer.torch_fn_metadata = func
        self.tracer.torch_fn_counts[func] = self.tracer.torch_fn_counts.get(func, 0) + 1
        with unobserved():
            return func(*args, **(kwargs or {}))
