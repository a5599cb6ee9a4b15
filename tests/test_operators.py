"""Which operators an archive may call: those of torch on the list, and what the caller admits."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import archive
import exporter
import loader
from loader.operators import Operators
from loader.torch_internals import register_operators
from schema.errors import OperatorError, UsageError
from schema.operators import FORBIDDEN, LISTED, REGISTERED_LATE, listed_operators
from tests import operator_lock
from tests.hostile.cases import documents

ROOT = Path(__file__).parent.parent


def test_the_list_is_what_the_rules_make_of_this_torch() -> None:
    assert listed_operators() & operator_lock.registered() == operator_lock.admitted(), "python -m tests.operator_lock"


def test_the_list_is_sorted_and_of_torchs_own_operators() -> None:
    lines = LISTED.read_text().splitlines()
    assert lines == sorted(set(lines))
    namespaces = {line.partition("::")[0] for line in lines if "." in line.partition("::")[2]}
    assert namespaces == {"aten", "prims", "export", *REGISTERED_LATE}


class Quantized(torch.nn.Module):
    """Quantizes as torch's quantization of captured programs does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ops, scale = torch.ops.quantized_decomposed, (0.1, 3, -128, 127, torch.int8)
        return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *scale), *scale)


def test_operators_that_torch_registers_late_are_there_when_a_program_calls_them(tmp_path: Path) -> None:
    register_operators("quantized_decomposed")
    x = torch.linspace(-1, 1, 7)
    exporter.export(Quantized(), (x,), path=tmp_path / "program")
    assert archive.inspect(tmp_path / "program").methods[0].operators[0].provider == ""
    code = f"""
import torch, loader
before = set(torch._C._dispatch_get_all_op_names())
module = loader.load_module({str(tmp_path / "program")!r})
new = set(torch._C._dispatch_get_all_op_names()) - before
assert all(name.startswith("quantized_decomposed::") for name in new) and new, new
print(module(torch.linspace(-1, 1, 7)).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == Quantized()(x).tolist()


def test_what_a_torch_does_not_register_is_no_operator() -> None:
    with pytest.raises(OperatorError, match=r"knows no operator torch_nn::gone.default; use a torch that has it"):
        Operators().resolve("torch_nn::gone.default", ())


@pytest.mark.parametrize(
    "name",
    [
        "aten::from_file.default",
        "aten::save.default",
        "aten::seed.default",
        "aten::set_grad_enabled.default",
        "aten::warn.default",
        "aten::set_.source_Storage",
        "aten::record_stream.default",
        "aten::fbgemm_linear_fp16_weight.default",
        "aten::_cufft_clear_plan_cache.default",
        "prims::copy_strided.default",
        "aten::append.t",
        "c10d::send.default",
        "profiler::_record_function_enter.default",
        "inductor::resize_storage_bytes_.default",
        "prim::Print.default",
        "rngprims::philox_rand.default",
        "debugprims::load_tensor.default",
    ],
)
def test_what_does_more_than_to_compute_is_not_on_the_list(name: str) -> None:
    assert name not in listed_operators()
    with pytest.raises(OperatorError):
        Operators().resolve(name, ())


def test_what_is_forbidden_stays_so_whatever_the_caller_admits() -> None:
    name = "aten::_reshape_alias.default"
    assert "aten::_reshape_alias" in FORBIDDEN
    with pytest.raises(OperatorError, match="forbidden"):
        Operators([name]).resolve(name, ())


def test_another_operator_of_torch_is_admitted_by_its_overload() -> None:
    name = "aten::_cummax_helper.default"
    with pytest.raises(OperatorError, match="not on the list") as caught:
        Operators().resolve(name, ())
    assert f'pass allow_ops=["{name}"]' in caught.value.remedy
    assert Operators([name]).resolve(name, ()) is torch.ops.aten._cummax_helper.default
    with pytest.raises(OperatorError, match="not on the list"):
        Operators(["aten::_cummax_helper.out"]).resolve(name, ())


def test_a_custom_operator_is_admitted_by_its_namespace_or_its_overload() -> None:
    library = torch.library.Library("operators_test", "DEF")
    library.define("one(Tensor x) -> Tensor")
    library.define("two(Tensor x) -> Tensor")
    assert Operators(["operators_test"]).resolve("operators_test::two.default", ())
    exact = Operators(["operators_test::one.default"])
    assert exact.resolve("operators_test::one.default", ())
    with pytest.raises(OperatorError, match=r"custom operator operators_test::two\.default"):
        exact.resolve("operators_test::two.default", ())


def test_all_of_torchs_own_namespace_is_not_admitted_at_once() -> None:
    with pytest.raises(UsageError, match=r'name the overload: allow_ops=\["aten::NAME.OVERLOAD"\]'):
        Operators(["aten"])


def test_a_program_runs_an_operator_that_its_caller_admits(tmp_path: Path) -> None:
    def change(plain: dict[str, Any], _: Any) -> None:
        targets = plain["graph"]["targets"]
        targets[targets.index("aten::add.Tensor")] = "aten::_test_ambiguous_defaults.a"

    path = documents(change)(tmp_path)
    with pytest.raises(OperatorError, match="not on the list"):
        loader.load_module(path)
    loader.load_module(path, allow_ops=["aten::_test_ambiguous_defaults.a"])


def test_the_list_costs_nothing_until_it_is_needed() -> None:
    code = "import schema.operators as each; print(each.listed_operators.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_a_save_says_what_readers_do_not_admit_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.emit.program.listed_operators", frozenset)  # as if all were of a later torch
    with pytest.warns(UserWarning, match=r'only with allow_ops=\["aten::linear.default"\]'):
        exporter.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), path=tmp_path / "model")
