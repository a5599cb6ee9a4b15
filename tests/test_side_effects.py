"""Reading an archive does nothing but read it: an audit hook sees no other file, import, foreign code or connection."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import loader
from schema.errors import UsageError
from schema.graph import Graph
from tests.hostile.cases import documents, original

ROOT = Path(__file__).parent.parent
CANARY = "canary 7f3a"

WATCHER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import archive, loader

warm, path, calls = sys.argv[1:]
ways = {
    "inspect": archive.inspect,
    "load": lambda path: loader.load(path, debug=True, verify="full"),
    "load_module": lambda path: loader.load_module(path, verify="full"),
    "verify": loader.verify,
}

def call(path):
    module = loader.load_module(path)
    args, kwargs = module.example_inputs
    module(*args, **kwargs)

if calls:
    ways["call"] = call
for act in ways.values():
    act(warm)  # what torch imports once is imported before anything is watched

RULES = ("open", "import", "compile", "exec", "socket", "subprocess", "os.", "shutil", "ctypes", "pickle", "urllib",
         "marshal", "cpython.run", "tempfile", "glob", "pty", "webbrowser", "fcntl", "syslog", "mmap")
seen, way = [], None

def watch(event, args):
    if way and event.startswith(RULES):
        told = args[:1] if event in ("open", "import", "os.listdir") else (type(args[0]).__name__,) if args else ()
        if event == "compile":
            told = (args[1], str(args[0]))
        if event == "exec":
            told = (args[0].co_filename,)
        seen.append((way, event, *map(str, told)))

sys.addaudithook(watch)
modules = set(sys.modules)
for way, act in ways.items():
    act(path)
way = None
print(json.dumps({"seen": seen, "imported": sorted(set(sys.modules) - modules)}))
"""

HARMLESS = {"mmap.__new__"}
GENERATED = re.compile(r"<program>|<eval_with_key>\.\d+")
"""What our code and torch.fx's is called, which are generated of checked identifiers."""
NAMED_TUPLE = re.compile(r"b'lambda _cls, [\w, ]+: _tuple_new\(_cls, \([\w, ]+\)\)'")
"""What Python generates for a named tuple, of names that have been checked."""


def _named(plain: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Name modules that nobody has imported, and put a text wherever texts may be."""
    manifest["methods"][0]["operators"][0]["provider"] = "antigravity"
    manifest["producer"]["name"] = CANARY
    for kind in plain["calls"]["types"]:
        if kind["kind"] != "builtin":
            kind["name"] = "wave.Wave_read"
    graph = plain["graph"]
    graph["custom"] = ["dict", [CANARY], [CANARY]]
    graph["arguments"].append(["dict", [CANARY], [CANARY]])
    first = graph["graphs"][0] | {"custom": {0: len(graph["arguments"]) - 1}}
    graph["graphs"][0] = {field: first[field] for field in Graph.__struct_fields__ if field in first}
    for frame in graph["frames"]:
        frame[1:] = [f"{CANARY} {frame[1]}", CANARY, f"wave.{CANARY}"]
    graph["functions"] = [(CANARY, CANARY) for _ in graph["functions"]]


@pytest.mark.parametrize("name", ["tied", "dynamic", "nested", "branch"])
def test_reading_opens_one_file_imports_nothing_and_runs_only_generated_code(name: str, tmp_path: Path) -> None:
    path = documents(_named, name)(tmp_path)
    calls = "" if name == "branch" else "calls"  # torch traces a conditional anew when it is called
    command = [sys.executable, "-c", WATCHER, str(original(name)), str(path), calls]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["imported"] == []
    assert {way for way, *_ in found["seen"]} >= {"inspect", "load", "load_module", "verify"}
    for way, event, *told in found["seen"]:
        if event == "open":
            assert told == [str(path)], way
        elif event in ("compile", "exec"):
            named_tuple = told[0] == "<string>" and (event == "exec" or NAMED_TUPLE.fullmatch(told[1]))
            assert named_tuple or GENERATED.fullmatch(told[0]), (way, told)
            assert not any(CANARY in text for text in told), way
        else:
            assert event in HARMLESS, (way, event, told)


def test_code_is_not_generated_while_torch_would_write_metadata_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = original("branch")
    monkeypatch.setenv("FX_GRAPH_SHOW_META", "1")
    with pytest.raises(UsageError, match="FX_GRAPH_SHOW_META is set"):
        loader.load(path)
    module = loader.load_module(path)
    args, kwargs = module.example_inputs
    module(*args, **kwargs)
