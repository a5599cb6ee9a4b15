"""PyTorch's own collections of modules, as samples to capture, save and load.

`python -m tests.databases` captures every one with torch and with us, saves and loads it, and prints the numbers.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

import exporter
import loader
from tests.program_equality import assert_equal_programs, assert_loaded_equal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the collections themselves, on import
    from torch._export.db.case import ExportCase, SupportLevel
    from torch._export.db.examples import all_examples
    from torch.testing._internal.common_modules import ModuleInfo
    from torch.testing._internal.common_modules import module_db as module_infos


class Sample(NamedTuple):
    """A module and how to capture it."""

    name: str
    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any = None

    def by_torch(self) -> torch.export.ExportedProgram:
        return torch.export.export(self.module, self.args, self.kwargs, dynamic_shapes=self.dynamic_shapes)

    def by_us(self) -> torch.export.ExportedProgram:
        return exporter.capture(self.module, self.args, self.kwargs, dynamic_shapes=self.dynamic_shapes)


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
    return Sample(name, case.model, case.example_args, case.example_kwargs or {}, case.dynamic_shapes)


def first_inputs(name: str) -> Iterator[Sample]:
    """A module of ``torch.nn`` with the first input that it has, in evaluation and in training."""
    info = MODULES[name]
    for training in (False, True):
        torch.manual_seed(0)
        inputs = info.module_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
        )
        first = next((each for each in inputs if each.forward_input is not None), None)
        if first is not None:
            module = info.module_cls(*first.constructor_input.args, **first.constructor_input.kwargs)
            module.train(training)
            yield Sample(name, module, tuple(first.forward_input.args), dict(first.forward_input.kwargs))


class _Operator(torch.nn.Module):
    """Calls one operator."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def operators() -> Iterator[Sample]:
    """Every operator of op_db that takes float32 on the CPU, with its first sample."""
    from torch.testing._internal.common_methods_invocations import op_db

    for info in op_db:
        if torch.float32 not in info.supported_dtypes("cpu"):
            continue
        torch.manual_seed(0)
        sample = next(iter(info.sample_inputs("cpu", torch.float32, requires_grad=False)), None)
        if sample is not None:
            name = f"{info.name}.{info.variant_test_name}".rstrip(".")
            yield Sample(name, _Operator(info.op), (sample.input, *sample.args), dict(sample.kwargs))


def _succeeds(act: Callable[[], object]) -> bool:
    try:
        act()
    except Exception:  # whatever it is, the case counts as lost
        return False
    return True


def _count(sample: Sample, path: Path, counts: Counter[str], lost: list[str]) -> None:
    counts["cases"] += 1
    if not _succeeds(sample.by_torch):
        return
    expected = sample.by_torch()
    counts["by torch"] += 1
    stages: dict[str, Callable[[], object]] = {
        "by us": sample.by_us,
        "equal": lambda: assert_equal_programs(sample.by_us(), expected),
        "survived": lambda: assert_survives(expected, path),
    }
    for name, act in stages.items():
        if _succeeds(act):
            counts[name] += 1
        else:
            lost.append(f"{sample.name}: not {name}")


def assert_survives(program: torch.export.ExportedProgram, path: Path) -> None:
    """Save a program and load it: it is the same, and saving it again gives the same bytes."""
    exporter.save(program, path, keep_paths=True)
    loaded = loader.load(path, debug=True)
    assert_loaded_equal(loaded, program)
    content = path.read_bytes()
    exporter.save(loaded, path, keep_paths=True)
    assert path.read_bytes() == content


def main() -> None:
    """Print the numbers; names of lost cases follow."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    suites = {
        "export db": (example(name) for name in EXAMPLES),
        "op db": operators(),
        "module db": (sample for name in MODULES for sample in first_inputs(name)),
    }
    columns = ("cases", "by torch", "by us", "equal", "survived")
    print(f"{'':10}" + "".join(f"{column:>10}" for column in columns))
    lost: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for title, samples in suites.items():
            counts: Counter[str] = Counter()
            for sample in samples:
                _count(sample, Path(folder) / "program", counts, lost)
            print(f"{title:10}" + "".join(f"{counts[column]:10}" for column in columns))
    print("\n".join(lost) or "none lost")


if __name__ == "__main__":
    main()
