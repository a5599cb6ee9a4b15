"""Dynamic shapes: for each specification the program is torch's, or both refuse; and what is refused can be mended."""

from __future__ import annotations

import collections
import re
import warnings
from typing import Any

import pytest
import torch
from torch.export import AdditionalInputs, Dim, ShapesCollection

from exporter.capture import capture
from schema.errors import CaptureError
from tests.capture_cases import Batch, Module, Pair
from tests.capture_refusals import xy
from tests.program_equality import assert_equal_programs

rand = torch.randn
n, m = Dim("n"), Dim("m", min=2, max=50)


def both_programs(module: Any, args: Any, kwargs: Any = None, shapes: Any = None, *, deferred: bool = False) -> Any:
    """Ours and torch's; None where it is refused."""
    programs: list[Any] = []
    for export, option in (
        (capture, "prefer_deferred_runtime_asserts"),
        (torch.export.export, "prefer_deferred_runtime_asserts_over_guards"),
    ):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                programs.append(export(module, args, kwargs or {}, dynamic_shapes=shapes, **{option: deferred}))
        except CaptureError:
            programs.append(None)
        except Exception:
            assert export is not capture
            programs.append(None)
    return programs


def twice(x: Any, y: Any) -> Any:
    return x * 2, None if y is None else y + 1


def both_of(value: Any, y: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda leaf: leaf * 2, value), y


