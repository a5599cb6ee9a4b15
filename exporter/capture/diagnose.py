"""What else keeps a module from being captured, when it fails for a value or for a rule that fakes do not have.

A second run knows the values of the example beside the fakes. It goes on where the first one had to stop, and notes
each such place.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from exporter.capture.artifacts import Bound, Symbolic
from exporter.capture.decisions import describe_decision
from exporter.capture.explain import describe_missing_rule, explain, lacks_values
from exporter.capture.places import Spot, running_spot
from exporter.capture.symbolize import symbolize
from exporter.capture.trace import trace
from exporter.events import Report
from exporter.torch_internals import fake_tensor, functorch_config, pytree
from schema.errors import CaptureError

_LARGEST = 2**30
"""The second run copies parameters, buffers and inputs and computes with them: not worth it above so many bytes."""


def diagnose(failure: CaptureError, error: Exception, symbolic: Symbolic | None) -> CaptureError:
    """Look for more failures of the same kind, in one more run.

    Args:
        failure: The first failure, explained.
        error: What was raised there.
        symbolic: What was being traced.

    Returns:
        One error for all of them; the first failure alone where the second run finds no more, or fails itself.
    """
    if symbolic is None or symbolic.bound.request.options.strict or not lacks_values(error):
        return failure
    if _bytes_of(symbolic) > _LARGEST:
        return failure
    found: dict[Any, CaptureError] = {}
    for each in (failure, *_failures(symbolic.bound)):
        line = str(*each.loc[:1]).rpartition(", ")[2]  # counts once, in however many modules it runs
        found.setdefault((each.message, line), each)
    return failure if len(found) == 1 else _together(list(found.values()))


def _together(failures: list[CaptureError]) -> CaptureError:
    first, told = failures[0], set()
    lines = []
    for number, each in enumerate(failures, 1):
        remedy = "" if each.remedy in told else f"; {each.remedy}"
        told.add(each.remedy)
        lines.append(f"({number}) {'.'.join(map(str, each.loc))}: {each.message}{remedy}")
    message = f"the capture fails at {len(failures)} places: {'; '.join(lines)}"
    return CaptureError(message, loc=first.loc, remedy="change all of these places", stage=first.stage)


def _failures(bound: Bound) -> list[CaptureError]:
    found: list[CaptureError] = []
    symbolic = None
    try:
        with _real_values():
            symbolic = symbolize(replace(bound, request=replace(bound.request, report=Report())))
            with _noted(symbolic, found):
                trace(symbolic)
    except Exception as error:  # whatever ends this run, what it has found holds
        if lacks_values(error):
            found.append(explain(error, "trace", bound.request.module, symbolic))
    return found


@contextmanager
def _real_values() -> Iterator[None]:
    with (
        functorch_config.patch(fake_tensor_propagate_real_tensors=True),
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


@contextmanager
def _noted(symbolic: Symbolic, found: list[CaptureError]) -> Iterator[None]:
    """Note where the run is told a value, and where it makes up a rule for shapes from an operator's real output."""
    module = symbolic.bound.request.module
    env: Any = symbolic.shape_env
    mode: Any = symbolic.mode
    infer = fake_tensor.inferred_fake_kernel_from_real_out

    def note(spot: Spot, message: str, remedy: str) -> None:
        found.append(CaptureError(message, loc=spot.loc, remedy=remedy, stage="trace"))

    def note_decision(condition: Any, _: Any) -> None:
        spot = running_spot(module)
        note(spot, *describe_decision(condition, spot, symbolic))

    def note_missing_rule(_: Any, operator: Any, output: Any) -> Any:
        note(running_spot(module), *describe_missing_rule(str(operator)))
        # torch would make all the sizes unknown, and whatever uses them would seem to decide by values.
        return pytree.tree_map_only(torch.Tensor, lambda real: mode.from_tensor(real, static_shapes=True), output)

    def not_compared(_func: Any, _fakes: Any, _reals: Any, fake_output: Any, _real_output: Any) -> Any:
        return fake_output  # comparing decides by values too

    mode._maybe_infer_fake_kernel_from_pytree_out = not_compared
    env._log_real_tensor_propagation = note_decision
    fake_tensor.inferred_fake_kernel_from_real_out = note_missing_rule
    try:
        yield
    finally:
        fake_tensor.inferred_fake_kernel_from_real_out = infer
        del env._log_real_tensor_propagation, mode._maybe_infer_fake_kernel_from_pytree_out


def _bytes_of(symbolic: Symbolic) -> int:
    tensors = [*symbolic.state.real.values(), *(leaf.value for leaf in symbolic.bound.leaves)]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
