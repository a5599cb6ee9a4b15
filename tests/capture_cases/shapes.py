"""Sizes that vary, and values that are known only at run time."""

from __future__ import annotations

import math

import torch
from torch.export import Dim

from tests.capture_cases.common import Batch, Case, Module, Pair, case

# --- dynamic shapes ------------------------------------------------------------------------------------------


class Add(torch.nn.Module):
    """Two arguments of any shape."""

    def forward(self, x, y):
        return x + 1, y * 2, x.shape[0] * 2


@case
def named_dims() -> Case:
    batch, length = Dim("batch", min=2, max=64), Dim("length", max=1000)
    x, y = torch.randn(4, 6), torch.randn(6, 3)
    return Case(Add(), (x, y), shapes={"x": {0: batch, 1: length}, "y": (length, None)})


@case
def sizes_that_are_returned() -> Case:
    return Case(Module(lambda self, x: {"size": (x.shape, x + 1)}), (torch.randn(4, 6),), shapes=(({0: Dim("n")},),))


@case
def reads_between_operators() -> Case:
    """Nodes note how often what made them was called before, reads of the trace itself among it."""

    class Reads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)
            self.register_buffer("offset", torch.ones(4))

        def forward(self, x, n):
            number = x.shape[0] * 2 + x.numel() + n + x.stride()[0]
            y = (self.linear(x) + self.offset).T
            return y.reshape(-1)[: x.shape[0]], torch.sym_max(number, y.stride(1)), y.mT

    return Case(Reads(), (torch.randn(6, 4), 5), shapes=({0: Dim.DYNAMIC}, Dim.DYNAMIC))


@case
def dims_by_position() -> Case:
    return Case(Add(), (torch.randn(4, 6), torch.randn(6, 3)), shapes=({0: Dim("b")}, None))


@case
def hints() -> Case:
    shapes = {
        "x": {0: Dim.AUTO, 1: Dim.DYNAMIC(min=3, max=100)},
        "y": (Dim.STATIC, Dim.AUTO(max=50), Dim.AUTO),
    }
    return Case(Add(), (torch.randn(4, 6), torch.randn(6, 3, 1)), shapes=shapes)


@case
def hints_that_turn_out_related() -> Case:
    class Product(torch.nn.Module):
        def forward(self, x, y):
            return x @ y

    shapes = {"x": (Dim.AUTO, Dim.AUTO), "y": (Dim.AUTO, Dim.AUTO)}
    return Case(Product(), (torch.randn(4, 6), torch.randn(6, 3)), shapes=shapes)


@case
def derived_dims() -> Case:
    class Halves(torch.nn.Module):
        def forward(self, x, y):
            return x[: y.shape[0]] + y, x[y.shape[0] :] - y

    half = Dim("half", min=2, max=32)
    return Case(Halves(), (torch.randn(8), torch.randn(4)), shapes={"x": {0: 2 * half}, "y": {0: half}})


@case
def derived_dim_without_its_root() -> Case:
    class Tail(torch.nn.Module):
        def forward(self, x, y):
            return x[1:] + y

    base = Dim("base", min=2, max=32)
    return Case(Tail(), (torch.randn(7), torch.randn(6)), shapes={"x": {0: base + 2}, "y": {0: base + 1}})


@case
def derived_dim_before_its_root() -> Case:
    class Tail(torch.nn.Module):
        def forward(self, x, y):
            return x[1:] + y

    base = Dim("base", max=32)
    return Case(Tail(), (torch.randn(7), torch.randn(6)), shapes={"x": {0: base + 1}, "y": {0: base}})


@case
def fixed_by_number() -> Case:
    return Case(Add(), (torch.randn(4, 6), torch.randn(6, 3)), shapes={"x": {0: Dim("b"), 1: 6}, "y": (6, 3)})


@case
def shapes_of_containers() -> Case:
    class Containers(torch.nn.Module):
        def forward(self, d, items, batch, pair):
            return d["a"] + items[0], d["b"], batch.images, batch.labels[0], pair.left + pair.right

    b, n = Dim("b"), Dim("n", min=3)
    args = (
        {"a": torch.randn(4), "b": torch.randn(5)},
        [torch.randn(4), torch.randn(3)],
        Batch(torch.randn(4, 3), [torch.randn(4)]),
        Pair(torch.randn(5), torch.randn(5)),
    )
    shapes = {
        "d": {"a": {0: b}, "b": (n,)},
        "items": [{0: b}, None],
        "batch": [{0: b}, [None]],
        "pair": Pair({0: n}, {0: n}),
    }
    return Case(Containers(), args, shapes=shapes)


