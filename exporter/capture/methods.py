"""Several methods of one module, as programs that share its parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch

from exporter.capture.artifacts import IR, DynamicShapes
from exporter.capture.pipeline import capture
from exporter.events import Event
from schema.errors import CaptureError


@dataclass(frozen=True)
class Call:
    """How a method is called.

    Attributes:
        args: Example positional arguments.
        kwargs: Example keyword arguments.
        dynamic_shapes: Which dimensions vary, by argument; what is left out is fixed.
    """

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] | None = None
    dynamic_shapes: DynamicShapes = None


class CaptureOptions(TypedDict, total=False):
    """The options of ``capture`` that do not depend on the arguments of a call."""

    strict: bool
    ir: IR
    preserve_module_call_signature: Sequence[str]
    prefer_deferred_runtime_asserts: bool
    joint_loss_index: int | None
    on_event: Callable[[Event], None] | None


def capture_methods(
    module: torch.nn.Module, calls: Mapping[str, Call], **options: Unpack[CaptureOptions]
) -> dict[str, torch.export.ExportedProgram]:
    """Capture several methods of a module.

    Args:
        module: The module to capture.
        calls: How each method is called, by its name.
        **options: As for ``capture``; they hold for all methods.

    Returns:
        A program for each method. Their parameters and buffers are the same tensors.

    Raises:
        CaptureError: A method cannot be captured. The error names it.
    """
    if not isinstance(calls, Mapping) or not calls or not all(isinstance(call, Call) for call in calls.values()):
        raise CaptureError(
            "the methods are not described by calls",
            loc=("methods",),
            remedy='pass {"encode": Call((x,)), "decode": Call((y,), dynamic_shapes=...)}',
        )
    return {
        name: capture(module, call.args, call.kwargs, dynamic_shapes=call.dynamic_shapes, method=name, **options)
        for name, call in calls.items()
    }
