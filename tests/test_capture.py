"""``exporter.capture``: programs equal to torch's, stage by stage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.export import Dim

from exporter.capture import STAGES, capture
from exporter.torch_internals import SCALAR_TENSOR_INDEXES_SELECT
from schema.errors import CaptureError
from tests.capture_cases import CASES, Module, both
from tests.capture_cases.shapes import Add
from tests.capture_refusals import ones, xy


@pytest.mark.parametrize("name", CASES)
def test_equals_torch(name):
    if name == "symbolic_indexes" and not SCALAR_TENSOR_INDEXES_SELECT:
        pytest.skip("this torch itself cannot capture an index that is a tensor")
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


class Table(torch.nn.Module):
    """Makes its table anew where it has not the size that the input needs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(1), persistent=False)

    def forward(self, x):
        if self.table.shape != x.shape[1:]:
            self.table = torch.arange(x.shape[1], device=x.device) * 2.0
        return x + self.table


@pytest.mark.parametrize("ir", ["training", "inference"])
@pytest.mark.parametrize("wrap", [torch.nn.Sequential, lambda module: module])
@pytest.mark.parametrize("shapes", [None, {"x": (Dim.AUTO, Dim.AUTO)}])
def test_a_buffer_that_is_assigned_another_shape_stays_as_it_is(ir, wrap, shapes):
    """torch's program fails when it is called, if the buffer is the outermost module's."""
    module = wrap(Table())
    shapes = shapes and {("x" if isinstance(module, Table) else "input"): shapes["x"]}
    with pytest.warns(
        UserWarning, match=r"another shape to the buffers (0\.)?table; .* leaves the buffers as they are"
    ):
        program = capture(module, (torch.ones(2, 3),), dynamic_shapes=shapes, ir=ir)
    assert [buffer.tolist() for buffer in module.buffers()] == [[0]]
    captured = program.module()
    for x in (torch.ones(2, 3), torch.zeros(4, 5) if shapes else torch.zeros(2, 3)):
        assert torch.equal(captured(x), module(x))


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


def test_the_stages_are_those_of_the_docs():
    assert STAGES == ("bind", "symbolize", "trace", "solve", "enforce", "lift", "wrap", "name", "package")


def test_capture_prints_nothing(capfd):
    with pytest.raises(CaptureError):
        capture(xy(lambda x, y: x if x.sum() > 0 else -x), (ones(2),))
    assert capfd.readouterr() == ("", "")


def test_code_generation_grows_with_the_number_of_regions_not_with_its_square(monkeypatch):
    """torch generates the code of the whole graph anew for each region."""
    generated: list[int] = []
    generate = torch.fx.Graph.python_code

    def counted(graph: torch.fx.Graph, *args: Any, **kwargs: Any) -> Any:
        generated.append(len(graph.nodes))
        return generate(graph, *args, **kwargs)

    monkeypatch.setattr(torch.fx.Graph, "python_code", counted)

    def nodes(regions: int) -> int:
        def forward(self, x):
            for _ in range(regions):
                with torch.no_grad():
                    x = x + 1
                x = x * 2
            return x

        generated.clear()
        capture(Module(forward), (ones(3),))
        return sum(generated)

    assert nodes(40) - nodes(20) == 2 * (nodes(20) - nodes(10))
