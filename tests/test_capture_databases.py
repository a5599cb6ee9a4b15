"""PyTorch's own collections of modules: what ``torch.export.export`` captures, we capture to an equal program."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from exporter.capture import capture
from schema.errors import CaptureError
from tests.program_equality import assert_equal_programs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the test collections themselves, on import
    from torch._export.db.case import ExportCase, SupportLevel
    from torch._export.db.examples import all_examples
    from torch.testing._internal.common_modules import ModuleInfo, module_db

# --- torch._export.db: what export supports, by example -----------------------------------------------------

EXAMPLES: dict[str, ExportCase] = {
    name: case for name, case in all_examples().items() if case.support_level is SupportLevel.SUPPORTED
}

UNSUPPORTED = {name: case for name, case in all_examples().items() if name not in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.filterwarnings("ignore")
def test_export_db(name):
    case = EXAMPLES[name]
    _compare(case.model, case.example_args, case.example_kwargs, case.dynamic_shapes)


@pytest.mark.parametrize("name", UNSUPPORTED)
@pytest.mark.filterwarnings("ignore")
def test_export_db_refused(name):
    case = UNSUPPORTED[name]
    with pytest.raises(CaptureError):
        capture(case.model, case.example_args, case.example_kwargs, dynamic_shapes=case.dynamic_shapes)


def test_export_db_is_complete():
    assert len(EXAMPLES) >= 35


# --- module_db: the modules of torch.nn ----------------------------------------------------------------------

REFUSED_BY_TORCH = {
    "nn.CTCLoss": "the shape of an operator's output depends on values",
    "nn.FractionalMaxPool2d": "the collection passes samples of another dtype, which fakes refuse",
    "nn.GaussianNLLLoss": "forward branches on a value",
    "nn.LazyConv1d": "parameters do not exist before the first call",
    "nn.LazyConv2d": "parameters do not exist before the first call",
    "nn.LazyConv3d": "parameters do not exist before the first call",
    "nn.LazyConvTranspose1d": "parameters do not exist before the first call",
    "nn.LazyConvTranspose2d": "parameters do not exist before the first call",
    "nn.LazyConvTranspose3d": "parameters do not exist before the first call",
}

MODULES: dict[str, ModuleInfo] = {info.name: info for info in module_db}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in REFUSED_BY_TORCH])
@pytest.mark.filterwarnings("ignore")
def test_module_db(name):
    compared = 0
    for module, args, kwargs in _first_inputs(MODULES[name]):
        _compare(module, args, kwargs, None)
        compared += 1
    assert compared


@pytest.mark.parametrize("name", REFUSED_BY_TORCH)
@pytest.mark.filterwarnings("ignore")
def test_module_db_refused(name):
    for module, args, kwargs in _first_inputs(MODULES[name]):
        with pytest.raises(Exception, match=r"."):
            torch.export.export(module, args, kwargs)
        with pytest.raises(CaptureError) as caught:
            capture(module, args, kwargs)
        assert caught.value.remedy


def test_module_db_is_complete():
    assert len(MODULES) - len(REFUSED_BY_TORCH) >= 105


def _first_inputs(info: ModuleInfo) -> Iterator[tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]]:
    """The first input of a module that has any, in evaluation and in training."""
    for training in (False, True):
        torch.manual_seed(0)
        inputs = info.module_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
        )
        first = next((i for i in inputs if i.forward_input is not None), None)
        if first is not None:
            module = info.module_cls(*first.constructor_input.args, **first.constructor_input.kwargs)
            yield module.train(training), tuple(first.forward_input.args), dict(first.forward_input.kwargs)


def _compare(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> None:
    expected = torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
    actual = capture(module, args, kwargs, dynamic_shapes=shapes)
    assert_equal_programs(actual, expected, same_tensors=True)
