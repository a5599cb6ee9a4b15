"""Modules that call what is no operator: autograd functions, and classes of wrapper tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo._trace_wrapped_higher_order_op import mod_index
from torch._export.wrappers import allow_in_pre_dispatch_graph
from torch.nn.attention.flex_attention import flex_attention
from torch.testing._internal.two_tensor import TwoTensor

from tests.capture_cases import Case, Module

TWO = TwoTensor.__module__
ADMITTED: dict[str, Any] = {"allow_classes": [__name__, TWO]}


class Scaled(torch.autograd.Function):
    """Multiplies; its gradient is a hundred times that of multiplying."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x * factor

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient * ctx.factor * 100, None

    @classmethod
    @allow_in_pre_dispatch_graph
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        return super().apply(*args, **kwargs)


def indexed() -> Case:
    """Reads by index as masks of attention do: with a function of torch's own."""
    table = torch.nn.Parameter(torch.arange(5.0))
    module = Module(lambda self, x, place: x + mod_index(self.table, [place]), table=table)
    return Case(module, (torch.ones(3, 4), torch.tensor([0, 4, 2, 2])))


def scaled() -> Case:
    """Calls the same function twice, and torch's own."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return mod_index(Scaled.apply(Scaled.apply(self.linear(x), 2.0), -0.5), [torch.tensor([1, 0])])

    return Case(Module(forward, linear=torch.nn.Linear(3, 3)), (torch.ones(2, 3),))


def attention() -> Case:
    """Attention whose scores read a captured tensor."""

    def forward(self: Any, q: torch.Tensor) -> torch.Tensor:
        bias = self.bias
        return flex_attention(q, q, q, score_mod=lambda score, _batch, head, _q, _k: score + bias[head])

    return Case(Module(forward, bias=torch.nn.Buffer(torch.arange(4.0))), (torch.ones(1, 4, 128, 16),))


def wrapped() -> Case:
    """Makes a wrapper tensor of its input."""
    return Case(Module(lambda self, x: (TwoTensor(x, x + 1) * 2).sin()), (torch.ones(2, 3),))


CASES: list[Callable[[], Case]] = [indexed, scaled, attention, wrapped]
