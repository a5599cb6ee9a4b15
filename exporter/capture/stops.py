"""Why Dynamo stopped, told from its own long messages."""

from __future__ import annotations

import re

from exporter.capture.artifacts import Symbolic
from exporter.capture.decisions import describe_decision
from exporter.capture.places import Spot
from exporter.torch_internals import TorchDynamoException

INSTEAD = "change this line, or capture with strict=False, which runs forward and does not read it"

_RAISED = re.compile(r"(?:got|raised exception) (\w+)\((?:\[ConstantVariable\(\w+: )?(['\"])(.*?)\2")
_EXPLANATION = re.compile(r"^\s*Explanation: (.+)$", flags=re.MULTILINE)
_MORE = re.compile(r"\.(`?) .*$")
"""All sentences but the first."""


def origin_of(error: Exception) -> BaseException:
    """Return the error that Dynamo met, where it raised another one instead."""
    origin: BaseException | None = error
    while isinstance(origin, TorchDynamoException):
        origin = origin.__cause__ or origin.__context__
    return origin or error


def describe_stop(error: TorchDynamoException, symbolic: Symbolic | None, spot: Spot) -> tuple[str, str]:
    """Describe why Dynamo stopped.

    Args:
        error: What Dynamo raised.
        symbolic: The inputs.
        spot: What it was reading.

    Returns:
        What is wrong, and what to do.
    """
    text = str(error)
    title = text.partition("\n")[0].rstrip(".")
    if raised := _RAISED.search(text):
        kind, _, message = raised.groups()
        first = message.partition(r"\n")[0].rstrip(".")
        return f"forward raised {kind}: {first}", "call the module with the same arguments; if that works, " + INSTEAD
    if title.startswith("Data-dependent branching"):
        return describe_decision(None, spot, symbolic)
    if title.startswith("Assertion failed on symbolic shapes"):
        return (
            f"the module asserts what does not hold for all the sizes that dynamic_shapes admits: `{spot.code}`",
            "narrow the range in dynamic_shapes, or use Dim.AUTO and torch._check in place of assert",
        )
    found = _EXPLANATION.search(text)
    reason = _MORE.sub(r"\1", found[1] if found else title).rstrip(".")
    return reason if reason.startswith("Dynamo ") else f"Dynamo cannot follow forward: {reason}", INSTEAD

