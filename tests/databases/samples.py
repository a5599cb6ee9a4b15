"""PyTorch's own collections of modules, and the zoo, as samples to capture, save and load.

A sample is made anew for each use, with the same random numbers: a failed export of torch leaves marks on a module.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

import exporter
from exporter.capture.artifacts import IR

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the collections themselves, on import
    from torch._export.db.case import ExportCase, SupportLevel
    from torch._export.db.examples import all_examples
    from torch.testing._internal.common_modules import ModuleInfo, module_db as module_infos


class Mode(NamedTuple):
    """A kind of capture."""

    strict: bool
    ir: IR

    def __str__(self) -> str:
        return f"{'strict' if self.strict else 'non-strict'}-{self.ir}"


TRAINING = Mode(strict=False, ir="training")
MODES = {
    str(mode): mode for mode in itertools.starmap(Mode, itertools.product((False, True), ("training", "inference")))
}


class Sample(NamedTuple):
    """A module and how to capture it."""

    name: str
    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any = None

    def by_torch(self, mode: Mode = TRAINING) -> torch.export.ExportedProgram:
        if mode.ir == "training":
            export = torch.export.export
        else:
            export = functools.partial(torch.export._trace._export, pre_dispatch=False)
        return export(self.module, self.args, self.kwargs, dynamic_shapes=self.dynamic_shapes, strict=mode.strict)

    def by_us(self, mode: Mode = TRAINING) -> torch.export.ExportedProgram:
        return exporter.capture(
            self.module, self.args, self.kwargs, dynamic_shapes=self.dynamic_shapes, strict=mode.strict, ir=mode.ir
        )

    def dynamic(self) -> Sample:
        """The same with all dimensions free."""
        signature = inspect.signature(self.module.forward)
        arguments = signature.bind(*self.args, **self.kwargs).arguments
        return self._replace(dynamic_shapes=pytree.tree_map(_all_free, dict(arguments)))


def _all_free(value: Any) -> Any:
    return dict.fromkeys(range(value.dim()), torch.export.Dim.AUTO) if isinstance(value, torch.Tensor) else None


@dataclass(frozen=True)
class Choice:
    """Which samples to take of each case.

    Attributes:
        most: How many at most, of an operator or of a module in one of its two modes.
        dtype: The element type of the samples of operators; of those that do not take it, another that they take.
        dynamic: Whether all dimensions are free.
    """

    most: int = 1
    dtype: torch.dtype = torch.float32
    dynamic: bool = False


EXAMPLES: dict[str, ExportCase] = {
    name: case for name, case in all_examples().items() if case.support_level is SupportLevel.SUPPORTED
}
"""What ``torch._export.db`` says that torch supports."""

UNSUPPORTED: dict[str, ExportCase] = {name: case for name, case in all_examples().items() if name not in EXAMPLES}

MODULES: dict[str, ModuleInfo] = {info.name: info for info in module_infos}
"""The modules of ``torch.nn``."""

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


def example(name: str) -> Sample:
    """One example of ``torch._export.db``."""
    case = all_examples()[name]
    model, args, kwargs = copy.deepcopy((case.model, case.example_args, case.example_kwargs))
    return Sample(name, model, args, kwargs or {}, case.dynamic_shapes)


def module_samples(name: str, choice: Choice = Choice()) -> Iterator[Sample]:
    """A module of ``torch.nn`` with its first inputs, in evaluation and in training."""
    info = MODULES[name]
    for training in (False, True):
        torch.manual_seed(0)
        inputs = info.module_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
        )
        called = (each for each in inputs if each.forward_input is not None)
        for number, each in enumerate(itertools.islice(called, choice.most)):
            module = info.module_cls(*each.constructor_input.args, **each.constructor_input.kwargs)
            module.train(training)
            title = f"{name} {'training' if training else 'evaluation'} {number}"
            yield Sample(title, module, tuple(each.forward_input.args), dict(each.forward_input.kwargs))


_INPUTS = (torch.Tensor, torch.nn.Module, type(None), bool, int, float, complex, str)
"""What a program can be given; functions, masks made of them, options and types of elements it has of its own."""


_NAMES = frozenset({"device"})
"""Names that torch's generated code has another use for: a program cannot be run that has an input of such a name."""