@case
def keywords_in_another_order() -> Case:
    class Keywords(torch.nn.Module):
        def forward(self, a, b, c):
            return a + 1, b + 2, c + 3

    dims = {name: {0: Dim(name)} for name in ("a", "b", "c")}
    kwargs = {"c": torch.randn(3), "a": torch.randn(4), "b": torch.randn(5)}
    return Case(Keywords(), (), kwargs, shapes=dims)


@case
def variadic_dims() -> Case:
    b = Dim("b")
    return Case(Module(lambda self, x, y: x + y), (torch.randn(4), torch.randn(4)), shapes={"args": ({0: b}, {0: b})})


@case
def dynamic_integers() -> Case:
    class Integers(torch.nn.Module):
        def forward(self, x, n, m, fixed):
            return x[:n] + m, n * m, x.new_zeros(n), fixed

    shapes = {"x": None, "n": Dim.DYNAMIC, "m": Dim.AUTO, "fixed": None}
    return Case(Integers(), (torch.randn(10), 4, 3, 2), shapes=shapes)


@case
def shapes_collection() -> Case:
    x, y = torch.randn(4, 6), torch.randn(6, 3)
    shapes = torch.export.ShapesCollection()
    shapes[x] = {0: Dim("b")}
    shapes[y][1] = Dim.AUTO
    shapes[y][0] = None
    return Case(Add(), (x, y), shapes=shapes)


@case
def additional_inputs() -> Case:
    inputs = torch.export.AdditionalInputs()
    inputs.add((torch.randn(5, 6), torch.randn(6, 3)))
    inputs.add((torch.randn(7, 6), torch.randn(6, 8)))
    return Case(Add(), (torch.randn(4, 6), torch.randn(6, 3)), shapes=inputs)


@case
def dim_that_turns_out_narrower() -> Case:
    class Narrow(torch.nn.Module):
        def forward(self, x):
            return x[:, :5] if x.shape[1] > 5 else x

    return Case(Narrow(), (torch.randn(4, 8),), shapes={"x": {0: Dim("b"), 1: Dim("n", min=6)}})


# --- values known only at run time ---------------------------------------------------------------------------


@case
def items_with_checks() -> Case:
    class Items(torch.nn.Module):
        def forward(self, x, n):
            size = n.item()
            torch._check(size >= 2)
            torch._check(size <= 8)
            return torch.zeros(size) + 1, x[:size], size

    return Case(Items(), (torch.randn(10), torch.tensor(4)))


@case
def nonzero() -> Case:
    class Nonzero(torch.nn.Module):
        def forward(self, x):
            found = x.nonzero()
            torch._check(found.shape[0] > 1)
            return x[x > 0], found + 1, found.shape[0]

    return Case(Nonzero(), (torch.randn(10),), shapes={"x": {0: Dim("n")}})


@case
def symbolic_indexes() -> Case:
    class Indexes(torch.nn.Module):
        def forward(self, x, i):
            n = x.shape[0]
            j = i.item()
            torch._check(j >= 0)
            torch._check(j < x.shape[1])
            first = x[n // 2], x[..., n - 2], x[1 : n - 1, None, j], x[:, i], x[None, :j]
            return first, x[n // 2, ..., :2], x[i, 1:2:n]

    return Case(Indexes(), (torch.randn(4, 6, 5), torch.tensor(2)), shapes={"x": {0: Dim.AUTO}, "i": None})


@case
def builtins_of_symbols() -> Case:
    class Builtins(torch.nn.Module):
        def forward(self, x, y):
            n = max(x.shape[0], y.shape[0])
            m = min(x.shape[0], y.shape[0])
            p = math.pow(x.shape[0], 2)
            return x.sum() + n, y.sum() * m, max(x, x + 1), min(y, 3), p, max([1, 2, 3]), torch.tensor([n, 1])

    return Case(Builtins(), (torch.randn(4), torch.randn(6)), shapes={"x": {0: Dim("a")}, "y": {0: Dim("b")}})
