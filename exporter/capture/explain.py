"""One error for everything that can go wrong: what, where in the user's own code, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from exporter.capture.artifacts import Symbolic
from exporter.capture.decisions import describe_decision
from exporter.capture.places import Spot, place_of_decision, spot_of
from exporter.capture.stops import INSTEAD, describe_stop, origin_of
from exporter.capture.violations import describe_violation, sizes_of_violation
from exporter.capture.wording import in_words, symbols_of, words_of
from exporter.torch_internals import (
    ConstraintViolationError,
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
    TorchDynamoException,
    UnsupportedOperatorException,
    ValueRangeError,
)
from schema.errors import CaptureError, Loc

Explanation = tuple[str, str]
"""What is wrong, and what to do."""

_CUSTOM_OPERATOR = re.compile(r"There was no fake impl registered for <CustomOpDef\((.+?)\)>")


def explain(error: Exception, stage: str, module: torch.nn.Module, symbolic: Symbolic | None) -> CaptureError:
    """Return the error to raise instead of one that escaped from a stage.

    Args:
        error: What was raised: by the user's module, or by torch.
        stage: The stage that was running.
        module: The user's module.
        symbolic: The inputs as symbols; None before there are any.

    Returns:
        An error with the place in the user's code; the caller chains it to the original.
    """
    spot = spot_of(error, module)
    known = ((how, each) for each in (origin_of(error), error) for kind, how in _EXPLANATIONS if isinstance(each, kind))
    describe, described = next(known, (partial(_unforeseen, stage), error))
    message, remedy = describe(described, symbolic, spot)
    loc = spot.loc or _place_of_decision(error, module, symbolic)
    return CaptureError(message, loc=loc, remedy=remedy, stage=stage)


def lacks_values(error: Exception) -> bool:
    """Whether a run with real values would get over an error."""
    return isinstance(error, _WITHOUT_VALUES) or _CUSTOM_OPERATOR.search(str(error)) is not None


def _place_of_decision(error: Exception, module: torch.nn.Module, symbolic: Symbolic | None) -> Loc:
    """Return the module and the line of the user's that fixed or limited a size of which torch complains."""
    if symbolic is None or not isinstance(error, ConstraintViolationError | ValueRangeError):
        return ()
    symbols = (symbol for size in sizes_of_violation(error) for symbol in symbols_of(size, symbolic))
    return next(filter(None, (place_of_decision(symbol, symbolic.shape_env, module) for symbol in symbols)), ())


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _data_dependent(error: Any, symbolic: Symbolic | None, spot: Spot) -> Explanation:
    return describe_decision(error.cond, spot, symbolic)


def _value_needed(error: Any, _symbolic: Symbolic | None, _spot: Spot) -> Explanation:
    return (
        f"the module needs the value of a tensor while it is traced, through {_operator(error)}",
        "branch with torch.cond, choose with torch.where, or keep the value in a tensor",
    )


def _unsupported(error: Any, _symbolic: Symbolic | None, _spot: Spot) -> Explanation:
    return describe_missing_rule(_operator(error))


def describe_missing_rule(operator: str) -> Explanation:
    """What to say of an operator that cannot run over fakes."""
    return (
        f"{operator} cannot be traced: it has no rule for shapes",
        "register one with torch.library.register_fake, or replace the operator",
    )


def _operator(error: Any) -> str:
    return str(getattr(error, "func", None) or _first_line(error))


def _violation(error: Exception, symbolic: Symbolic | None, _spot: Spot) -> Explanation:
    return describe_violation(error, symbolic)


def _unforeseen(stage: str, error: Exception, symbolic: Symbolic | None, _spot: Spot) -> Explanation:
    first = _first_line(error)
    method = symbolic.bound.request.options.method if symbolic else "forward"
    told = in_words(first, words_of(symbolic))
    what = f"{type(error).__name__}: {told}"
    if custom := _CUSTOM_OPERATOR.search(first):
        return describe_missing_rule(f"{custom[1].replace('::', '.')}.default")
    if stage == "follow":
        return f"Dynamo failed with {what}", INSTEAD
    if stage not in ("trace", "lower"):
        return f"stage {stage!r} failed with {what}", "report this, with the module and the arguments"
    if told != first:
        return f"{method} raised {what}", (
            "this line does not hold for all the sizes that dynamic_shapes admits: fix those that cannot vary, "
            "give equal ones the same Dim, or change the line"
        )
    remedy = "call the module with the same arguments; if that works, this line uses something that cannot be traced"
    return f"{method} raised {what}", remedy


_WITHOUT_VALUES = (
    GuardOnDataDependentSymNode,
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)

_EXPLANATIONS: tuple[tuple[type[Exception], Callable[[Any, Symbolic | None, Spot], Explanation]], ...] = (
    (GuardOnDataDependentSymNode, _data_dependent),
    (DataDependentOutputException, _value_needed),
    (DynamicOutputShapeException, _value_needed),
    (UnsupportedOperatorException, _unsupported),
    (ConstraintViolationError, _violation),
    (ValueRangeError, _violation),
    (TorchDynamoException, describe_stop),
)
