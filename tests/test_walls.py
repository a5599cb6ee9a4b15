"""The walls between the packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRIVATE = (
    *("torch._", "torch.fx.experimental", "torch.fx.passes", "torch.fx._", "torch.utils._", "torch.export._"),
    "torch.export.exported_program",
)


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import schema.codec, schema.manifest", "import archive", "import archive.cli"])
def test_the_torch_free_packages_import_neither_torch_nor_numpy(code: str) -> None:
    assert not modules_after(code) & {"torch", "numpy", "exporter", "loader"}


def test_the_producer_and_the_consumer_do_not_know_each_other() -> None:
    assert "loader" not in modules_after("import exporter")
    assert "exporter" not in modules_after("import loader")


def test_schema_is_ours_and_not_the_package_of_that_name() -> None:
    import schema

    assert Path(schema.__file__ or "").parent == ROOT / "schema"


@pytest.mark.parametrize("package", ["exporter", "loader"])
def test_private_torch_comes_through_one_file(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name == "torch_internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith(PRIVATE)], path


def test_nothing_that_reads_an_archive_can_run_code_from_it() -> None:
    banned = {"pickle", "marshal", "shelve", "importlib", "runpy", "subprocess", "socket", "ctypes"}
    calls = {"eval", "exec", "compile", "__import__", "sympify", "parse_expr", "srepr"}
    for package in ("schema", "loader"):
        for path in sorted((ROOT / package).rglob("*.py")):
            # The one that writes code and runs it; what it may write is a promise of its own, in test_loaded_module.py.
            allowed = {"exec", "compile"} if path == ROOT / "loader" / "code.py" else set()
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", "") or ""}
                    assert not names & banned, path
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    assert name not in calls - allowed, f"{path}:{node.lineno}"
