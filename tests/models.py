"""Small models, one for each thing that an archive must carry."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.export import Dim


class Case(NamedTuple):
    """A module and how to capture it."""

    module: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012
    dynamic_shapes: Any = None


class Point(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclasses.dataclass
class Pair:
    first: torch.Tensor
    second: torch.Tensor | None = None


torch.utils._pytree.register_dataclass(Pair, serialized_type_name="tests.models.Pair")


class Tied(nn.Module):
    """Tied weights, a non-persistent buffer, a constant on a module, an inline constant, a keyword argument."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)
        self.shift = torch.arange(10.0)

    def forward(self, ids: torch.Tensor, *, bias: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(ids)) * self.scale + self.shift + torch.tensor([1.0, 2.0] * 5) + bias


class Counter(nn.Module):
    """Buffers that the program changes, in place and by assignment, under batch norm in training."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return self.norm(self.convolution(image)).relu() + self.calls


class Nested(nn.Module):
    """Containers of every kind in and out, None and plain values among them."""

    def forward(
        self, items: dict[str, Any], point: Point, pair: Pair, scale: float, name: str, nothing: None
    ) -> dict[str, Any]:
        total = items["a"] + items["b"][0] * scale + point.x - pair.first
        ordered = collections.OrderedDict(total=total, parts=[total + 1, (point.y, nothing)])
        return {"ordered": ordered, "point": Point(total, point.y), "pair": Pair(total), "count": 3, "name": name}


class Dynamic(nn.Module):
    """Backed and unbacked symbols, a guard, a region without gradients, a symbolic number returned."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        found = y.nonzero()
        torch._check(found.shape[0] < 100)
        with torch.no_grad():
            z = self.linear(x)
        if x.shape[0] % 2 == 0:
            z = z + 1
        return {"z": z, "found": found, "sum": x.sum().to(torch.int64).item(), "double": x.shape[0] * 2}


class Branch(nn.Module):
    """Subgraphs that close over weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.cond(x.sum() > 0, lambda x: (self.linear(x), x + 1), lambda x: (x - 1, x * 2), (x,))


class Odd(nn.Module):
    """Weights that are views: transposed, sliced, expanded, overlapping, empty; and rarer element types."""

    def __init__(self) -> None:
        super().__init__()
        base = torch.arange(24.0).reshape(4, 6)
        self.transposed = nn.Parameter(base.clone().t())
        self.register_buffer("left", base[:, :3])
        self.register_buffer("overlapping", base[1:, 1:4])
        self.register_buffer("expanded", torch.ones(4, 1).expand(4, 3))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("column", torch.ones(3, 1).as_strided((3, 1), (1, 7)))
        self.register_buffer("nothing", torch.zeros(3, 0).as_strided((3, 0), (1, 3)))
        self.register_buffer("scalar", torch.tensor(3.0, dtype=torch.float64))
        self.register_buffer("imaginary", torch.ones(3, dtype=torch.complex128))
        self.register_buffer("brain", torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("eighth", torch.ones(3).to(torch.float8_e4m3fnuz))
        self.register_buffer("unsigned", torch.ones(3, dtype=torch.uint16))
        self.register_buffer("image", torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        total = x @ self.transposed.t() + 0 * self.left.sum() + self.overlapping.sum() + self.expanded.sum()
        rest = self.imaginary.real + self.brain + self.eighth.to(torch.float32) + self.unsigned.to(torch.float32)
        return total * self.scalar, torch.cat([self.empty, rest[None]]), self.image * 2


class Arguments(nn.Module):
    """Arguments of every kind to operators."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a = torch.full((2, 2), float("inf"), dtype=torch.float64)
        b = x.to(memory_format=torch.contiguous_format).to(torch.float16)
        c = x[:, torch.tensor([0])].masked_fill(x[:, :1] > 1, float("-inf"))
        d, e = x.max(dim=1)
        f = torch.nn.functional.pad(x, (1, 2), value=-0.0)
        g = torch.einsum("ij,kj->ik", x, x)
        return a, b, c, d, e, f, g, x.split([1, 2], dim=1)[1], torch.zeros(2, dtype=torch.complex64) + 1j


class Random(nn.Module):
    """Operators that draw from the random state."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        drawn = torch.bernoulli(x.sigmoid()) + torch.normal(x, 1.0) + torch.rand_like(x)
        return (
            drawn.clone().uniform_(-1, 1),
            torch.multinomial(x.abs() + 1, 2),
            nn.functional.rrelu(drawn, training=True),
        )


class Shaped(nn.Module):
    """A shape as an input."""

    def forward(self, x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return x.reshape(shape)


def cases() -> dict[str, Callable[[], Case]]:
    """Every case, by name, made anew at each call."""
    batch = Dim("batch", min=1, max=50)
    x = torch.arange(12.0).reshape(3, 4)
    return {
        "tied": lambda: Case(Tied(), (torch.tensor([1, 2]),), {"bias": torch.ones(10)}),
        "counter": lambda: Case(Counter().train(), (torch.ones(2, 3, 5, 5),)),
        "nested": lambda: Case(Nested(), ({"b": [x], "a": x + 1}, Point(x, x + 2), Pair(x), 0.5, "name", None)),
        "dynamic": lambda: Case(
            Dynamic(), (torch.ones(6, 4), torch.ones(3)), {}, {"x": {0: Dim.AUTO}, "y": {0: batch}}
        ),
        "random": lambda: Case(Random(), (x,)),
        "shaped": lambda: Case(Shaped(), (x, torch.Size([2, 6]))),
        "branch": lambda: Case(Branch(), (x,)),
        "odd": lambda: Case(Odd(), (torch.ones(2, 4),)),
        "arguments": lambda: Case(Arguments(), (x[:, :3].contiguous(),)),
        "training": lambda: Case(nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)).train(), (x,)),
    }
