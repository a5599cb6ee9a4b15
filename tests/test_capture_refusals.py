"""What cannot be captured is refused in one line that names the place and the remedy."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import re
from typing import Any

import pytest
import torch
from torch.export import Dim

from exporter.capture import capture
from schema.errors import CaptureError
from tests.capture_cases import Module
from tests.capture_refusals import Block, ones, raises, refused, xy

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
    "unknown key": (({"a": ones(4)},), {"x": {"b": None}}, "dynamic_shapes.x", "another layout"),
    "too few entries": ((ones(4), ones(4)), [None], "dynamic_shapes", "1 entries for 2 arguments"),
    "too few elements": (([ones(4), ones(4)],), {"x": [None]}, "dynamic_shapes.x", "another layout"),
    "no specification": ((ones(4),), {"x": "all"}, "dynamic_shapes.x", "'all'"),
    "no specification at all": ((ones(4),), "all", "dynamic_shapes", "str"),
    "no dimension": ((ones(4),), {"x": {0: "n"}}, "dynamic_shapes.x.shape.0", "'n'"),
    "a number under a name": ((4,), {"x": Dim("n")}, "dynamic_shapes.x", "integer"),
    "a text that varies": (("t",), {"x": Dim.AUTO}, "dynamic_shapes.x", "type str"),
    "one name, two sizes": (
        (ones(4), ones(5)),
        {"x": {0: same_dim}, "y": {0: same_dim}},
        "y.shape.0",
        "4 at x.shape.0",
    ),
    "one name, two ranges": ((ones(4), ones(4)), {"x": {0: same_dim}, "y": {0: other_dim}}, "y.shape.0", "names both"),
    "no multiple": ((ones(5),), {"x": {0: 2 * same_dim}}, "x.shape.0", "not 2*same"),
    "a hidden root of 1": ((ones(2),), {"x": {0: 2 * Dim("n")}}, "x.shape.0", "n is 1 where 2*n is 2"),
    "a range of one size": ((ones(4),), {"x": {0: Dim.DYNAMIC(min=4, max=4)}}, "x.shape.0", "range has one value"),
    "a list for a dict": (({"a": ones(4)},), {"x": [None]}, "dynamic_shapes.x", "another layout than the dict"),
    "a dict for a list": (([ones(4)],), {"x": {0: None}}, "dynamic_shapes.x", "another layout than the list"),
    "a Dim for a container": (([ones(4)],), {"x": Dim("n")}, "dynamic_shapes.x", "Dim('n') has another layout"),
    "a truth value for a size": ((ones(4),), {"x": {0: True}}, "dynamic_shapes.x.shape.0", "specified by True"),
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


def test_arguments_have_to_be_a_tuple():
    with pytest.raises(CaptureError, match="not a tuple"):
        capture(xy(lambda x, y: x), [ones(2)])  # type: ignore[arg-type]


def test_keyword_arguments_have_to_be_a_mapping():
    with pytest.raises(CaptureError, match="kwargs is of type list, not a mapping"):
        capture(xy(lambda x, y: x), (ones(2),), [1])  # type: ignore[arg-type]


def _typo(x, y):
    return x.shape.nope


class _Unknown:
    pass


IN_THE_MODULE: dict[str, tuple[Any, tuple[Any, ...], Any, str, str]] = {
    "a branch on a value": (lambda x, y: x if x.sum() > 0 else -x, (ones(2),), None, "trace", "known only at run time"),
    "a branch on an item": (
        lambda x, y: x if y.item() > 0 else -x, (ones(2), torch.ones(()).long()), None, "trace", "x if y.item() > 0"),
    "a loop over a value": (lambda x, y: [x for _ in range(y)], (ones(2), torch.tensor(3)), None, "trace", "run time"),
    "shapes that do not fit": (lambda x, y: x @ y, (ones(2, 3), ones(2, 3)), None, "trace", "RuntimeError"),
    "an error of the user's": (raises, (ones(2),), None, "trace", "ValueError: of my own"),
    "a typing error": (_typo, (ones(2),), None, "trace", "AttributeError"),
    "numpy": (lambda x, y: torch.from_numpy(x.numpy()), (ones(2),), None, "trace", "raised"),
    "an unknown output": (lambda x, y: {"a": _Unknown()}, (ones(2),), None, "trace", "type _Unknown, which no"),
    "the number nan": (lambda x, y: (x, float("nan")), (ones(2),), None, "trace", "returns the number nan"),
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
        assert any("capture_refusals.py:" in str(part) or part == "output" for part in error.loc), error.loc
        assert error.__cause__ is not None or "returns" in error.message


def test_the_remedy_repeats_the_fix_that_torch_suggests():
    error = refused(xy(lambda x, y: x if x.shape[0] < 7 else -x), ones(4), shapes={"x": {0: Dim("n")}})
    assert "n = Dim('n', max=6)" in error.remedy


@pytest.mark.parametrize(
    ("dim", "name"), [(Dim("batch"), "batch (x.shape[0])"), (Dim.DYNAMIC, "x.shape[0]")], ids=["named", "unnamed"]
)
def test_a_size_that_the_module_fixes_is_told_with_its_place(dim, name):
    error = refused(xy(lambda x, y: x.reshape(4, 2)), ones(4, 2), shapes={"x": {0: dim}})
    assert error.message.endswith(f"it fixes {name} to 4")
    assert error.loc[0].startswith("test_capture_refusals.py:")
    assert f"specify {name.partition(' ')[0]} = 4, use Dim.AUTO there" in error.remedy


def test_sizes_are_told_by_the_names_of_the_user():
    shapes = {"x": {0: Dim("left")}, "y": {0: Dim.DYNAMIC}}
    error = refused(xy(lambda x, y: torch.cat([x, y], 1)), ones(4, 2), ones(5, 2), shapes=shapes)
    assert "Expected left in dimension 0 but got y.shape[0]" in error.message
    assert "does not hold for all the sizes" in error.remedy


def test_a_relation_of_sizes_is_told_in_python():
    error = refused(xy(lambda x, y: x + y[1:]), ones(4), ones(5), shapes={"x": {0: Dim("a")}, "y": {0: Dim("b")}})
    assert error.message.endswith("it asks that b == a + 1 for b = y.shape[0], a = x.shape[0]")


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor.*deprecated")
@pytest.mark.parametrize("as_input", [True, False])
def test_a_quantized_tensor_is_named(as_input):
    tensor = torch.quantize_per_tensor(ones(2), 0.1, 0, torch.qint8)
    inner = Module(lambda self, x: x, buffers={} if as_input else {"table": (tensor, True)})
    error = refused(torch.nn.Sequential(inner), tensor if as_input else ones(2))
    assert "a quantized tensor cannot be captured" in error.message
    assert error.loc == ("input" if as_input else "0.table",)


def test_the_remedy_fits_the_type_that_is_not_supported():
    @dataclasses.dataclass
    class Record:
        x: Any

    transformers = pytest.importorskip("transformers")
    remedies = [
        (transformers.DynamicCache(), "register_dynamic_cache_export_support()"),
        (Record(1), "register Record with torch.export.register_dataclass"),
        (_Unknown(), "register _Unknown with torch.utils._pytree.register_pytree_node"),
    ]
    for value, remedy in remedies:
        assert remedy in refused(xy(lambda x, y: x), value).remedy
        assert remedy in refused(xy(lambda x, y, value=value: value), ones(2)).remedy


def test_torch_does_not_log_the_error_that_is_raised():
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addHandler(handler)
    try:
        refused(torch.nn.Linear(3, 2), ones(1, 2))
        assert seen == []
        logger.error("my own, afterwards")
        assert len(seen) == 1
    finally:
        logger.removeHandler(handler)


def test_a_decision_by_a_value_is_told_in_the_names_of_the_user():
    def decide(x, y):
        count = y.item()
        return x if count > 3 else -x

    error = refused(xy(decide), ones(4), torch.tensor(3))
    assert error.message.endswith("run time: count > 3")
    assert "torch._check(count > 3) or torch._check(count <= 3)" in error.remedy


class Choosy(torch.nn.Module):
    """Decides by a value."""

    def forward(self, x):
        return x + 1 if x.mean() > 100 else x


class Demanding(torch.nn.Module):
    """Fails in five places, and decides nothing wrong elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList([Choosy(), Choosy()])

    def forward(self, x, n):
        if x.sum() > 0:
            x = x + torch.rand(4)
        count = n.item()
        if count > 3:
            x = x * 2
        for part in self.parts:
            x = part(x)
        x = torch.ops.refusals.no_rule(x)
        found = x[x > 0]
        for _ in range(count):
            x = x + found.sum()
        return x


