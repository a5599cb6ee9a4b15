"""Operators that hold subgraphs, and regions of other modes."""

from __future__ import annotations

import torch
from torch.export import Dim

from tests.capture_cases.common import Case, Module, case

# --- operators that hold subgraphs ---------------------------------------------------------------------------


@case
def cond() -> Case:
    class Cond(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 3)

        def forward(self, x, y):
            inner = lambda a, b: torch.cond(a.max() > b.max(), lambda p: p + 1, lambda p: p - 1, (a,))  # noqa: E731
            return torch.cond(x.sum() > 0, inner, lambda a, b: self.linear(a) + b, (x, y))

    return Case(Cond(), (torch.randn(2, 3), torch.randn(2, 3)), shapes={"x": {0: Dim("b")}, "y": {0: Dim("b")}})


@case
def map_over_rows() -> Case:
    from torch._higher_order_ops.map import map as map_rows

    class Map(torch.nn.Module):
        def forward(self, xs, y):
            return map_rows(lambda x, y: x * y + x.sum(), xs, y)

    return Case(Map(), (torch.randn(4, 3), torch.randn(3)))


@case
def while_loop() -> Case:
    from torch._higher_order_ops.while_loop import while_loop as loop

    class While(torch.nn.Module):
        def forward(self, n, x):
            return loop(lambda i, x: i < 5, lambda i, x: (i + 1, x * 2), (n, x))

    return Case(While(), (torch.tensor(0), torch.randn(3)))


@case
def scan() -> Case:
    from torch._higher_order_ops.scan import scan as run

    class Scan(torch.nn.Module):
        def forward(self, start, xs):
            return run(lambda carry, x: (carry + x, carry * x), start, xs)

    return Case(Scan(), (torch.zeros(3), torch.randn(4, 3)))


@case
def vmap() -> Case:
    return Case(Module(lambda self, x: torch.vmap(lambda row: row.sum() * row)(x)), (torch.randn(4, 3),))


@case
def attention() -> Case:
    def forward(self, x):
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    return Case(Module(forward), (torch.randn(1, 2, 4, 8),))


# --- regions -------------------------------------------------------------------------------------------------


@case
def grad_regions() -> Case:
    class Regions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 3)

        def forward(self, x):
            with torch.no_grad():
                y = self.linear(x)
                with torch.enable_grad():
                    z = y + self.linear(x)
                    with torch.no_grad():
                        z = z * 2
                w = y * z
                unused = w + 1  # noqa: F841
            with torch.no_grad():
                v = w + torch.tensor(1.0)
            return y, z + v, self.linear(w)

    return Case(Regions(), (torch.randn(2, 3),), shapes={"x": {0: Dim("b")}})


@case
def a_region_without_results() -> Case:
    def forward(self, x):
        with torch.no_grad():
            self.seen.copy_(x)
        return x + 1

    return Case(Module(forward, buffers={"seen": (torch.zeros(3), True)}), (torch.randn(3),))


@case
def whole_forward_without_grad() -> Case:
    class NoGrad(torch.nn.Module):
        @torch.no_grad()
        def forward(self, x):
            return x + 1, x * 2

    return Case(NoGrad(), (torch.randn(3),))


@case
def grad_mode_left_switched() -> Case:
    def forward(self, x):
        y = x + 1
        torch._C._set_grad_enabled(False)
        return y * 2

    return Case(Module(forward), (torch.randn(3),))


@case
def autocast_regions() -> Case:
    class Autocast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 3)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                y = self.linear(x)
                with torch.autocast("cpu", enabled=False):
                    z = self.linear(x) + y.float()
                    with torch.no_grad():
                        z = z * 2
                w = self.linear(z)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                u = self.linear(w)
            with torch.autocast("cpu", torch.float16):
                v = x @ x.T
            return y, w, u, v

    return Case(Autocast(), (torch.randn(3, 3),))


@case
def cond_inside_regions() -> Case:
    def forward(self, x):
        with torch.no_grad():
            y = torch.cond(x.sum() > 0, lambda a: a + 1, lambda a: a - 1, (x,))
            z = y * 2
        with torch.no_grad():
            x = x + 1
            y = torch.cond(x.sum() > 0, lambda a: a + 1, lambda a: a - 1, (x,))
        return y, z

    return Case(Module(forward), (torch.randn(3),))


@case
def regions_inside_cond() -> Case:
    def yes(a):
        with torch.no_grad():
            return a + 1

    return Case(Module(lambda self, x: torch.cond(x.sum() > 0, yes, lambda a: a - 1, (x,))), (torch.randn(3),))


@case
def many_regions() -> Case:
    def forward(self, x):
        for step in range(12):
            with torch.no_grad():
                x, y = x + step, x * 2
            x = x + y
        return x

    return Case(Module(forward), (torch.randn(3),))


@case
def names_that_collide() -> Case:
    class Collide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self_part = torch.nn.Linear(3, 3)
            self.part = torch.nn.Linear(3, 3)
            self.register_buffer("mul", torch.ones(3))

        def forward(self, add, mul, add_1, p_part_weight, b_mul):
            x = add + mul
            return self.part(x * self.mul) + self.self_part(add_1 + p_part_weight) * b_mul

    return Case(Collide(), tuple(torch.randn(3, 3) for _ in range(5)))
