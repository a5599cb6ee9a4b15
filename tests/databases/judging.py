"""What becomes of one sample: captured by torch, by us, equal, and back from a file?"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.common_utils import DeterministicGuard
from torch.utils import _pytree as pytree

import exporter
import loader
from tests.databases.samples import MODES, Mode, Sample, samples
from tests.databases.tasks import TRUSTED, Task, one_line
from tests.program_equality import assert_equal_programs, assert_loaded_equal, same


@dataclass(frozen=True)
class Verdict:
    """What became of one sample.

    Attributes:
        name: The name of the sample.
        torch: Did torch capture it?
        ours: Did we?
        equal: Are both programs the same, and do they return the same? Without torch's: does ours return what the
            module returns?
        survived: Did torch's program survive a file?
        reasons: Why not, by the name of the question, in one line.
    """

    name: str
    torch: bool = False
    ours: bool = False
    equal: bool = False
    survived: bool = False
    reasons: tuple[tuple[str, str], ...] = ()


def judge(task: Task) -> Iterator[Verdict]:
    """Capture, compare, save and load every sample of a task.

    Args:
        task: The case.

    Yields:
        The verdict on each sample, as soon as it is known.
    """
    mode = MODES[task.mode]
    made, again = (list(samples(task.suite, task.name, task.choice)) for _ in range(2))
    for for_torch, for_us in zip(made[task.first :], again[task.first :], strict=True):
        yield _judge(for_torch, for_us, mode)


def _judge(for_torch: Sample, for_us: Sample, mode: Mode) -> Verdict:
    reasons = dict[str, str]()

    def attempt(question: str, act: Callable[[], Any]) -> Any:
        torch._dynamo.reset()
        gc.collect()  # an iterator of samples may be suspended under no_grad: torch would record that it is closed
        FakeTensorMode.cache_clear()  # a result from it may have another storage offset than one that is computed
        try:
            return act()
        except Exception as error:  # whatever it is, the answer is no
            reasons[question] = one_line(error)
            return None

    ours = attempt("ours", lambda: for_us.by_us(mode))
    theirs = attempt("torch", lambda: for_torch.by_torch(mode))
    if ours and theirs:
        attempt("equal", lambda: _assert_equal(ours, theirs, for_us))
    elif ours:
        attempt("equal", lambda: _assert_runs_as_module(ours, for_us))
    if theirs:
        with tempfile.TemporaryDirectory() as folder:
            attempt("survived", lambda: assert_survives(theirs, Path(folder) / "program"))
    return Verdict(
        for_us.name,
        torch=theirs is not None,
        ours=ours is not None,
        equal=ours is not None and "equal" not in reasons,
        survived=theirs is not None and "survived" not in reasons,
        reasons=tuple(reasons.items()),
    )


def _assert_equal(ours: Any, theirs: Any, sample: Sample) -> None:
    assert_equal_programs(ours, theirs)
    assert_runs_alike(ours.module(), theirs.module(), sample)


def assert_runs_alike(left: Callable[..., Any], right: Callable[..., Any], sample: Sample) -> None:
    """Run two modules with the example: they return the same, bit for bit, or both refuse.

    An example may be outside what its own program asserts.
    """
    results = _run(left, sample), _run(right, sample)
    alike = same(*results) or all(isinstance(result, str) for result in results)
    assert alike, f"results differ: {results[0]} and {results[1]}"


def _assert_runs_as_module(program: torch.export.ExportedProgram, sample: Sample) -> None:
    """Run a program and its module: a decomposed operator rounds otherwise, and draws other random numbers."""
    actual, expected, again = (
        _run(module, sample, seed) for module, seed in ((program.module(), 3), (sample.module, 3), (sample.module, 4))
    )
    assert _without_values(actual) == _without_values(expected), f"results differ: {actual} and {expected}"
    if same(expected, again):
        torch.testing.assert_close(_tensors(actual), _tensors(expected), equal_nan=True)


def _without_values(result: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda tensor: (tensor.shape, tensor.dtype), result)


def _tensors(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _run(module: Callable[..., Any], sample: Sample, seed: int = 3) -> Any:
    """What a module or program returns, flat; or the kind of its error."""
    torch.manual_seed(seed)
    with DeterministicGuard(True, warn_only=True):  # memory that nobody writes is NaN
        try:
            args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (sample.args, sample.kwargs))
            return pytree.tree_flatten(module(*args, **kwargs))
        except Exception as error:  # whatever it is, it is compared
            return type(error).__name__


def assert_survives(program: torch.export.ExportedProgram, path: Path) -> None:
    """Save a program and load it: it is the same, and saving it again gives the same bytes."""
    exporter.save(program, path, keep_paths=True)
    loaded = loader.load(path, debug=True, allow_ops=TRUSTED)
    assert_loaded_equal(loaded, program)
    content = path.read_bytes()
    exporter.save(loaded, path, keep_paths=True)
    assert path.read_bytes() == content