def test_all_failures_for_values_are_told_together():
    library = torch.library.Library("refusals", "DEF")
    library.define("no_rule(Tensor x) -> Tensor")
    library.impl("no_rule", lambda x: x * 2, "CPU")
    module, x = Demanding(), torch.ones(4, requires_grad=True)
    random = torch.get_rng_state()
    error = refused(module, x, torch.tensor(5))
    assert torch.equal(random, torch.get_rng_state())
    assert x.grad is None
    assert x.tolist() == [1] * 4
    assert error.message.startswith("the capture fails at 5 places")
    told = [re.sub(r"; .*", "", part) for part in re.split(r"[:;] \(\d\) ", error.message)[1:]]
    assert [re.sub(r"^(parts\.\d, )?\S+: ", r"\1", part) for part in told] == [
        "the module decides by a value of a tensor, known only at run time: `if x.sum() > 0:`",
        "the module decides by a value that is known only at run time: count > 3",
        "parts.0, the module decides by a value of a tensor, known only at run time: "
        "`return x + 1 if x.mean() > 100 else x`",
        "refusals.no_rule.default cannot be traced: it has no rule for shapes",
        "the module computes in Python with a value that is known only at run time: count",
    ]
    assert "torch._check(count > 3)" in error.message
    assert "torch.library.register_fake" in error.message


