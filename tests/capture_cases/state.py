"""Parameters, buffers, constants and arguments."""

from __future__ import annotations

import torch
from torch.export import Dim

from tests.capture_cases.common import Batch, Case, Module, Pair, case

# --- state ---------------------------------------------------------------------------------------------------


@case
def parameters_and_buffers() -> Case:
    return Case(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)), (torch.randn(2, 3, 8, 8),))


@case
def tied_weights() -> Case:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(10, 4)
            self.head = torch.nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.embed(ids))

    return Case(Tied(), (torch.arange(5),))


@case
def buffers_of_all_kinds() -> Case:
    class Buffers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.zeros(3))
            self.register_buffer("volatile_b", torch.ones(3), persistent=False)
            self.register_buffer("volatile_a", torch.ones(3), persistent=False)
            self.register_buffer("absent_at_the_end", None)

        def forward(self, x):
            self.kept.add_(1)
            self.volatile_b.mul_(2)
            return x + self.kept + self.volatile_a + self.volatile_b

    return Case(Buffers(), (torch.randn(3),))


@case
def buffer_assigned_anew() -> Case:
    def forward(self, x):
        self.count = self.count + 1
        self.total = x.sum() + self.total
        self.count = self.count * 2
        return x * self.count

    return Case(
        Module(forward, buffers={"count": (torch.zeros(()), True), "total": (torch.zeros(()), False)}),
        (torch.randn(3),),
    )


@case
def constants_of_all_kinds() -> Case:
    class Inner(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.full((3,), 2.0)
            self.alias = self.scale

        def forward(self, x):
            return x * self.scale * self.alias + torch.tensor([1.0, 2.0, 3.0]) + torch.tensor(float("nan"))

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()
            self.loose = [torch.nn.Parameter(torch.ones(3)), torch.ones(3, requires_grad=True)]

        def forward(self, x):
            return self.inner(x) + self.loose[0] + self.loose[0] * self.loose[1] + torch.tensor(5)

    return Case(Outer(), (torch.randn(3),))


@case
def constants_without_inputs() -> Case:
    def forward(self):
        return self.linear(torch.ones(2, 3))

    return Case(Module(forward, linear=torch.nn.Linear(3, 2)), ())


@case
def unused_constant() -> Case:
    def forward(self, x):
        torch.tensor(3)
        torch.tensor([1.0])
        return x + 1

    return Case(Module(forward), (torch.randn(2),))


@case
def module_used_twice() -> Case:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(3, 3)
            self.second = self.first
            self.layers = torch.nn.ModuleList([self.first, torch.nn.ReLU(), self.first])

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.second(self.first(x))

    return Case(Twice(), (torch.randn(2, 3),))


@case
def attributes_changed_by_forward() -> Case:
    class Stateful(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0
            self.seen = []
            self.last = None

        def forward(self, x):
            self.calls += 1
            self.seen.append(x)
            self.last = x + self.calls
            return self.last

    return Case(Stateful(), (torch.randn(2),))


@case
def recurrent() -> Case:
    return Case(torch.nn.LSTM(3, 4, num_layers=2, batch_first=True), (torch.randn(2, 5, 3),))


@case
def train_mode() -> Case:
    layers = torch.nn.Conv1d(2, 3, 1), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5)
    return Case(torch.nn.Sequential(*layers).train(), (torch.randn(2, 2, 4),))


@case
def parametrized() -> Case:
    return Case(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2)), (torch.randn(2, 3),))


@case
def graph_module() -> Case:
    exported = torch.export.export(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), (torch.randn(2, 3),))
    return Case(exported.module(check_guards=False), (torch.randn(2, 3),))


# --- arguments -----------------------------------------------------------------------------------------------


@case
def nested_containers() -> Case:
    def forward(self, batch, pair, more):
        return {
            "sum": batch["a"] + pair.left,
            "list": [pair.right, more[0]["b c"]],
            "none": None,
            "int": 3,
            "text": "t",
        }

    args = (
        {"a": torch.randn(2), "unused": torch.randn(1)},
        Pair(torch.randn(2), torch.randn(3)),
        [{"b c": torch.ones(1)}],
    )
    return Case(Module(forward), args)


@case
def named_arguments() -> Case:
    class Named(torch.nn.Module):
        def forward(self, x, pair: Pair, *, scale, Mask=None):
            return Pair(x * scale, pair.left if Mask is None else Mask)

    pair = Pair(torch.randn(2), torch.randn(3))
    return Case(Named(), (torch.randn(2),), {"Mask": torch.ones(1), "pair": pair, "scale": torch.ones(2)})


@case
def dataclasses_in_and_out() -> Case:
    class Batched(torch.nn.Module):
        def forward(self, batch: Batch):
            return Batch(batch.images + 1, [label * 2 for label in batch.labels])

    return Case(Batched(), (Batch(torch.randn(2, 3), [torch.ones(2), torch.zeros(2)]),))


@case
def scalars() -> Case:
    class Scalars(torch.nn.Module):
        def forward(self, x, n, rate, flag, mode, nothing=None):
            y = x * rate + n if flag and mode == "add" and nothing is None else x
            return y, n, rate, flag, mode, nothing

    return Case(Scalars(), (torch.randn(2), 3, 0.5, True, "add"), {"nothing": None})


@case
def variadic() -> Case:
    class Variadic(torch.nn.Module):
        def forward(self, first, *rest, key=None, **more):
            return first + sum(rest) + key + more["z"] * more["a"][0]

    t = torch.randn(2)
    return Case(Variadic(), (t, t + 1, t + 2), {"z": t, "key": t, "a": [t]})


@case
def same_tensor_twice() -> Case:
    x = torch.randn(4, 2)
    batch = Dim("batch")
    return Case(Module(lambda self, a, b: a + b), (x, x), shapes={"args": ({0: batch}, {0: batch})})


@case
def inputs_changed_in_place() -> Case:
    def forward(self, x, items):
        x.add_(1)
        items["y"] = x * 2
        return items["y"]

    return Case(Module(forward), (torch.randn(2), {"y": torch.randn(2)}))


@case
def gradients_required() -> Case:
    return Case(Module(lambda self, x, y: (x * 2, y.detach())), (torch.randn(2, requires_grad=True), torch.randn(2)))


@case
def half_precision_and_complex() -> Case:
    return Case(
        Module(lambda self, x, y: (x.to(torch.float32), y.to(torch.bfloat16).to("cpu"), torch.view_as_complex(y))),
        (torch.randn(2, dtype=torch.float16), torch.randn(3, 2)),
    )


@case
def wrapper_subclasses() -> Case:
    from torch.testing._internal.two_tensor import TwoTensor

    def two() -> torch.Tensor:
        return TwoTensor(torch.randn(4), torch.randn(4))

    def forward(self, x):
        return x * 2 + self.weight

    return Case(Module(forward, weight=torch.nn.Parameter(two())), (two(),))
