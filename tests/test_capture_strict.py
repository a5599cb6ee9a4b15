"""``exporter.capture(strict=True)``: programs equal to torch's strict ones, and nothing left behind by Dynamo."""

from __future__ import annotations

import logging
import os
import re
import warnings
from typing import Any

import pytest
import torch
from torch.export import Dim

from exporter.capture import capture
from schema.errors import CaptureError
from tests.capture_cases import CASES, Case, Module, both
from tests.capture_refusals import Block, asserts, ones, raises
from tests.databases.samples import Mode, Sample, example, module_samples
from tests.models import cases
from tests.program_equality import assert_equal_programs

STRICT = Mode(strict=True, ir="training")

REFUSED_BY_TORCH = {
    "symbolic_indexes": "Dynamo does not follow an index that is a scalar tensor",
    "builtins_of_symbols": "math.pow of a size fixes it",
    "constants_of_all_kinds": "torch loses a parameter in a list, before 2.15; see below",
}


@pytest.mark.parametrize("name", [name for name in CASES if name not in REFUSED_BY_TORCH])
def test_equals_torch(name):
    torch.manual_seed(0)
    both(CASES[name](), strict=True)


@pytest.mark.parametrize("name", ["arguments", "nested", "odd", "tied"])
def test_models_equal_torch(name):
    case = cases()[name]()
    both(Case(case.module, case.args, case.kwargs, case.dynamic_shapes), strict=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["decorator", "dynamic_shape_assert", "null_context_manager", "type_reflection_method"]
)
def test_python_that_dynamo_reads_equals_torch(name):
    """All of this collection and others: ``python -m tests.databases --modes strict-training``."""
    sample = example(name)
    assert_equal_programs(sample.by_us(STRICT), sample.by_torch(STRICT), same_tensors=True)


@pytest.mark.filterwarnings("ignore")
def test_a_lazy_module_equals_torch():
    for sample in module_samples("nn.LazyConv1d"):
        assert_equal_programs(sample.by_us(STRICT), sample.by_torch(STRICT), same_tensors=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["named_dims", "nonzero", "tied_weights", "buffers_of_all_kinds"])
def test_inference_equals_torch(name):
    made = CASES[name]()
    sample = Sample(name, made.module, made.args, made.kwargs, made.shapes)
    mode = Mode(strict=True, ir="inference")
    assert_equal_programs(sample.by_us(mode), sample.by_torch(mode), same_tensors=True)


def test_another_method_is_followed():
    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 3)

        def encode(self, x, *, scale):
            return self.linear(x) * scale

    module, args, kwargs = Encoder(), (ones(2, 3),), {"scale": ones(3)}
    module.register_forward_hook(raises)
    program = capture(module, args, kwargs, strict=True, method="encode")
    torch.testing.assert_close(program.module()(*args, **kwargs), module.encode(*args, **kwargs))
    assert program.graph_module.code == capture(module, args, kwargs, method="encode").graph_module.code


@pytest.mark.filterwarnings("ignore:A model attribute")
def test_a_parameter_in_a_list_is_a_constant():
    case = CASES["constants_of_all_kinds"]()
    program = capture(case.module, case.args, strict=True)
    assert set(program.constants) >= {"inner.scale", "inner.alias"}
    torch.testing.assert_close(program.module()(*case.args), case.module(*case.args).detach(), equal_nan=True)


def test_what_forward_prints_and_logs_is_left_out(capsys, caplog):
    def forward(self, x):
        print("size", x.shape)
        logging.getLogger().warning("logged")
        warnings.warn("warned", stacklevel=1)
        return x + 1

    both(Case(Module(forward), (ones(2),)), strict=True)
    assert capsys.readouterr().out == ""
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def _by_item(x):
    count = x.sum().int().item()
    return x if count > 3 else -x


STOPS: dict[str, tuple[Any, str, str]] = {
    "an error": (lambda x: raises(x, x), "forward raised ValueError: of my own", "call the module"),
    "an error of an operator": (lambda x: x @ ones(7, 7), "forward raised RuntimeError: a and b must", "call"),
    "a branch": (lambda x: x if x.sum() > 0 else -x, "decides by a value of a tensor", "torch.cond"),
    "a branch on a number": (_by_item, "known only at run time: count > 3", "torch._check(count > 3)"),
    "an assert of a size": (asserts, "`assert x.shape[0] > 50`", "pass an example that does"),
    "a graph break": (lambda x: torch._dynamo.graph_break() or x, "User-inserted graph break", "strict=False"),
    "a call that Dynamo does not know": (lambda x: x + os.getpid(), "does not know how to trace", "strict=False"),
    "a value that is needed": (lambda x: x.tolist()[0], "does not support tracing `tolist()`", "strict=False"),
}