def test_a_second_run_that_fails_in_another_way_changes_nothing():
    def forward(x, y):
        if x.sum() > 0:
            raise KeyError("only if the values are known")
        return x

    assert refused(xy(forward), ones(4)).message.endswith("known only at run time: `if x.sum() > 0:`")


def test_a_custom_operator_without_a_rule_is_told_as_such():
    @torch.library.custom_op("refusals::plus", mutates_args=())
    def plus(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    error = refused(xy(lambda x, y: plus(x)), ones(4))
    assert "refusals.plus.default cannot be traced" in error.message
    assert "register_fake" in error.remedy


def test_the_place_is_the_innermost_module_and_the_users_line():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(3, 3)))
    error = refused(model, ones(1, 2))
    assert error.loc[0].startswith("1.1, ")
    assert "(at 1.1, linear.py:" in str(error)
    assert ", in stage trace); " in str(error)


DEEP_DOWN: dict[str, tuple[Any, str]] = {
    "an error": (lambda x: raises(x, x), "trace"),
    "an error inside Python's library": (lambda x: json.dumps(x), "trace"),
    "a branch": (lambda x: x if x.sum() > 0 else -x, "trace"),
    "a size that is fixed": (lambda x: x.reshape(4, 2), "solve"),
    "a size that is limited": (lambda x: x if x.shape[0] < 7 else -x, "solve"),
    "a call that torch cannot follow": (torch.func.grad(lambda x: x.sum()), "lift"),
}


@pytest.mark.parametrize("what", DEEP_DOWN)
def test_a_failure_deep_down_names_module_line_and_stage(what):
    function, stage = DEEP_DOWN[what]
    layers = torch.nn.ModuleDict({"inner": Block(function)})

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x):
            return self.layers["inner"](x)

    module = torch.nn.Sequential(torch.nn.Linear(2, 2), Outer())
    error = refused(module, ones(4, 2), shapes={"input": {0: Dim("n")}})
    assert re.search(rf"\(at 1\.layers\.inner, \w*capture_refusals\.py:\d+, in stage {stage}\); \w", str(error))


def test_a_branch_that_dynamo_cannot_follow_comes_with_its_hint():
    error = refused(xy(lambda x, y: torch.cond(x.sum() > 0, lambda x: x, lambda x: x.sin(), (x,))), ones(4))
    assert "Dynamo cannot follow what this operator calls: Higher order ops do not support aliasing" in error.message
    assert "return input.clone()" in error.remedy
    assert "strict" not in error.remedy


def test_a_capture_error_can_be_pickled():
    error = refused(xy(raises), ones(2))
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.message, copy.loc, copy.remedy, copy.stage) == (error.message, error.loc, error.remedy, error.stage)


def test_a_buffer_cannot_become_what_was_not_computed():
    def forward(self, x):
        self.state = [x]
        return x

    error = refused(Module(forward, buffers={"state": (torch.zeros(1), True)}), ones(1))
    assert "state" in str(error)
