"""Verify an archive: everything that can be said of it without trusting it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from archive.reading import ArchiveFile, open_archive
from loader.devices import Devices, Target
from loader.integrity import check_digests
from loader.loading import load
from loader.module import load_module
from loader.operators import Operators
from loader.rebuild.literals import LiteralBuilder
from loader.rebuild.program import build_values
from loader.rebuild.tensors import TensorBuilder
from loader.torch_internals import pytree
from schema.calls import Calls
from schema.constraints import Constraints
from schema.debug import Debug
from schema.errors import ArchiveError
from schema.graph import ProgramGraph
from schema.manifest import Method
from schema.signature import Signature

_SECTIONS: dict[str, Any] = {
    "graph": ProgramGraph,
    "signature": Signature,
    "constraints": Constraints,
    "calls": Calls,
    "debug": Debug,
}


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: What.
        ok: Whether it holds.
        detail: What was found; of a check that failed, the error.
        seconds: How long it took.
    """

    name: str
    ok: bool
    detail: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """What was checked of an archive, in order. A check that fails ends those that build on it."""

    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"ok": self.ok, "checks": [vars(check) for check in self.checks]}


def verify(path: str | os.PathLike[str], *, device: Target = None, allow_ops: Iterable[str] = ()) -> Report:
    """Check the digests, structure and operators of an archive, rebuild its programs, and run recorded examples.

    That an archive is verified says that it is what was written and that torch accepts it. It does not say that the
    model in it is harmless.

    Args:
        path: The archive.
        device: Where to run the examples.
        allow_ops: Namespaces of custom operators that the programs may call.
    """
    checks: list[Check] = []
    archive = _check(checks, "header and manifest", lambda: open_archive(path), _describe_archive)
    if archive is None:
        return Report(checks)
    with archive:
        _check(checks, "digests", lambda: check_digests(archive), lambda nbytes: f"{nbytes:,} bytes")
        for method in archive.manifest.methods:
            _check_method(checks, archive, method, path, device, list(allow_ops))
    return Report(checks)


def _check_method(
    checks: list[Check], archive: ArchiveFile, method: Method, path: Any, device: Target, allow_ops: list[str]
) -> None:
    name, operators = method.name, Operators(allow_ops)
    steps: list[tuple[str, Callable[[], Any], Callable[[Any], str]]] = [
        (
            "documents",
            lambda: [archive.section(name, row.name, _SECTIONS[row.name]) for row in method.sections],
            lambda sections: f"{len(sections)} sections",
        ),
        (
            "operators",
            lambda: [operators.resolve(use.name, (name, "operators")) for use in method.operators],
            lambda found: f"{len(found)} operators, all known here",
        ),
        (
            "rebuild",
            lambda: load(path, method=name, device=device, allow_ops=allow_ops, debug=True),
            lambda program: f"{sum(1 for _ in program.graph.nodes)} nodes",
        ),
        ("torch's verifier", lambda: _validate(path, name, device, allow_ops), str),
    ]
    if method.example is not None and method.expected is not None:
        steps.append(("recorded example", lambda: _run_example(archive, method, path, device, allow_ops), str))
    for title, act, describe in steps:
        if _check(checks, f"{name}: {title}", act, describe) is None:
            return


def _check(checks: list[Check], name: str, act: Callable[[], Any], describe: Callable[[Any], str]) -> Any:
    start = perf_counter()
    try:
        result = act()
    except ArchiveError as error:
        checks.append(Check(name, False, str(error), perf_counter() - start))
        return None
    checks.append(Check(name, True, describe(result), perf_counter() - start))
    return result


def _describe_archive(archive: ArchiveFile) -> str:
    manifest = archive.manifest
    version = ".".join(map(str, manifest.format))
    return f"format {version}, {len(manifest.methods)} methods, {len(manifest.tensors)} tensors"


def _validate(path: Any, name: str, device: Target, allow_ops: list[str]) -> str:
    program = load(path, method=name, device=device, allow_ops=allow_ops)
    program.validate()  # type: ignore[no-untyped-call]
    return f"accepted by {', '.join(verifier.__name__ for verifier in program.verifiers)}"


def _run_example(archive: ArchiveFile, method: Method, path: Any, device: Target, allow_ops: list[str]) -> str:
    module = load_module(path, method=method.name, device=device, allow_ops=allow_ops)
    assert module.example_inputs is not None
    args, kwargs = module.example_inputs
    with torch.no_grad():
        found = pytree.tree_leaves(module(*args, **kwargs))
    devices = Devices(device)
    literals = LiteralBuilder(devices, Operators(allow_ops))
    expected = build_values(method.expected or [], TensorBuilder(archive, devices), literals)
    try:
        torch.testing.assert_close(found, expected, equal_nan=True)
    except AssertionError as error:
        message = "the outputs of the example differ from those recorded"
        raise ArchiveError(f"{message}: {error}", loc=(method.name, "example")) from error
    exact = all(_same(one, other) for one, other in zip(found, expected, strict=True))
    return "outputs equal bit for bit" if exact else "outputs equal within the tolerance of their type"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one.nan_to_num(), other.nan_to_num()) if one.is_floating_point() else torch.equal(one, other)
    return bool(one == other)
