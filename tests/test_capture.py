"""``exporter.capture``: programs equal to torch's, refusals in our own words, nothing left behind."""

from __future__ import annotations

import builtins
import dataclasses
import math
import pickle
import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch.export import Dim

from exporter.capture import STAGES, capture
from schema.errors import CaptureError
from tests.program_equality import assert_equal_programs


class Pair(NamedTuple):
    """A container with names."""

    left: torch.Tensor
    right: torch.Tensor


@dataclasses.dataclass
class Batch:
    """A registered dataclass: its fields are inputs."""

    images: torch.Tensor
    labels: list[torch.Tensor]


torch.export.register_dataclass(Batch, serialized_type_name="test_capture.Batch")


class Module(torch.nn.Module):
    """A module made of a function and of what it needs."""

    def __init__(self, function: Any, *, buffers: dict[str, Any] | None = None, **attributes: Any) -> None:
        super().__init__()
        for key, (value, persistent) in (buffers or {}).items():
            self.register_buffer(key, value, persistent=persistent)
        for key, value in attributes.items():
            setattr(self, key, value)
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


@dataclasses.dataclass
class Case:
    """A module and how it is captured."""

    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    shapes: Any = None


def both(case: Case) -> torch.export.ExportedProgram:
    """Capture with both pipelines and compare the programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, and attribute assignments: both pipelines warn of those
        expected = torch.export.export(case.module, case.args, case.kwargs, dynamic_shapes=case.shapes)
        actual = capture(case.module, case.args, case.kwargs, dynamic_shapes=case.shapes)
    assert_equal_programs(actual, expected, same_tensors=True)
    return actual


CASES: dict[str, Any] = {}


def case(make: Any) -> Any:
    """Register a function that makes a Case."""
    CASES[make.__name__] = make
    return make


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


@pytest.mark.parametrize("name", CASES)
def test_equals_torch(name):
    torch.manual_seed(0)
    both(CASES[name]())


def test_outputs_equal_the_module():
    case = CASES["grad_regions"]()
    program = capture(case.module, case.args, dynamic_shapes=case.shapes)
    x = torch.randn(7, 3)
    torch.testing.assert_close(program.module()(x), case.module(x))


def test_a_buffer_of_a_submodule_that_is_assigned_anew_is_written():
    """torch follows the buffers of the outermost module only, and loses this update without a word."""

    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count = self.count + 1
            return x + self.count

    program = capture(torch.nn.Sequential(Counter()), (torch.zeros(2),))
    module = program.module()
    assert module(torch.zeros(2)).tolist() == [1, 1]
    assert module(torch.zeros(2)).tolist() == [2, 2]


def test_a_missing_buffer_does_not_shift_the_others():
    """torch counts buffers that are None, and writes the new value of one buffer into its neighbour."""

    def forward(self, x):
        self.second = self.second + 1
        return x + self.second

    module = Module(forward, buffers={"first": (None, True), "second": (torch.zeros(2), True)})
    program = capture(module, (ones(2),))
    writes = program.graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default)
    assert [str(node.args[0]) for node in writes] == ["b_second"]


def test_keyword_arguments_of_a_variadic_forward_may_vary():
    """torch 2.13 runs the whole trace and then fails with an AssertionError."""

    class Keywords(torch.nn.Module):
        def forward(self, x, **more):
            return x + more["y"]

    b = Dim("b")
    x, y = torch.randn(4), torch.randn(4)
    for shapes in ({"x": {0: b}, "more": {"y": {0: b}}}, {"x": {0: b}, "y": {0: b}}):
        program = capture(Keywords(), (x,), {"y": y}, dynamic_shapes=shapes)
        assert program.module()(torch.ones(9), y=torch.ones(9)).shape == (9,)


def test_what_is_left_out_of_the_specification_is_fixed():
    program = capture(Add(), (torch.randn(4, 6), torch.randn(6, 3)), dynamic_shapes={"x": {0: Dim("b")}})
    full = {"x": {0: Dim("b")}, "y": None}
    expected = torch.export.export(Add(), (torch.randn(4, 6), torch.randn(6, 3)), dynamic_shapes=full)
    assert [str(r) for r in program.range_constraints.items()] == [str(r) for r in expected.range_constraints.items()]


# --- refusals ------------------------------------------------------------------------------------------------


def refused(module: Any, *args: Any, shapes: Any = None, kwargs: Any = None) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        capture(module, args, kwargs, dynamic_shapes=shapes)
    error = caught.value
    assert error.remedy
    assert error.stage in STAGES
    assert "\n" not in str(error)
    return error


def xy(function: Any) -> torch.nn.Module:
    class Two(torch.nn.Module):
        def forward(self, x, y=None):
            return function(x, y)

    return Two()


ones = torch.ones
same_dim, other_dim = Dim("same", min=2, max=8), Dim("same", min=2, max=9)

BEFORE_TRACING: dict[str, tuple[tuple[Any, ...], Any, str, str]] = {
    "missing argument": ((), None, "", "do not fit forward"),
    "too many arguments": ((ones(2), ones(2), ones(2)), None, "", "do not fit forward"),
    "unsupported type": (({"a": {1, 2}},), None, "x.a", "type set"),
    "complex number": ((1j,), None, "x", "type complex"),
    "above the range": ((ones(9),), {"x": {0: same_dim}}, "x.shape.0", "outside the range"),
    "below the range": ((ones(4),), {"x": {0: Dim("n", min=5)}}, "x.shape.0", "outside the range"),
    "outside a hint": ((ones(4),), {"x": {0: Dim.AUTO(max=3)}}, "x.shape.0", "outside the range"),
    "one is taken for fixed": ((ones(1),), {"x": {0: Dim("n")}}, "x.shape.0", "0 and 1 for fixed"),
    "zero is taken for fixed": ((ones(0),), {"x": {0: Dim.DYNAMIC}}, "x.shape.0", "0 and 1 for fixed"),
    "another fixed size": ((ones(4),), {"x": {0: 5}}, "x.shape.0", "fixes this size to 5"),
    "no such dimension": ((ones(4),), {"x": {1: Dim("n")}}, "dynamic_shapes.x", "no dimension 1"),
    "negative dimension": ((ones(4),), {"x": {-1: Dim("n")}}, "dynamic_shapes.x", "no dimension -1"),
    "wrong length": ((ones(4),), {"x": (None, Dim("n"))}, "dynamic_shapes.x", "2 specifications"),
    "unknown argument": ((ones(4),), {"z": {0: Dim("n")}}, "dynamic_shapes", "'z'"),
    "unknown key": (({"a": ones(4)},), {"x": {"b": None}}, "dynamic_shapes.x", "'b'"),
    "too few entries": ((ones(4), ones(4)), [None], "dynamic_shapes", "1 entries for 2 arguments"),
    "too few elements": (([ones(4), ones(4)],), {"x": [None]}, "dynamic_shapes.x", "1 specifications for 2"),
    "no specification": ((ones(4),), {"x": "all"}, "dynamic_shapes.x", "'all'"),
    "no specification at all": ((ones(4),), "all", "dynamic_shapes", "str"),
    "no dimension": ((ones(4),), {"x": {0: "n"}}, "dynamic_shapes.x.shape.0", "'n'"),
    "a number under a name": ((4,), {"x": Dim("n")}, "dynamic_shapes.x", "integer"),
    "a text that varies": (("t",), {"x": Dim.AUTO}, "dynamic_shapes.x", "type str"),
    "one name, two sizes": ((ones(4), ones(5)), {"x": {0: same_dim}, "y": {0: same_dim}}, "y.shape.0", "elsewhere"),
    "one name, two ranges": ((ones(4), ones(4)), {"x": {0: same_dim}, "y": {0: other_dim}}, "y.shape.0", "names both"),
    "no multiple": ((ones(5),), {"x": {0: 2 * same_dim}}, "x.shape.0", "not 2*same"),
    "derived below zero": ((ones(5),), {"x": {0: same_dim - 5}}, "x.shape.0", "negative"),
}


@pytest.mark.parametrize("what", BEFORE_TRACING)
def test_refused_before_anything_is_traced(what):
    args, shapes, loc, words = BEFORE_TRACING[what]
    error = refused(xy(lambda x, y: pytest.fail("was traced")), *args, shapes=shapes)
    assert error.stage == "bind"
    assert words in error.message
    assert ".".join(map(str, error.loc)) == loc


def test_one_tensor_under_two_specifications():
    x = ones(4)
    error = refused(xy(torch.add), x, x, shapes={"x": {0: Dim("n")}, "y": None})
    assert "passed twice" in error.message
    assert error.loc == ("y",)


def test_an_integer_that_varies_is_not_one_of_the_texts():
    assert "type bool" in refused(xy(lambda x, y: x), True, shapes={"x": Dim.DYNAMIC}).message


@pytest.mark.parametrize(
    ("module", "words"),
    [(lambda x: x, "function"), (torch.nn.Linear, "type"), (3, "int")],
)
def test_only_modules(module, words):
    assert words in refused(module, ones(2)).message


def test_shapes_collection_of_other_tensors():
    shapes = torch.export.ShapesCollection()
    shapes[ones(3)] = {0: Dim("n")}
    assert "ShapesCollection" in refused(xy(torch.add), ones(3), shapes=shapes).message


def test_fake_tensors_are_no_examples():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = ones(3)
    assert "FakeTensor" in refused(xy(lambda x, y: x), fake).message


def test_arguments_have_to_be_a_tuple():
    with pytest.raises(CaptureError, match="not a tuple"):
        capture(xy(lambda x, y: x), [ones(2)])  # type: ignore[arg-type]


def test_strict_is_not_available_yet():
    with pytest.raises(CaptureError, match="not available yet") as caught:
        capture(xy(lambda x, y: x), (ones(2),), strict=True)
    assert caught.value.remedy == "pass strict=False"


def _typo(x, y):
    return x.shape.nope


def _raises(x, y):
    raise ValueError("of my own\nwith a second line")


class _Unknown:
    pass


IN_THE_MODULE: dict[str, tuple[Any, tuple[Any, ...], Any, str, str]] = {
    "a branch on a value": (lambda x, y: x if x.sum() > 0 else -x, (ones(2),), None, "trace", "known only at run time"),
    "a branch on an item": (
        lambda x, y: x if y.item() > 0 else -x, (ones(2), torch.ones(()).long()), None, "trace", "u0 > 0"),
    "a loop over a value": (lambda x, y: [x for _ in range(y)], (ones(2), torch.tensor(3)), None, "trace", "run time"),
    "shapes that do not fit": (lambda x, y: x @ y, (ones(2, 3), ones(2, 3)), None, "trace", "RuntimeError"),
    "an error of the user's": (_raises, (ones(2),), None, "trace", "ValueError: of my own"),
    "a typing error": (_typo, (ones(2),), None, "trace", "AttributeError"),
    "numpy": (lambda x, y: torch.from_numpy(x.numpy()), (ones(2),), None, "trace", "raised"),
    "an unknown output": (lambda x, y: {"a": _Unknown()}, (ones(2),), None, "trace", "returns a _Unknown"),
    "a size that is fixed": (
        lambda x, y: x.reshape(4), (ones(4),), {"x": {0: Dim("n")}}, "solve", "not hold for all the sizes"
    ),
    "two sizes that are one": (
        lambda x, y: x + y, (ones(4), ones(4)), {"x": {0: Dim("a")}, "y": {0: Dim("b")}}, "solve", "all the sizes"
    ),
    "a size that is narrower": (
        lambda x, y: x if x.shape[0] < 7 else -x, (ones(4),), {"x": {0: Dim("n")}}, "solve", "all the sizes"
    ),
    "a hint that is fixed": (lambda x, y: x.reshape(4), (ones(4),), {"x": {0: Dim.DYNAMIC}}, "solve", "all the sizes"),
    "a hint that leaves one size": (
        lambda x, y: x if x.shape[0] > 3 else -x, (ones(4),), {"x": {0: Dim.DYNAMIC(max=4)}}, "package", "fixes this"
    ),
    "torch.func.grad": (lambda x, y: torch.func.grad(lambda z: z.sum())(x), (ones(2),), None, "lift", "without data"),
}  # fmt: skip


@pytest.mark.parametrize("what", IN_THE_MODULE)
def test_refused_for_what_the_module_does(what):
    function, args, shapes, stage, words = IN_THE_MODULE[what]
    error = refused(xy(function), *args, shapes=shapes)
    assert error.stage == stage
    assert words in error.message
    if stage == "trace":
        assert any("test_capture.py:" in str(part) or part == "output" for part in error.loc), error.loc
        assert error.__cause__ is not None or "returns" in error.message


def test_the_remedy_repeats_the_fix_that_torch_suggests():
    error = refused(xy(lambda x, y: x if x.shape[0] < 7 else -x), ones(4), shapes={"x": {0: Dim("n")}})
    assert "n = Dim('n', max=6)" in error.remedy


def test_a_decision_by_a_value_is_told_in_the_names_of_the_user():
    def decide(x, y):
        count = y.item()
        return x if count > 3 else -x

    error = refused(xy(decide), ones(4), torch.tensor(3))
    assert error.message.endswith("run time: count > 3")
    assert "torch._check(count > 3) or torch._check(count <= 3)" in error.remedy


def test_the_place_is_the_innermost_module_and_the_users_line():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(3, 3)))
    error = refused(model, ones(1, 2))
    assert error.loc[0] == "1.1"


def test_a_capture_error_can_be_pickled():
    error = refused(xy(_raises), ones(2))
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.message, copy.loc, copy.remedy, copy.stage) == (error.message, error.loc, error.remedy, error.stage)


def test_a_buffer_cannot_become_what_was_not_computed():
    def forward(self, x):
        self.state = [x]
        return x

    error = refused(Module(forward, buffers={"state": (torch.zeros(1), True)}), ones(1))
    assert "state" in str(error)


# --- nothing is left behind ----------------------------------------------------------------------------------


def everything(module: torch.nn.Module) -> Any:
    """All that a capture might change about a module, by identity."""
    found = []
    for name, owner in module.named_modules():
        for key, value in vars(owner).items():
            items = list(value.items()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
            found.append(
                (name, key, id(value), [id(item[1]) if isinstance(item, tuple) else id(item) for item in items])
            )
    return found


def surroundings() -> Any:
    from torch.nn.modules import module as registry

    return (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.compiler.is_compiling(),
        torch.compiler.is_exporting(),
        [torch._C._get_mkldnn_enabled(), torch._C._get_nnpack_enabled(), torch._C._get_cudnn_enabled()],
        torch.overrides._get_current_function_mode_stack(),
        torch.utils._python_dispatch._get_current_dispatch_mode_stack(),
        len(registry._global_buffer_registration_hooks),
        torch._guards.TracingContext.try_get(),
        builtins.max,
        builtins.min,
        math.pow,
        torch.fx.experimental.proxy_tensor._ModuleStackTracer,
        torch._dynamo.config.specialize_int,
        torch._dynamo.config.capture_scalar_outputs,
        torch.get_rng_state().tolist(),
    )


class Marking(torch.nn.Module):
    """Assigns whatever a module can assign, and then may fail."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.linear = torch.nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(3))
        self.calls = 0
        self.cache = {"list": [1, 2], "none": None}
        self.names = {"a", "b"}

    def forward(self, x):
        y = self.linear(x)
        self.seen = self.seen + 1
        self.calls += 1
        self.cache["list"].append(y)
        self.cache["new"] = y
        self.names.add("c")
        self.added = y
        self.later = torch.nn.ReLU()
        self.register_buffer("extra", y.detach())
        self.linear.training = False
        torch._C._set_grad_enabled(False)
        if self.fails:
            raise ValueError("after all that")
        return y + torch.rand(3)