@pytest.mark.parametrize("what", STOPS)
def test_a_stop_of_dynamo_names_module_line_and_remedy(what, capfd, caplog):
    function, message, remedy = STOPS[what]
    module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ModuleDict({"inner": Block(function)}).inner)
    with pytest.raises(CaptureError) as caught:
        capture(module, (torch.full((8, 2), 0.5),), dynamic_shapes={"input": {0: Dim("n")}}, strict=True)
    error = caught.value
    assert message in str(error)
    assert remedy in str(error.remedy)
    assert re.search(r"\(at 1, \w*(strict|refusals)\.py:\d+, in stage follow\); \w", str(error))
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


FIXES = {
    "a size that is fixed": (lambda x: x + ones(4, 1), "it fixes n (input.shape[0]) to 4", "specify n = 4"),
    "a relation": (lambda x: x if x.shape[0] % 2 == 0 else -x, "it asks that (input.shape[0] % 2) == 0", "n = 2*_n"),
}


@pytest.mark.parametrize("what", FIXES)
def test_what_the_sizes_do_not_grant_is_told_with_line_and_remedy(what):
    function, message, remedy = FIXES[what]
    with pytest.raises(CaptureError) as caught:
        capture(_Sized(function), (ones(4, 2),), dynamic_shapes={"input": {0: Dim("n")}}, strict=True)
    assert message in str(caught.value)
    assert remedy in str(caught.value.remedy)
    assert re.search(r"\(at test_capture_strict\.py:\d+, in stage solve\)", str(caught.value))


class _Sized(torch.nn.Module):
    """Calls a function with its input."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, input):
        return self.function(input)


class _Marked(torch.nn.Module):
    """Has tensors of all kinds for Dynamo to mark."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.linear = torch.nn.Linear(3, 3)
        self.register_buffer("buffer", torch.zeros(3))
        self.register_buffer("volatile", torch.zeros(3), persistent=False)
        self.constant = torch.ones(3)
        self.loose = [torch.ones(3)]

    def forward(self, x, n):
        y = self.linear(x) * n + self.buffer + self.volatile + self.constant + self.loose[0]
        if self.fails:
            raise ValueError("after all that")
        return y


@pytest.mark.parametrize("fails", [False, True])
def test_no_marks_are_left(fails):
    module, x = _Marked(fails=fails), torch.randn(4, 3)
    torch._dynamo.mark_dynamic(x, 1)
    tensors = [*module.parameters(), *module.buffers(), module.constant, *module.loose, x]
    before = [dict(vars(tensor)) for tensor in tensors], set(vars(module)), _dynamos_state()
    try:
        capture(module, (x, 3), dynamic_shapes={"x": {0: Dim.DYNAMIC, 1: None}, "n": Dim.AUTO}, strict=True)
    except CaptureError:
        assert fails
    assert ([dict(vars(tensor)) for tensor in tensors], set(vars(module)), _dynamos_state()) == before
    assert x._dynamo_dynamic_indices == {1}


def _dynamos_state() -> Any:
    from torch._dynamo import convert_frame, functional_export

    config = torch._dynamo.config.get_config_copy()
    return convert_frame.FRAME_COUNTER, set(vars(functional_export)), config, torch.compiler.is_exporting()


def test_functions_that_were_compiled_stay_compiled():
    compiled = []

    def backend(graph_module, examples):
        compiled.append(graph_module)
        return graph_module.forward

    module = torch.nn.Linear(2, 2)
    run = torch.compile(module, backend=backend)
    run(ones(1, 2))
    before = capture(module, (ones(1, 2),), strict=True)
    run(ones(1, 2))
    assert len(compiled) == 1
    assert_equal_programs(before, torch.export.export(module, (ones(1, 2),), strict=True))
    torch._dynamo.reset()


def test_changes_that_are_lost_are_warned_of():
    def forward(self, x):
        self.count = self.count + 1
        self.seen.append(x)
        return x + self.count

    module = torch.nn.Sequential(Module(forward, buffers={"count": (torch.zeros(()), True)}, seen=[]))
    with pytest.warns(UserWarning, match=r"forward changes self\.0, self\.0\.seen; .* strict=False") as met:
        capture(module, (ones(2),), strict=True)
    assert len(met) == 1
    assert module[0].seen == []
