"""Verify an archive: everything that can be said of it without trusting it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import torch

from archive.agreement import check_agreement
from archive.composites import absent_tensors
from archive.integrity import Part, compare_digests, refuse_changed
from archive.reading import ArchiveFile, open_archive
from archive.text import count_text
from loader.devices import Target
from loader.given import Weights
from loader.module import build_module
from loader.opening import OpenMethod, open_method
from loader.operators import Operators
from loader.rebuild.program import rebuild_program
from loader.rebuild.stored import build_values
from loader.torch_internals import pytree, state_of
from schema.calls import Calls
from schema.constraints import Constraints
from schema.debug import Debug
from schema.errors import ArchiveError, FormatError
from schema.graph import ProgramGraph
from schema.limits import DEFAULT_LIMITS, Limits
from schema.manifest import EXAMPLE_SEED, Method
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
        ok: Whether it holds; None if it could not be checked.
        detail: What was found; of a check that failed, the error; of one that could not be made, why.
        seconds: How long it took.
    """

    name: str
    ok: bool | None
    detail: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """What was checked of an archive, in order. A check that fails ends those that build on it.

    Attributes:
        checks: What was checked.
        parts: Every stored tensor and section, and whether its bytes are those that were written.
    """

    checks: list[Check]
    parts: list[Part] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no check failed; what could not be checked is told by the checks."""
        return all(check.ok is not False for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        parts = [part._asdict() for part in self.parts]
        return {"ok": self.ok, "checks": [vars(check) for check in self.checks], "parts": parts}


def verify(
    path: str | os.PathLike[str],
    *,
    device: Target = None,
    weights: Weights | None = None,
    allow_ops: Iterable[str] = (),
    allow_classes: Iterable[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Report:
    """Check the digests, structure and operators of an archive, rebuild its programs, and run recorded examples.

    That an archive is verified says that it is what was written and that torch accepts it. It does not say that the
    model in it is harmless.

    Args:
        path: The archive.
        device: Where to run the examples.
        weights: Weights to run them with, as for :func:`loader.load`.
        allow_ops: As for :func:`loader.load`.
        allow_classes: As for :func:`loader.load`.
        limits: How much to spend on the file before it is refused.
    """
    checks: list[Check] = []
    archive = _check(checks, "header and manifest", lambda: open_archive(path, limits), _describe_archive)
    if archive is None:
        return Report(checks)
    with archive:
        parts: list[Part] = []
        _check(checks, "digests", lambda: _compare_digests(archive, parts), lambda _: _describe_parts(parts))
        ops, classes = list(allow_ops), list(allow_classes)
        opening = partial(open_method, path, device=device, allow_ops=ops, allow_classes=classes, limits=limits)
        for method in archive.manifest.methods:
            hollow = weights is None and _lacks_weights(archive, method)
            opened = partial(opening, method=method.name, weights=weights, hollow=hollow)
            operators, given = Operators(ops, method.operators), weights is not None
            _check_method(checks, archive, method, opened, operators, hollow=hollow, given=given)
    return Report(checks, parts)


def _check_method(
    checks: list[Check],
    archive: ArchiveFile,
    method: Method,
    opening: Callable[[], AbstractContextManager[OpenMethod]],
    operators: Operators,
    *,
    hollow: bool,
    given: bool,
) -> None:
    name = method.name
    steps: list[tuple[str, Callable[[], Any], Callable[[Any], str]]] = [
        (
            "documents",
            lambda: _read_documents(archive, method),
            lambda sections: f"{count_text(len(sections), 'section')}, and the manifest agrees with them",
        ),
        (
            "operators",
            lambda: [operators.resolve(use.name, (name, "operators"), called=True) for use in method.operators],
            lambda found: f"{count_text(len(found), 'operator')}, all known here",
        ),
    ]
    if given:
        steps.append(("weights", lambda: _fit(opening()), str))
    steps.append(("rebuild, torch's verifier", lambda: _rebuild(opening()), str))
    recorded = method.example is not None and method.expected is not None
    if recorded and not hollow:
        steps.append(("recorded example", lambda: _run_example(opening()), str))
    for title, act, describe in steps:
        if _check(checks, f"{name}: {title}", act, describe) is None:
            return
    if hollow:
        unrun = ", nor the recorded example run" if recorded else ""
        detail = f"not in the archive: they are not checked{unrun}; pass weights= (--weights FILE) to do so"
        checks.append(Check(f"{name}: weights", None, detail, 0.0))


def _lacks_weights(archive: ArchiveFile, method: Method) -> bool:
    absent = absent_tensors(archive.manifest)
    return any(absent[item.tensor] for item in method.state)


def _read_documents(archive: ArchiveFile, method: Method) -> dict[str, Any]:
    sections = {row.name: archive.section(method.name, row.name, _SECTIONS[row.name]) for row in method.sections}
    check_agreement(method, sections["graph"], sections["signature"])
    return sections


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
    methods, tensors = count_text(len(manifest.methods), "method"), count_text(len(manifest.tensors), "tensor")
    return f"format {version}, {methods}, {tensors}"


def _compare_digests(archive: ArchiveFile, parts: list[Part]) -> None:
    """Fill in the parts of an archive, and refuse them if one is not what was written."""
    parts.extend(compare_digests(archive))
    refuse_changed(parts)


def _describe_parts(parts: Iterable[Part]) -> str:
    return f"{sum(part.nbytes for part in parts if part.ok):,} bytes"


def _fit(opening: AbstractContextManager[OpenMethod]) -> str:
    with opening as opened:  # weights that do not fit are refused on opening
        return f"{count_text(len(opened.method.state), 'tensor')}, given apart from the archive"


def _rebuild(opening: AbstractContextManager[OpenMethod]) -> str:
    with opening as opened:
        debug = any(section.name == "debug" for section in opened.method.sections)
        program = rebuild_program(opened, debug=debug)  # the constructor runs the verifier
        build_module(opened)
    verifiers = ", ".join(verifier.__name__ for verifier in program.verifiers)
    return f"{count_text(len(program.graph.nodes), 'node')}, accepted by {verifiers}"


def _run_example(opening: AbstractContextManager[OpenMethod]) -> str:
    with opening as opened:
        module = build_module(opened)
        expected = build_values(opened, opened.method.expected or [])
        if module.example_inputs is None:
            raise FormatError("outputs are recorded, but no inputs", loc=(opened.method.name, "example"))
        args, kwargs = module.example_inputs
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(EXAMPLE_SEED)
            try:
                found = pytree.tree_leaves(module(*args, **kwargs))
            except Exception as error:  # whatever torch raises: the archive's operators do not fit each other
                message = f"the example cannot be run: {type(error).__name__} {error}"
                raise ArchiveError(message, loc=(opened.method.name, "example")) from error
        if problem := _difference(found, expected):
            message = f"the outputs of the example differ from those recorded: {problem}"
            raise ArchiveError(message, loc=(opened.method.name, "example"))
    exact = _difference(found, expected, rtol=0, atol=0) is None
    return "outputs equal bit for bit" if exact else "outputs equal within the tolerance of their type"


def _difference(found: list[Any], expected: list[Any], **tolerances: float) -> str | None:
    """What differs between flat values, None if nothing does; script objects are compared by their states."""
    found, expected = (pytree.tree_leaves([state_of(value) for value in values]) for values in (found, expected))
    if len(found) != len(expected):
        return f"{len(found)} values instead of {len(expected)}"
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
            same = type(one) is type(other) and (one == other or one != one)
            if not same:
                return f"value {place} is {one!r:.80} instead of {other!r:.80}"
            continue
        try:
            torch.testing.assert_close(one, other, equal_nan=True, **tolerances)  # type: ignore[arg-type]
        except AssertionError as error:
            return f"value {place}: {error}"
        except Exception as error:  # whatever a class of tensors raises
            return f"value {place} cannot be compared: {type(error).__name__} {error}"
    return None
