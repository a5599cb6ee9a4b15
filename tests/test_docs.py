"""What the documentation says is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from archive.cli import app
from benchmarks import markdown
from benchmarks.report import read_json
from schema.errors import InputError
from schema.names import SECTIONS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    with pytest.raises(InputError, match=re.escape("dimension 0 of input (shape [65, 8]) is 65, expected 1 to 64")):
        names["module"](torch.randn(65, 8))  # type: ignore[operator]


def test_the_commands_and_options_of_the_readme_exist() -> None:
    commands = set(re.findall(r"^\$ archive (\w+)", README, re.MULTILINE))
    assert commands == {"export", "inspect", "verify", "sign", "run", "convert"}
    for command in commands:
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0
        lines = [line for line in README.splitlines() if f"archive {command}" in line]
        for option in set(re.findall(r"--[a-z][a-z-]+", " ".join(lines))):
            assert option in shown.output, f"{command} {option}"


def test_every_command_explains_itself() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert len(command.callback.__doc__ or "") > 40


def test_format_md_speaks_of_every_section_and_every_file_of_the_schema() -> None:
    page = (ROOT / "schema" / "FORMAT.md").read_text()
    assert all(f"`{section}`" in page for section in SECTIONS)
    documents = {path.name for path in (ROOT / "schema").glob("*.py")} - {"__init__.py", "errors.py", "codec.py"}
    mentioned = set(re.findall(r"`(\w+\.py)`", page))
    assert mentioned <= documents
    assert documents - mentioned <= {"literals.py", "names.py"}


def test_the_tables_of_speed_are_of_what_was_measured() -> None:
    report = read_json(ROOT / "docs" / "speed.json")
    assert markdown.overview(report) in README
    assert markdown.figures(report) in (ROOT / "docs" / "speed.md").read_text()


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "schema" / "FORMAT.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