SAME: dict[str, tuple[Any, tuple[Any, ...], Any]] = {
    **{
        f"one dimension: {dim!r}": (twice, (rand(4, 3),), {"x": {0: dim}})
        for dim in (
            *(Dim("n", min=3), Dim("n", max=9), Dim("n", min=0), Dim("n", min=1, max=4), Dim("n", min=4)),
            *(Dim.AUTO, Dim.DYNAMIC, Dim.STATIC, Dim.AUTO(min=2, max=8), Dim.DYNAMIC(min=3), Dim.STATIC(max=8)),
            *(Dim.AUTO(min=4, max=4), 4, None, 2 * n, n + 1, 2 * (m - 1) + 2),
        )
    },
    "an example of size 1 that may vary": (twice, (rand(1, 3),), {"x": {0: Dim.AUTO}}),
    "an empty example that may vary": (twice, (rand(0, 3),), {"x": {0: Dim.AUTO}}),
    "a named Dim beside a hint": (torch.add, (rand(4), rand(4)), {"x": {0: n}, "y": {0: Dim.AUTO}}),
    "a hint beside a fixed size": (torch.add, (rand(4), rand(4)), {"x": {0: Dim.AUTO}, "y": None}),
    "hints whose ranges meet": (torch.add, (rand(4), rand(4)), {"x": {0: Dim.AUTO(min=3)}, "y": {0: Dim.AUTO(max=9)}}),
    "equal Dims that need not be": (twice, (rand(4), rand(4)), {"x": {0: n}, "y": {0: n}}),
    "two Dims of one name": (twice, (rand(4), rand(4)), {"x": {0: Dim("n")}, "y": {0: Dim("n")}}),
    "a square": (lambda x, y: x @ x.T, (rand(4, 4),), {"x": (n, n)}),
    "two derived Dims of one hidden root": (twice, (rand(8), rand(9)), {"x": {0: 2 * n}, "y": {0: 2 * n + 1}}),
    "a dict": (both_of, ({"a": rand(4), "b": rand(5)},), {"x": {"b": None, "a": {0: n}}}),
    "an ordered dict": (both_of, (collections.OrderedDict(a=rand(4)),), {"x": collections.OrderedDict(a={0: n})}),
    "a deque": (both_of, (collections.deque([rand(4)]),), {"x": collections.deque([{0: n}])}),
    "a list": (both_of, ([rand(4), rand(5)],), {"x": [{0: n}, None]}),
    "a dict in a tuple": (both_of, (({"a": rand(4)}, rand(5)),), {"x": ({"a": (n,)}, None)}),
    "a namedtuple": (both_of, (Pair(rand(4), rand(5)),), {"x": Pair({0: n}, None)}),
    "a dataclass": (lambda x, y: x.images * 2, (Batch(rand(4), [rand(5)]),), {"x": [{0: n}, [None]]}),
    "a missing tensor": (twice, (rand(4), None), {"x": {0: n}, "y": None}),
    "a scalar tensor": (twice, (torch.tensor(1.0),), {"x": {}}),
    "an integer": (lambda x, y: x * y, (rand(3), 4), {"x": None, "y": Dim.DYNAMIC(min=2, max=9)}),
    "an integer of 1": (lambda x, y: x * y, (rand(3), 1), {"x": None, "y": Dim.DYNAMIC}),
    "an integer of 0 that may vary": (lambda x, y: x * y, (rand(3), 0), {"x": None, "y": Dim.AUTO}),
    "an integer that the module fixes": (
        lambda x, y: x * y if y == 4 else x, (rand(3), 4), {"x": None, "y": Dim.AUTO}),
    "integers in a list": (lambda x, y: x * y[0] + y[1], (rand(3), [4, 5]), {"x": None, "y": [Dim.DYNAMIC, None]}),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_a_specification_gives_torchs_program(what):
    function, args, shapes = SAME[what]
    ours, theirs = both_programs(xy(function), args, shapes=shapes)
    assert_equal_programs(ours, theirs)


@pytest.mark.parametrize("spec", [(n, None), {0: n}, {0: Dim.AUTO}, (2 * n, None)], ids=str)
def test_a_tensor_that_is_passed_twice_under_one_specification(spec):
    x = rand(4, 3)
    assert_equal_programs(*both_programs(xy(twice), (x, x), shapes={"x": spec, "y": spec}))


def test_shapes_of_a_collection_reach_tensors_in_containers():
    a, b = rand(4, 3), rand(5, 3)
    shapes = ShapesCollection()
    shapes[a], shapes[b] = {0: n}, (m, Dim.AUTO)
    assert_equal_programs(*both_programs(xy(both_of), ({"p": [a], "q": (b,)},), shapes=shapes))


def test_additional_inputs_say_what_varies():
    shapes = AdditionalInputs()
    shapes.add(({"p": [rand(8, 3)], "q": (rand(5, 3),)}, 7))
    args = {"p": [rand(4, 3)], "q": (rand(5, 3),)}, 6
    assert_equal_programs(*both_programs(xy(both_of), args, shapes=shapes))


def test_additional_inputs_of_another_structure():
    shapes = AdditionalInputs()
    shapes.add((rand(4),))
    with pytest.raises(CaptureError, match="the same structure as in args"):
        capture(xy(twice), (rand(4), rand(4)), dynamic_shapes=shapes)


def test_keywords_in_another_order_than_the_specification():
    shapes = {"y": {0: m}, "x": {0: n}}
    assert_equal_programs(*both_programs(xy(twice), (), {"y": rand(4), "x": rand(5)}, shapes))


@pytest.mark.parametrize("shapes", [{"args": ({0: n}, None)}, (({0: n}, None),)], ids=["by name", "by order"])
def test_arguments_that_a_star_collects(shapes):
    assert_equal_programs(*both_programs(Module(lambda self, x, y: x.sum() + y), (rand(4), rand(5)), shapes=shapes))


# --- guards that dims cannot express -------------------------------------------------------------------------

a, b, c = Dim("a"), Dim("b"), Dim("c")
GUARDED: dict[str, tuple[Any, tuple[Any, ...], Any]] = {
    "a product, named": (lambda x, y: x.reshape([-1]) + y, (rand(3, 4), rand(12)), {"x": (a, b), "y": {0: c}}),
    "a product": (
        lambda x, y: x.reshape([-1]) + y, (rand(3, 4), rand(12)), {"x": (Dim.DYNAMIC,) * 2, "y": {0: Dim.DYNAMIC}}),
    "a multiple": (lambda x, y: x.reshape(x.shape[0] // 4, 4), (rand(8),), {"x": {0: a}}),
    "a multiple, hinted": (lambda x, y: x.reshape(-1, 4), (rand(8),), {"x": {0: Dim.DYNAMIC}}),
    "equal sizes": (torch.add, (rand(8), rand(8)), {"x": {0: a}, "y": {0: b}}),
    "equal sizes, hinted": (torch.add, (rand(8), rand(8)), {"x": {0: Dim.DYNAMIC}, "y": {0: Dim.DYNAMIC}}),
    "a branch": (lambda x, y: x if x.shape[0] > 5 else -x, (rand(8),), {"x": {0: a}}),
    "a branch, hinted": (lambda x, y: x if x.shape[0] > 5 else -x, (rand(8),), {"x": {0: Dim.DYNAMIC}}),
    "a branch by two sizes": (lambda x, y: x if x.shape[0] * x.shape[1] > 5 else -x, (rand(8, 3),), {"x": (a, b)}),
    "one size": (lambda x, y: x.reshape(8), (rand(8),), {"x": {0: Dim.DYNAMIC}}),
    "one size that may vary": (lambda x, y: x.reshape(8), (rand(8),), {"x": {0: Dim.AUTO}}),
    "checks": (lambda x, y: (torch._check(x.shape[0] % 2 == 0), x * 2)[1], (rand(4, 6),), {"x": (a, b)}),
    "a derived Dim": (lambda x, y: x[1:] + y, (rand(5), rand(4)), {"x": {0: a + 1}, "y": {0: a}}),
    "nothing": (twice, (rand(4), rand(5)), None),
}  # fmt: skip


@pytest.mark.parametrize("deferred", [False, True], ids=["guards", "deferred"])
@pytest.mark.parametrize("what", GUARDED)
def test_a_guard_is_kept_deferred_or_refused_as_in_torch(what, deferred):
    function, args, shapes = GUARDED[what]
    ours, theirs = both_programs(xy(function), args, shapes=shapes, deferred=deferred)
    assert (ours is None) == (theirs is None)
    if ours is not None:
        assert_equal_programs(ours, theirs)


def test_a_deferred_assert_holds_at_run_time():
    function, args, shapes = GUARDED["a multiple"]
    program = capture(xy(function), args, dynamic_shapes=shapes, prefer_deferred_runtime_asserts=True)
    assert program.module()(rand(12)).shape == (3, 4)
    with pytest.raises((RuntimeError, AssertionError)):
        program.module()(rand(13))


# --- marks on the tensors themselves -------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["mark_dynamic", "maybe_mark_dynamic", "mark_static"])
def test_marks_count_where_nothing_is_specified(mark):
    """torch reads the same marks, but gives the program no ranges for their symbols."""
    x = rand(4, 3)
    getattr(torch._dynamo, mark)(x, 0)
    marks = dict(vars(x))
    ours, theirs = both_programs(xy(twice), (x,))
    assert vars(x) == marks
    assert [str(r) for r in ours.range_constraints.values()] == ["VR[2, int_oo]"] * (mark != "mark_static")
    ours._range_constraints = theirs.range_constraints
    assert_equal_programs(ours, theirs)


def test_a_range_of_a_mark_counts():
    x = rand(4, 3)
    torch._dynamo.mark_dynamic(x, 0, min=3, max=9)
    assert [str(r) for r in capture(xy(twice), (x,)).range_constraints.values()] == ["VR[3, 9]"]


def test_a_specification_wins_over_marks():
    x = rand(4, 3)
    torch._dynamo.mark_dynamic(x, 0)
    assert (
        capture(xy(twice), (x,), dynamic_shapes={"x": {1: Dim.AUTO}})
        .graph.find_nodes(op="placeholder")[0]
        .meta["val"]
        .shape[0]
        == 4
    )


# --- refusals of the solver, and what they advise ------------------------------------------------------------

batch, length = Dim("batch"), Dim("length")
VIOLATED: dict[str, tuple[Any, tuple[Any, ...], Any, str, str]] = {
    "fixed by a reshape": (lambda x, y: x.reshape(12), (rand(4, 3),), {"x": {0: batch}},
        "it fixes batch (x.shape[0]) to 4", "specify batch = 4"),
    "two fixed, one without a name": (
        lambda x, y: (x.reshape(4), y.reshape(5)), (rand(4), rand(5)), {"x": {0: a}, "y": {0: Dim.DYNAMIC}},
        "it fixes a (x.shape[0]) to 4 and y.shape[0] to 5", "specify a = 4, y.shape[0] = 5"),
    "fixed by another": (torch.add, (rand(8), rand(8)), {"x": {0: batch}, "y": None},
        "it fixes batch (x.shape[0]) to 8", "specify batch = 8"),
    "fixed by arithmetic": (lambda x, y: x.reshape(16), (rand(4, 4),), {"x": (n, n)},
        "it fixes n (x.shape[0], x.shape[1]) to 4", "specify n = 4"),
    "a slice": (lambda x, y: x[:4] + y, (rand(8), rand(4)), {"x": {0: a}, "y": {0: b}},
        "it asks that 4 <= x.shape[0]", "b = 4, a = Dim('a', min=4)"),
    "a branch": (lambda x, y: x if 3 < x.shape[0] < 9 else -x, (rand(8),), {"x": {0: Dim("batch", max=100)}},
        "it asks that 4 <= x.shape[0] <= 8", "specify batch = Dim('batch', min=4, max=8)"),
    "an exception": (lambda x, y: x if x.shape[0] != 7 else -x, (rand(8),), {"x": {0: batch}},
        "it asks that x.shape[0] != 7", "pass prefer_deferred_runtime_asserts=True"),
    "equal sizes": (lambda x, y: x["a"] + x["b"][0] + y, ({"a": rand(8), "b": [rand(8)]}, rand(8)),
        {"x": {"a": {0: a}, "b": [{0: b}]}, "y": {0: c}}, "x['b'][0].shape[0] == x['a'].shape[0]", "b = a, c = a"),
    "a matrix product": (torch.matmul, (rand(8, 6), rand(6, 8)), {"x": (a, b), "y": (c, n)},
        "it asks that y.shape[0] == x.shape[1]", "specify c = b"),
    "a multiple": (lambda x, y: x.view(2, -1).sum(0), (rand(8),), {"x": {0: batch}},
        "(x.shape[0] % 2) == 0", "batch = 2*_batch"),
    "a bounded multiple": (lambda x, y: x.reshape(-1, 4), (rand(8),), {"x": {0: Dim("batch", max=100)}},
        "(x.shape[0] % 4) == 0", "specify _batch = Dim('_batch', min=1, max=25), batch = 4*_batch"),
    "one more": (lambda x, y: x + y[1:], (rand(4), rand(5)), {"x": {0: Dim("n", max=6)}, "y": {0: Dim("m", max=6)}},
        "m == n + 1 for m = y.shape[0], n = x.shape[0]", "specify n = Dim('n', max=5), m = n + 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", VIOLATED)
def test_the_refusal_names_the_line_and_a_specification_that_works(what):
    function, args, shapes, words, advice = VIOLATED[what]
    module = torch.nn.Module()
    module.inner = xy(function)
    module.forward = lambda x, y=None: module.inner(x, y)
    with pytest.raises(CaptureError) as caught:
        capture(module, args, dynamic_shapes=shapes)
    error = caught.value
    assert words in error.message
    assert advice in error.remedy
    assert error.loc == () if what == "fixed by arithmetic" else re.search(r"^inner, \S+\.py:\d+$", str(error.loc[0]))
    for mended, options in _mended(shapes, error.remedy):
        capture(module, args, dynamic_shapes=mended, **options)


def _mended(shapes: Any, remedy: str) -> Any:
    """Do literally what the remedy says, each of its ways."""
    tree_map = torch.utils._pytree.tree_map
    if advised := re.search(r"specify (.+?), use Dim\.AUTO", remedy):
        names: dict[str, Any] = {"Dim": Dim}
        tree_map(lambda dim: names.setdefault(getattr(dim, "__name__", ""), dim), shapes)
        mended = shapes
        for name, value in re.findall(r"([\w.\[\]]+) = (.+?)(?:, (?=[\w.\[\]]+ = )|$)", advised[1]):
            names[name] = eval(value, names)
            if place := re.fullmatch(r"(\w+)\.shape\[(\d+)\]", name):
                mended = {**mended, place[1]: {int(place[2]): names[name]}}
        yield tree_map(lambda dim: names.get(getattr(dim, "__name__", None), dim), mended), {}
    yield tree_map(lambda dim: dim if dim is None else Dim.AUTO, shapes), {}
    if "prefer_deferred_runtime_asserts" in remedy:
        yield shapes, {"prefer_deferred_runtime_asserts": True}


def test_a_minimum_is_advised_that_the_guards_do_not_exclude():
    """A convolution treats an output of size 1 in another way; torch advises a minimum of 5, and refuses it again."""
    conv, x = torch.nn.Conv1d(3, 4, 5), rand(2, 3, 9)
    with pytest.raises(CaptureError, match=r"conv\.py.*length = Dim\('length', min=6\)"):
        capture(conv, (x,), dynamic_shapes={"input": {2: length}})
    capture(conv, (x,), dynamic_shapes={"input": {2: Dim("length", min=6)}})
