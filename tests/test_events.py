"""What a capture tells of itself, to a callback and to the log."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import exporter
from exporter.capture import STAGES, capture
from exporter.capture.classify import classify
from exporter.events import CaptureEnded, CaptureFailed, Event, ModuleEntered, StageBegan, StageEnded
from schema.errors import CaptureError
from tests.capture_refusals import ones, raises, xy
from tests.program_equality import assert_equal_programs


class Tied(torch.nn.Module):
    """A module that is reached by two names, a list, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.ReLU())])
        self.again = self.layers[0]
        self.unused = torch.nn.Linear(3, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.again(x)


def events_of(module: torch.nn.Module, *args: Any, **options: Any) -> list[Event]:
    told: list[Event] = []
    try:
        capture(module, args, on_event=told.append, **options)
    except CaptureError:
        assert isinstance(told[-1], CaptureFailed)
    return told


def of_kind(kind: type, told: list[Event]) -> list[Any]:
    return [event for event in told if isinstance(event, kind)]


def test_each_stage_begins_and_ends_in_order():
    told = events_of(torch.nn.Linear(2, 2), ones(1, 2))
    stages = [event for event in told if isinstance(event, StageBegan | StageEnded)]
    pairs = [(stages[i].stage, stages[i + 1].stage) for i in range(0, len(stages), 2)]
    assert pairs == [(name, name) for name in STAGES]
    assert all(isinstance(event, (StageBegan, StageEnded)[i % 2]) for i, event in enumerate(stages))
    assert all(event.seconds >= 0 for event in of_kind(StageEnded, told))


def test_each_module_that_the_trace_enters_is_told_with_its_name_and_number():
    told = of_kind(ModuleEntered, events_of(Tied(), ones(1, 2)))
    names = ["", "layers.0", "layers.1", "layers.1.0", "layers.0"]
    assert [event.fqn for event in told] == names
    assert [event.kind for event in told] == ["Tied", "Linear", "Sequential", "ReLU", "Linear"]
    assert [event.number for event in told] == [1, 2, 3, 4, 4]
    assert {event.total for event in told} == {5}
    nodes = [event.nodes for event in told]
    assert nodes == sorted(nodes)
    assert nodes[-1] - nodes[0] == 2


def test_nodes_of_branches_do_not_make_the_count_go_back():
    class Branches(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

        def forward(self, x):
            return torch.nn.functional.relu(torch.cond(x.sum() > 0, self.left, self.right, (self.left(x),)))

    nodes = [event.nodes for event in of_kind(ModuleEntered, events_of(Branches(), ones(1, 2)))]
    assert nodes == sorted(nodes)


def test_the_end_says_times_and_operators():
    told = events_of(Tied(), ones(1, 2))
    (end,) = of_kind(CaptureEnded, told)
    assert told[-1] is end
    assert end.operators == Counter({"aten.linear.default": 2, "aten.relu.default": 1})
    assert tuple(end.stages) == STAGES
    assert end.seconds == pytest.approx(sum(end.stages.values()))
    assert (end.strict, end.ir) == (False, "training")


def test_operators_of_subgraphs_are_counted_too():
    class Branch(torch.nn.Module):
        def forward(self, x, n):
            sized = x.expand(n.shape[0], 2) if n.shape[0] > 0 else x
            return torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (sized,))

    shapes = {"x": None, "n": {0: torch.export.Dim("n", min=1)}}
    program = capture(Branch(), (ones(1, 2), ones(3)), dynamic_shapes=shapes)
    counts = exporter.operator_counts(program)
    expected = {"cond", "aten.sin.default", "aten.cos.default", "aten.sum.default", "aten.sym_size.int"}
    assert expected < set(counts)
    statistics = torch.export._trace.get_ep_stats(program)
    assert (counts.total(), len(counts)) == (statistics["op_count"], len(statistics["op_set"]))


def test_writing_the_file_is_a_stage_of_export(tmp_path: Path):
    told: list[Event] = []
    exporter.export(torch.nn.Linear(2, 2), (ones(1, 2),), path=tmp_path / "m", on_event=told.append)
    assert [event.stage for event in of_kind(StageEnded, told)] == [*STAGES, "save"]
    assert isinstance(told[-1], StageEnded)


class TestFailure:
    def test_it_is_told_with_its_error_and_its_stage_does_not_end(self):
        told = events_of(xy(raises), ones(2))
        assert [event.stage for event in of_kind(StageEnded, told)] == ["bind", "symbolize"]
        assert told[-1].error.stage == "trace"
        assert told[-1].case is None
        assert "capture failed: forward raised ValueError: of my own" in str(told[-1])

    def test_also_where_the_arguments_are_no_arguments(self):
        told: list[Event] = []
        with pytest.raises(CaptureError):
            capture(torch.nn.Linear(2, 2), ones(2), on_event=told.append)
        assert [type(event) for event in told] == [CaptureFailed]

    def test_a_case_that_torch_documents_is_named(self):
        def branch(x, y):
            return x if y.item() > 3 else -x

        (failure,) = of_kind(CaptureFailed, events_of(xy(branch), ones(2), torch.tensor(3)))
        assert failure.case == "constrain_as_size_example"
        assert "case constrain_as_size_example of torch's exportdb" in str(failure)

    @pytest.mark.parametrize(("name", "case"), [("cond_operands", "cond_operands"), ("unknown_python_type", None)])
    def test_cases_are_read_from_what_torch_says(self, name: str, case: str | None):
        from torch._dynamo.exc import UserError, UserErrorType

        error = CaptureError("of ours")
        error.__cause__ = UserError(UserErrorType.ANTI_PATTERN, "of torch's", case_name=name)
        assert classify(error) == case


class Stop(BaseException):
    pass


class TestCallback:
    @pytest.mark.parametrize("kind", [StageBegan, StageEnded, ModuleEntered, CaptureEnded, CaptureFailed])
    @pytest.mark.parametrize("error", [RuntimeError("mine"), Stop(), CaptureError("mine too")], ids=repr)
    def test_its_exception_passes_out_as_it_is(self, kind: type, error: BaseException):
        def stop(event: Event) -> None:
            if isinstance(event, kind):
                raise error

        module = xy(raises) if kind is CaptureFailed else torch.nn.Sequential(torch.nn.Linear(2, 2))
        before = dict(vars(module))
        with pytest.raises(type(error)) as caught:
            capture(module, (ones(1, 2),), on_event=stop)
        assert caught.value is error
        assert vars(module) == before
        after = torch.nn.Sequential(torch.nn.Linear(2, 2))
        assert_equal_programs(capture(after, (ones(1, 2),)), torch.export.export(after, (ones(1, 2),)))

    def test_a_forward_that_catches_everything_does_not_hide_its_exception(self):
        class Careful(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = torch.nn.Linear(2, 2)

            def forward(self, x):
                try:
                    return self.inner(x)
                except BaseException:
                    return x

        def stop(event: Event) -> None:
            if isinstance(event, ModuleEntered) and event.fqn == "inner":
                raise Stop

        with pytest.raises(Stop):
            capture(Careful(), (ones(1, 2),), on_event=stop)

    def test_what_it_computes_is_not_captured(self):
        seen: list[torch.Tensor] = []

        def compute(event: Event) -> None:
            seen.append(torch.zeros(2)[torch.tensor(0)] + len(str(event)))

        module = Tied()
        told = capture(module, (ones(1, 2),), on_event=compute)
        assert_equal_programs(told, capture(module, (ones(1, 2),)))
        assert all(type(value) is torch.Tensor and value.item() > 0 for value in seen)


class TestLog:
    def test_stages_are_details_and_the_end_is_information(self, caplog: pytest.LogCaptureFixture):
        caplog.set_level(logging.DEBUG, "exporter")
        capture(torch.nn.Linear(2, 2), (ones(1, 2),))
        *details, end = [record for record in caplog.records if record.name == "exporter"]
        assert {record.levelname for record in details} == {"DEBUG"}
        messages = [record.getMessage() for record in details]
        assert "module 1 of 1, the outermost (Linear): 3 nodes" in messages
        assert messages[0] == "bind …"
        assert end.levelname == "INFO"
        assert end.getMessage().startswith("captured 1 calls of operators in ")

    def test_nothing_is_so_urgent_that_python_prints_it_by_itself(self, caplog: pytest.LogCaptureFixture):
        caplog.set_level(logging.DEBUG, "exporter")
        events_of(xy(raises), ones(2))
        assert caplog.records[-1].getMessage().startswith("capture failed")
        assert max(record.levelno for record in caplog.records) < logging.WARNING

    def test_where_nobody_listens_nothing_is_made(self, monkeypatch: pytest.MonkeyPatch):
        def made(*_: Any, **__: Any) -> None:
            raise AssertionError("for nobody")

        monkeypatch.setattr(ModuleEntered, "__init__", made)
        monkeypatch.setattr(CaptureEnded, "__init__", made)
        capture(torch.nn.Linear(2, 2), (ones(1, 2),))
