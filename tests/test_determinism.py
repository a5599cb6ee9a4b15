"""The same program gives the same bytes, and they tell nothing of the machine."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import exporter
from tests.models import cases

ROOT = Path(__file__).parent.parent
EXPORT = """
import sys, torch, exporter
from tests.models import cases
case = cases()[sys.argv[1]]
torch.manual_seed(0)
case = case()
exporter.export(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes, path=sys.argv[2])
"""


@pytest.mark.parametrize("name", ["tied", "dynamic", "nested"])
def test_every_run_and_hash_seed_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    contents = set()
    for seed in ("0", "1", "77"):
        path = tmp_path / f"under-seed-{seed}"
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", EXPORT, name, str(path)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        contents.add(path.read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("name", cases())
def test_no_path_user_or_host_is_in_the_file(name: str, tmp_path: Path) -> None:
    from archive.reading import open_archive
    from schema.codec import decompress
    from schema.debug import Debug
    from schema.names import SECTIONS, section_name

    case = cases()[name]()
    exporter.export(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes, path=tmp_path / "m")
    with open_archive(tmp_path / "m") as archive:
        sections = {section.name: section.decoded_nbytes for section in archive.manifest.methods[0].sections}
        texts = [decompress(archive.raw(section_name("forward", s)), sections[s], ()) for s in SECTIONS]
        texts.append(archive.raw("__program__/manifest"))
        assert archive.section("forward", "debug", Debug).frames, "there must be frames that could hold a path"
    secrets = [str(ROOT), str(Path.home()), sys.prefix, socket.gethostname()]
    if getpass.getuser() != "root":  # a word that programs use, too
        secrets.append(getpass.getuser())
    for secret in secrets:
        assert not any(secret.encode() in text for text in texts), secret


def test_paths_are_kept_on_request(tmp_path: Path) -> None:
    import loader

    case = cases()["tied"]()
    exporter.export(case.module, case.args, case.kwargs, path=tmp_path / "m", keep_paths=True)
    program = loader.load(tmp_path / "m", debug=True)
    assert any(
        __file__.replace("test_determinism", "models") in node.meta.get("stack_trace", "")
        for node in program.graph.nodes
    )


def test_what_was_captured_before_does_not_show(tmp_path: Path) -> None:
    """torch numbers generated code through a whole process."""
    contents = set()
    for name in ("one", "two"):
        case = cases()["branch"]()
        torch.manual_seed(0)
        exporter.export(type(case.module)(), case.args, path=tmp_path / name)
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1