@pytest.mark.parametrize("fails", [False, True])
def test_module_inputs_and_torch_are_as_before(fails):
    module, x = Marking(fails=fails), torch.randn(4, 3, requires_grad=True)
    before = (
        everything(module),
        surroundings(),
        dict(vars(x)),
        x._version,
        {k: v.clone() for k, v in module.state_dict().items()},
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            capture(module, (x,), dynamic_shapes={"x": {0: Dim.AUTO}})
    except CaptureError:
        assert fails
    after = everything(module), surroundings(), dict(vars(x)), x._version
    assert after == before[:4]
    assert all(torch.equal(v, before[4][k]) for k, v in module.state_dict().items())
    assert module.cache == {"list": [1, 2], "none": None}
    assert module.names == {"a", "b"}


def test_an_assigned_tensor_is_warned_of():
    with pytest.warns(UserWarning, match=r"self\.0\.last, self\.0\.seen\[0\]|self\.0\.seen\[0\], self\.0\.last"):
        capture(torch.nn.Sequential(CASES["attributes_changed_by_forward"]().module), (ones(2),))


def test_input_containers_are_not_changed():
    items = {"y": ones(2)}
    x = ones(2)
    case = CASES["inputs_changed_in_place"]()
    capture(case.module, (x, items))
    assert x.tolist() == [1, 1]
    assert items["y"].tolist() == [1, 1]


def test_a_capture_inside_a_fake_mode():
    from torch._subclasses.fake_tensor import FakeTensorMode

    module, x = torch.nn.Linear(2, 2), ones(1, 2)
    with FakeTensorMode():
        program = capture(module, (x,))
    assert_equal_programs(program, torch.export.export(module, (x,)))


# --- stages --------------------------------------------------------------------------------------------------


def test_stages_are_reported_in_order():
    ended, started = [], []
    capture(
        torch.nn.Linear(2, 2),
        (ones(1, 2),),
        on_stage=lambda name, seconds: ended.append((name, seconds)),
        on_stage_start=started.append,
    )
    assert started == [name for name, _ in ended] == list(STAGES)
    assert all(seconds >= 0 for _, seconds in ended)
    assert STAGES == ("bind", "symbolize", "trace", "solve", "emit", "lift", "wrap", "name", "package")


def test_a_stage_that_fails_does_not_end():
    ended: list[str] = []
    with pytest.raises(CaptureError):
        capture(xy(_raises), (ones(2),), on_stage=lambda name, _: ended.append(name))
    assert ended == ["bind", "symbolize"]


def test_capture_prints_nothing(capfd):
    with pytest.raises(CaptureError):
        capture(xy(lambda x, y: x if x.sum() > 0 else -x), (ones(2),))
    assert capfd.readouterr() == ("", "")


def test_time_grows_with_the_number_of_regions_not_with_its_square():
    def seconds(regions: int) -> float:
        def forward(self, x):
            for _ in range(regions):
                with torch.no_grad():
                    x = x + 1
                x = x * 2
            return x

        times: dict[str, float] = {}
        capture(Module(forward), (ones(3),), on_stage=times.__setitem__)
        return times["wrap"]

    seconds(2)
    assert seconds(80) < 16 * max(seconds(20), 0.005)
