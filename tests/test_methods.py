"""Methods other than ``forward``, and several methods of one module in one archive."""

from __future__ import annotations

import inspect
import pickle
from typing import Any, get_type_hints

import pytest
import torch
from torch.export import Dim
from torch.export._trace import _export

import archive
import exporter
import loader
from exporter import Call, capture, capture_methods
from exporter.capture import CaptureOptions
from schema.errors import CaptureError, UsageError
from tests.program_equality import assert_equal_programs

nn = torch.nn


class Written:
    """Methods whose code is called ``forward``, as torch wants it for stack traces."""

    def forward(self, image, *, scale=2.0):
        return self.body(image) * scale + self.offset


class Model(nn.Module):
    """Has a method beside ``forward``, hooks, a method that calls ``forward``, and one module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.same = self.body
        self.head = nn.Linear(4, 2)
        self.register_buffer("offset", torch.ones(4))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count.add_(1)
        return self.head(self.body(x))

    encode = Written.forward

    def decode(self, code, steps):
        return self.head(code) * len(steps)

    def refine(self, x):
        return self(x) + self.forward(x)

    def branch(self, x):
        return x if x.sum() > 0 else -x

    def twice(self, x):
        return {x}


def model() -> Model:
    torch.manual_seed(0)
    return Model()


def image() -> torch.Tensor:
    return torch.ones(2, 4)


BATCH = Dim("batch", min=1, max=9)


@pytest.mark.parametrize(
    ("options", "of_torch"),
    [
        ({}, {"strict": False, "pre_dispatch": True}),
        ({"ir": "inference"}, {"strict": False, "pre_dispatch": False}),
        ({"strict": True}, {"strict": True, "pre_dispatch": True}),
    ],
)
def test_a_method_equals_what_torch_makes_of_it_as_forward(options, of_torch):
    module = model()
    patched = type("Model", (Model,), {"forward": Model.encode, "__module__": __name__})
    how = {"kwargs": {"scale": 3.0}, "dynamic_shapes": {"image": {0: BATCH}, "scale": None}}
    program = capture(module, (image(),), method="encode", **how, **options)
    x = torch.randn(5, 4)
    torch.testing.assert_close(program.module()(x, scale=3.0), module.encode(x, scale=3.0))
    module.__class__ = patched
    expected = _export(module, (image(),), **how, **of_torch)
    # A line of the root stands in the stack traces of strict mode, and the roots differ.
    assert_equal_programs(program, expected, same_tensors=True, stack_traces="strict" not in options)


@pytest.mark.parametrize("strict", [False, True])
def test_a_method_may_call_forward(strict):
    """torch has no way to say this: where the method stands in for forward, it calls itself without end."""
    module = model()
    program = capture(module, (image(),), method="refine", strict=strict)
    torch.testing.assert_close(program.module()(image()), module.refine(image()))
    assert module.count == 4
    assert "body.0.weight" in program.state_dict


def test_hooks_belong_to_forward():
    module = model()
    module.register_forward_hook(lambda *_: pytest.fail("the hook ran"))
    capture(module, (image(),), method="encode")


def test_lines_of_a_method_are_in_the_stack_traces():
    program = capture(model(), (image(), [1, 2]), method="decode")
    product = next(node for node in program.graph.nodes if node.name == "mul")
    assert 'test_methods.py", line' in product.meta["stack_trace"]
    assert "in decode" in product.meta["stack_trace"]
    assert not any(name == "decode" for _, name in exporter.torch_internals.STACK_TRACE_ANCHORS)


def test_the_module_is_left_as_it_was():
    module = model()
    before = [dict(vars(each)) for each in module.modules()]
    capture(module, (image(),), method="encode")
    with pytest.raises(CaptureError):
        capture(module, (image(),), method="branch")
    assert [dict(vars(each)) for each in module.modules()] == before


def refused(method: Any, *args: Any) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        capture(model(), args, method=method)
    assert caught.value.remedy
    return caught.value


def test_what_is_no_method_is_refused_before_tracing():
    assert "Model has no method 'encod'" in str(refused("encod", image()))
    assert "capture(module.body, ...)" in str(refused("body", image()))
    assert "method is of type method, not a name" in str(refused(model().refine, image()))
    assert "has no method 'offset'" in str(refused("offset", image()))


def test_errors_name_the_method():
    error = refused("decode", image())
    assert "do not fit decode(code, steps)" in error.message
    assert error.stage == "bind"
    assert "in stage trace of method branch" in str(refused("branch", image()))
    assert "decode raised TypeError" in str(refused("decode", image(), 1))
    assert "twice returns an object of type" in str(refused("twice", image()))
    assert pickle.loads(pickle.dumps(error)).method == "decode"
    with pytest.raises(CaptureError) as caught:
        capture(model(), (image(), 1))
    assert caught.value.method == ""


def test_a_function_is_refused_and_a_method_is_told_apart():
    with pytest.raises(CaptureError, match="put the function into the forward"):
        capture(torch.relu, (image(),))
    with pytest.raises(CaptureError, match='pass the module, and method="refine"'):
        capture(model().refine, (image(),))


CALLS = {
    "encode": Call((image(),), dynamic_shapes={"image": {0: BATCH}}),
    "decode": Call((image(),), {"steps": [1, 2, 3]}),
    "forward": Call((image(),)),
}


def test_methods_share_their_weights():
    module = model()
    programs = capture_methods(module, CALLS)
    assert list(programs) == list(CALLS)
    for program in programs.values():
        assert program.state_dict["head.weight"] is module.head.weight
    assert_equal_programs(programs["decode"], capture(module, (image(),), {"steps": [1, 2, 3]}, method="decode"))


def test_methods_go_to_one_archive_with_one_set_of_weights(tmp_path):
    module, path = model(), tmp_path / "model.safetensors"
    programs = exporter.export(module, path=path, methods=CALLS, record_outputs=True)
    assert [method.name for method in archive.inspect(path).methods] == list(programs) == list(CALLS)
    alone = exporter.save(programs["forward"], tmp_path / "forward.safetensors")
    weights = sum(tensor.nbytes for tensor in module.state_dict().values())
    assert path.stat().st_size < alone + weights + 30_000
    x = torch.randn(3, 4)
    torch.testing.assert_close(loader.load_module(path, method="encode")(x), module.encode(x))
    loaded = loader.load(path, method="decode").module()
    torch.testing.assert_close(loaded(image(), steps=[1, 2, 3]), module.decode(image(), [1, 2, 3]))
    assert loader.verify(path).ok


def test_one_method_is_written_under_its_name(tmp_path):
    program = exporter.export(model(), (image(),), path=tmp_path / "encode.safetensors", method="encode")
    assert isinstance(program, torch.export.ExportedProgram)
    assert [each.name for each in archive.inspect(tmp_path / "encode.safetensors").methods] == ["encode"]


def test_methods_and_arguments_do_not_go_together(tmp_path):
    for more in ({"args": (image(),)}, {"method": "encode"}, {"dynamic_shapes": ({0: BATCH},)}):
        with pytest.raises(UsageError, match="put them into a Call"):
            exporter.export(model(), **more, path=tmp_path / "model.safetensors", methods=CALLS)
    for wrong in ({}, {"encode": (image(),)}, ["encode"]):
        with pytest.raises(CaptureError, match="not described by calls"):
            exporter.export(model(), path=tmp_path / "model.safetensors", methods=wrong)
    assert not list(tmp_path.iterdir())


def test_every_option_of_capture_is_one_of_export():
    of_a_call = {"module", "args", "kwargs", "dynamic_shapes", "method"}
    of_capture = inspect.signature(capture).parameters
    assert set(get_type_hints(CaptureOptions)) == set(of_capture) - of_a_call
