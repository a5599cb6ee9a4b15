"""What the tests of captures and of their refusals share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from exporter.capture import STAGES, capture
from schema.errors import CaptureError


def refused(module: Any, *args: Any, shapes: Any = None, kwargs: Any = None) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        capture(module, args, kwargs, dynamic_shapes=shapes)
    error = caught.value
    assert error.remedy
    assert error.stage in STAGES
    assert "\n" not in str(error)
    return error


def xy(function: Any) -> torch.nn.Module:
    """A module of one argument or two."""

    class Two(torch.nn.Module):
        def forward(self, x, y=None):
            return function(x, y)

    return Two()


class Block(torch.nn.Module):
    """Calls a function in a method that is not ``forward``."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def attend(self, x):
        return self.function(x)

    def forward(self, x):
        return self.attend(x)


ones = torch.ones


def raises(x, y):
    raise ValueError("of my own\nwith a second line")


def asserts(x):
    """Asserts in a file that pytest does not rewrite."""
    assert x.shape[0] > 50
    return x