class _Operator(torch.nn.Module):
    """Calls one operator; arguments that are no inputs of a program are its own, by place and by name."""

    def __init__(self, function: Callable[..., Any], own: Mapping[int, Any], named: Mapping[str, Any]) -> None:
        super().__init__()
        self.function = function
        self.own = own
        self.named = named

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = list(args)
        for place, value in self.own.items():
            given.insert(place, value)
        return self.function(*given, **kwargs, **self.named)


def _is_input(argument: Any) -> bool:
    return all(isinstance(leaf, _INPUTS) for leaf in pytree.tree_leaves(argument))


def _operator_title(info: Any) -> str:
    return f"{info.name}.{info.variant_test_name}".rstrip(".")


@functools.cache
def _operators() -> dict[str, Any]:
    from torch.testing._internal.common_methods_invocations import op_db

    return {_operator_title(info): info for info in op_db}


@functools.cache
def _higher_order() -> dict[str, Any]:
    from torch.testing._internal.hop_db import hop_db

    return {_operator_title(info): info for info in hop_db}


def _operator_samples(info: Any, choice: Choice) -> Iterator[Sample]:
    torch.manual_seed(0)
    found = info.sample_inputs("cpu", choice.dtype, requires_grad=False)
    for number, each in enumerate(itertools.islice(found, choice.most)):
        arguments = (each.input, *each.args)
        own = {place: argument for place, argument in enumerate(arguments) if not _is_input(argument)}
        inputs = tuple(argument for place, argument in enumerate(arguments) if place not in own)
        named = {name: each.kwargs[name] for name in each.kwargs if name in _NAMES or not _is_input(each.kwargs[name])}
        keywords = {name: argument for name, argument in each.kwargs.items() if name not in named}
        yield Sample(f"{_operator_title(info)} {number}", _Operator(info.op, own, named), inputs, keywords)


_OTHERWISE = (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
"""Element types of samples, the first that an operator takes, where it does not take the one that was chosen."""


def _supported_samples(info: Any, choice: Choice) -> Iterator[Sample]:
    supported = info.supported_dtypes("cpu")
    dtype = next((dtype for dtype in (choice.dtype, *_OTHERWISE) if dtype in supported), None)
    return iter(()) if dtype is None else _operator_samples(info, replace(choice, dtype=dtype))


def _zoo_samples(name: str) -> Iterator[Sample]:
    from tests.databases import zoo

    torch.manual_seed(0)
    if found := zoo.build(name):
        yield Sample(name, found[0], (), found[1])


def _zoo_names() -> Iterable[str]:
    from tests.databases import zoo

    return zoo.model_types()


@dataclass(frozen=True)
class Suite:
    """A collection.

    Attributes:
        names: The names of its cases.
        samples: The samples of a case, made anew at each call; none if it does not apply.
    """

    names: Callable[[], Iterable[str]]
    samples: Callable[[str, Choice], Iterator[Sample]]


SUITES = {
    "export_db": Suite(all_examples, lambda name, _: iter((example(name),))),
    "module_db": Suite(lambda: MODULES, module_samples),
    "op_db": Suite(_operators, lambda name, choice: _supported_samples(_operators()[name], choice)),
    "hop_db": Suite(_higher_order, lambda name, choice: _operator_samples(_higher_order()[name], choice)),
    "transformers": Suite(_zoo_names, lambda name, _: _zoo_samples(name)),
}
"""All collections, by the name that the command line knows."""


def samples(suite: str, name: str, choice: Choice) -> Iterator[Sample]:
    """The samples of one case of a suite, made anew."""
    made = SUITES[suite].samples(name, choice)
    return (sample.dynamic() for sample in made) if choice.dynamic else made
