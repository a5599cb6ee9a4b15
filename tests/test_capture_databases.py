"""PyTorch's own collections of modules: what ``torch.export.export`` captures, we capture to an equal program."""

from __future__ import annotations

import pytest

from schema.errors import CaptureError
from tests.databases.judging import Task, judge
from tests.databases.samples import (
    EXAMPLES,
    MODULES,
    REFUSED_BY_TORCH,
    TRAINING,
    UNSUPPORTED,
    Choice,
    Sample,
    example,
    module_samples,
)
from tests.program_equality import assert_equal_programs

pytestmark = pytest.mark.filterwarnings("ignore")  # the collections warn


def _compare(sample: Sample) -> None:
    assert_equal_programs(sample.by_us(), sample.by_torch(), same_tensors=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_export_db(name: str) -> None:
    _compare(example(name))


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_export_db_refused(name: str) -> None:
    try:
        expected = example(name).by_torch()
    except Exception:  # torch refuses with whatever comes to hand
        with pytest.raises(CaptureError):
            example(name).by_us()
    else:  # what a collection calls unsupported may work in this torch
        assert_equal_programs(example(name).by_us(), expected)


def test_export_db_is_complete() -> None:
    assert len(EXAMPLES) >= 34, "torch 2.11 has 34 supported examples, later ones more"


@pytest.mark.parametrize("name", [name for name in MODULES if name not in REFUSED_BY_TORCH])
def test_module_db(name: str) -> None:
    samples = list(module_samples(name))
    assert samples
    for sample in samples:
        _compare(sample)


@pytest.mark.parametrize("name", REFUSED_BY_TORCH)
def test_module_db_refused(name: str) -> None:
    for sample in module_samples(name):
        with pytest.raises(Exception, match=r"."):
            sample.by_torch()
        with pytest.raises(CaptureError) as caught:
            sample.by_us()
        assert caught.value.remedy


def test_module_db_is_complete() -> None:
    assert len(MODULES) - len(REFUSED_BY_TORCH) >= 104, "torch 2.11 has 104 such modules, later ones more"


FEW = {
    "hop_db": ("auto_functionalize.simple", "cond.simple", "invoke_subgraph.simple", "while_loop.simple"),
    "op_db": (
        "abs",
        "double",
        "flipud",
        "linalg.eigvals",
        "logit",
        "masked.logsumexp",
        "rot90",
        "sparse.sampled_addmm",
    ),
    "transformers": ("mamba", "mixtral", "t5"),
}
"""A part of the suites that only ``python -m tests.databases`` runs whole."""


@pytest.mark.parametrize(("suite", "name"), [(suite, name) for suite, names in FEW.items() for name in names])
def test_other_suites_in_part(suite: str, name: str) -> None:
    for verdict in judge(Task(suite, name, str(TRAINING), Choice())):
        assert verdict.torch
        assert verdict.equal, verdict.reasons
        assert verdict.survived, verdict.reasons
