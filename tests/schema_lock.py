"""The declared schema as plain values, and the version bump that a change of it owes.

`python -m tests.schema_lock` writes the lock of the current version anew.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from schema import calls, constraints, debug, dtypes, graph, literals, manifest, names, operators, signature
from schema.version import FORMAT_VERSION

LOCK = Path(__file__).parent / "locked" / f"schema-{FORMAT_VERSION[0]}.{FORMAT_VERSION[1]}.json"
MODULES = (literals, manifest, graph, signature, constraints, calls, debug)


def describe() -> dict[str, Any]:
    """Every record with its fields in order, and every closed list of names."""
    records = {
        f"{module.__name__}.{name}": _record(value)
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == module.__name__
    }
    lists = {
        "dtypes": sorted(dtypes.CARRIERS),
        "sparse_layouts": sorted(dtypes.SPARSE_LAYOUTS),
        "functions": sorted(constraints.FUNCTIONS),
        "assumptions": sorted(constraints.ASSUMPTIONS),
        "python_functions": sorted(operators.PYTHON_FUNCTIONS),
        "higher_order": sorted(operators.HIGHER_ORDER | operators.RUNS_TEXT),
        "node_kinds": sorted(operators.NODE_KINDS),
        "input_kinds": sorted(signature.INPUT_KINDS),
        "output_kinds": sorted(signature.OUTPUT_KINDS),
        "argument_kinds": sorted(signature.ARGUMENT_KINDS),
        "tree_kinds": sorted(calls.TREE_KINDS),
        "sections": sorted(names.SECTIONS),
    }
    return {"records": dict(sorted(records.items())), "lists": lists}


def _record(kind: type[msgspec.Struct]) -> dict[str, Any]:
    config = kind.__struct_config__
    types = _annotations(sys.modules[kind.__module__])[kind.__name__]
    fields = [
        {"name": field.name, "type": types[field.name], "required": field.required}
        for field in msgspec.structs.fields(kind)
    ]
    return {"tag": config.tag, "array": config.array_like, "fields": fields}


@cache
def _annotations(module: ModuleType) -> dict[str, dict[str, str]]:
    """The annotations of each class of a module, as they are written."""
    return {
        kind.name: {
            str(field.target.id): ast.unparse(field.annotation).replace("'", "")
            for field in kind.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        }
        for kind in ast.parse(inspect.getsource(module)).body
        if isinstance(kind, ast.ClassDef)
    }


def owed_bump(old: dict[str, Any], new: dict[str, Any]) -> str:
    """``none``, ``minor`` or ``major``: what FORMAT.md asks for such a change."""
    if old == new:
        return "none"
    for name, record in old["records"].items():
        now = new["records"].get(name)
        if now is None or (now["tag"], now["array"]) != (record["tag"], record["array"]):
            return "major"
        kept = now["fields"][: len(record["fields"])]
        if kept != record["fields"] or any(field["required"] for field in now["fields"][len(kept) :]):
            return "major"
    shrunk = any(set(names) - set(new["lists"].get(key, ())) for key, names in old["lists"].items())
    return "major" if shrunk else "minor"


if __name__ == "__main__":
    LOCK.write_text(json.dumps(describe(), indent=1) + "\n")
