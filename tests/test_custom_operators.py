"""Custom operators: an archive says where they come from, and calls only those that the caller admits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import archive
import exporter
import loader
from archive.render import operator_lines, summary_lines
from exporter.emit.providers import find_provider
from schema.errors import FormatError, OperatorError
from tests.rewriting import rewrite

ROOT = Path(__file__).parent.parent

OPERATORS = """
import torch

@torch.library.custom_op("archive_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2

@twice.register_fake
def _(x):
    return torch.empty_like(x)

@torch.library.custom_op("archive_test::bump", mutates_args=("x",))
def bump(x: torch.Tensor) -> None:
    x.add_(1)

library = torch.library.Library("archive_test_library", "DEF")
library.define("thrice(Tensor x) -> Tensor")
library.impl("thrice", lambda x: x * 3, "CompositeExplicitAutograd")

torch.library.define("archive_test_library::fourfold", "(Tensor x) -> Tensor")
torch.library.impl("archive_test_library::fourfold", "cpu", lambda x: x * 4)
torch.library.register_fake("archive_test_library::fourfold", lambda x: torch.empty_like(x))
"""


class Model(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.ops.archive_test.twice(x) + 1
        torch.ops.archive_test.bump(y)
        return torch.ops.archive_test_library.fourfold(y)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A package of operators in a folder of its own, imported here, and a model that calls them as two archives."""
    folder = tmp_path_factory.mktemp("operators")
    (folder / "archive_test_ops").mkdir()
    (folder / "archive_test_ops" / "__init__.py").touch()
    (folder / "archive_test_ops" / "kernels.py").write_text(OPERATORS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        import archive_test_ops.kernels  # type: ignore[import-not-found]

        example = (torch.ones(2),)
        exporter.export(Model(), example, path=folder / "model", record_outputs=True)
        exporter.export(Model(), example, path=folder / "functional", ir="inference", record_outputs=True)
        yield folder
        del archive_test_ops.kernels.library


def test_the_archive_names_their_schema_and_the_module_that_registers_them(folder: Path) -> None:
    uses = {use.name: use for use in archive.inspect(folder / "functional").methods[0].operators}
    assert uses["archive_test::twice.default"].provider == "archive_test_ops.kernels"
    assert uses["archive_test::twice.default"].schema == "archive_test::twice(Tensor x) -> Tensor"
    assert uses["aten::add.Tensor"].provider == ""
    passed = uses["archive_test::bump.default"]
    assert (passed.count, passed.provider) == (0, "archive_test_ops.kernels"), "it is passed to auto_functionalized"


@pytest.mark.parametrize("name", ["archive_test.twice", "archive_test_library.thrice", "archive_test_library.fourfold"])
def test_every_way_to_register_is_traced_to_its_module(folder: Path, name: str) -> None:
    namespace, operator = name.split(".")
    assert find_provider(getattr(getattr(torch.ops, namespace), operator).default) == "archive_test_ops.kernels"


def test_without_python_code_the_package_is_that_of_the_namespace_or_the_loaded_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "exporter.emit.providers"
    operator = torch.ops.archive_test_library.thrice.default
    monkeypatch.setattr(f"{module}.registration_files", lambda _: [])
    assert find_provider(operator) == ""
    monkeypatch.setattr(f"{module}.loaded_libraries", lambda: [str(folder / "archive_test_ops" / "_C.so")])
    assert find_provider(operator) == "archive_test_ops"
    monkeypatch.setitem(sys.modules, "archive_test_library", archive)
    assert find_provider(operator) == "archive_test_library"


@pytest.mark.parametrize("name", ["model", "functional"])
def test_a_refusal_names_all_that_is_to_be_imported_and_passed(folder: Path, name: str) -> None:
    with pytest.raises(OperatorError, match="calls the custom operator archive_test::") as caught:
        loader.load(folder / name)
    assert "import archive_test_ops.kernels and" in caught.value.remedy
    assert 'pass allow_ops=["archive_test", "archive_test_library"]' in caught.value.remedy
    assert "--import archive_test_ops.kernels --allow-ops archive_test --allow-ops arch" in caught.value.remedy


def test_a_fresh_process_runs_them_once_they_are_imported_and_admitted(folder: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(folder)!r})
import loader, torch
from schema.errors import OperatorError
paths = {[str(folder / name) for name in ("model", "functional")]}
allow = ["archive_test", "archive_test_library"]
try:
    loader.load_module(paths[0], allow_ops=allow)
except OperatorError as error:
    print(error)
assert "archive_test_ops" not in sys.modules
import archive_test_ops.kernels
for path in paths:
    print(loader.load_module(path, allow_ops=allow)(torch.ones(2)).tolist(), loader.verify(path, allow_ops=allow).ok)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert "knows no operator archive_test::" in first
    assert first.endswith("import archive_test_ops.kernels before loading")
    assert others == ["[16.0, 16.0] True"] * 2


def test_another_schema_than_the_recorded_one_is_refused(folder: Path, tmp_path: Path) -> None:
    def change(_: Any, manifest: Any) -> None:
        use = next(use for use in manifest["methods"][0]["operators"] if use["name"] == "archive_test::twice.default")
        use["schema"] = "archive_test::twice(Tensor x, int n=2) -> Tensor"

    path = rewrite(folder / "model", tmp_path / "x", change)
    with pytest.raises(OperatorError, match=r"written for \S+twice\(Tensor x, int n=2\) -> Tensor, and here") as caught:
        loader.load(path, allow_ops=["archive_test", "archive_test_library"])
    assert "here it is archive_test::twice(Tensor x) -> Tensor" in caught.value.message
    assert caught.value.remedy == "import the version of archive_test_ops.kernels that it was written with"


@pytest.mark.parametrize("provider", ["os; evil", "a b", ".", "x" * 300, 'a"b'])
def test_a_provider_that_is_no_module_is_refused(folder: Path, tmp_path: Path, provider: str) -> None:
    def change(_: Any, manifest: Any) -> None:
        manifest["methods"][0]["operators"][-1]["provider"] = provider

    with pytest.raises(FormatError, match="is no module"):
        loader.load(rewrite(folder / "model", tmp_path / "x", change))


def test_a_recorded_provider_is_never_imported(folder: Path, tmp_path: Path) -> None:
    def change(_: Any, manifest: Any) -> None:
        for use in manifest["methods"][0]["operators"]:
            use["provider"] = "archive_test_ops.evil"

    path = rewrite(folder / "model", tmp_path / "x", change)
    (folder / "archive_test_ops" / "evil.py").write_text("raise SystemExit('imported')")
    with pytest.raises(OperatorError, match=r"import archive_test_ops\.evil"):
        loader.load(path)
    assert loader.load(path, allow_ops=["archive_test", "archive_test_library"])
    assert "archive_test_ops.evil" not in sys.modules


def test_inspect_says_what_is_needed(folder: Path) -> None:
    summary = archive.inspect(folder / "model")
    assert "  needs: archive_test_ops.kernels" in summary_lines(summary)
    assert any(line.endswith("from archive_test_ops.kernels") for line in operator_lines(summary.methods[0]))


class Assembly(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        arguments = {"asm_str": "add.f32 $0, $1, $1;", "constraints": "=f,f", "dtype": torch.float32}
        return torch.ops.higher_order.inline_asm_elementwise(x, **arguments)


@pytest.mark.skipif(
    not hasattr(torch.ops.higher_order, "inline_asm_elementwise"), reason="this torch has no such operator"
)
def test_text_that_an_operator_runs_must_be_admitted_by_the_name_of_the_operator(tmp_path: Path) -> None:
    exporter.export(Assembly(), (torch.ones(2),), path=tmp_path / "program")
    for load in (loader.load, loader.load_module):
        with pytest.raises(OperatorError, match="runs text that it holds") as caught:
            load(tmp_path / "program")
        assert 'pass allow_ops=["inline_asm_elementwise"]' in caught.value.remedy
    loaded = loader.load(tmp_path / "program", allow_ops=["inline_asm_elementwise"])
    assert "add.f32 $0, $1, $1;" in str(loaded.graph)
