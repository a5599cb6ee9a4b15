"""What the manifest says of the file: sections, digests, versions and names."""

from __future__ import annotations

import json
from typing import Any

from schema.names import MANIFEST, MANIFEST_DIGEST, section_name
from tests.hostile.cases import MANIFEST_ONLY, Case, changed, manifest, parts
from tests.hostile.parts import Parts

_GRAPH, _CALLS = section_name("forward", "graph"), section_name("forward", "calls")
_PLACE = r"\(at manifest.methods.forward"


def _section(**fields: Any) -> Any:
    return parts(lambda taken: taken.section("graph").update(fields))


def _method(**fields: Any) -> Any:
    return parts(lambda taken: taken.method.update(fields))


def _swap(taken: Parts) -> None:
    """Each of two sections in the other's place, with the sizes that are there."""
    one, other = taken.blobs[_GRAPH].owner, taken.blobs[_CALLS].owner
    taken.store(_GRAPH, other)
    taken.store(_CALLS, one)
    taken.section("graph")["nbytes"], taken.section("calls")["nbytes"] = len(other), len(one)


def _swap_rightly(taken: Parts) -> None:
    """Each of two sections in the other's place, and described so."""
    graph, calls = taken.section("graph"), taken.section("calls")
    one, other = (
        (taken.blobs[_GRAPH].owner, graph["decoded_nbytes"]),
        (taken.blobs[_CALLS].owner, calls["decoded_nbytes"]),
    )
    taken.put_frame("graph", *other)
    taken.put_frame("calls", *one)


def _flip(name: str) -> Any:
    """Change one bit of a stored tensor."""

    def change(data: bytes) -> bytes:
        stop = 8 + int.from_bytes(data[:8], "little")
        place = stop + json.loads(data[8:stop])[name]["data_offsets"][0]
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return changed(change)


def _drop(name: str) -> Any:
    return parts(lambda taken: taken.method["sections"].remove(taken.section(name)))


def _alone(taken: Parts) -> None:
    del taken.blobs[_GRAPH]


def _method_twice(taken: dict[str, Any]) -> None:
    taken["methods"].append(taken["methods"][0])


CASES = [
    Case("a changed bit in the manifest", _flip(MANIFEST), r"differ from those that were written \(at manifest\)"),
    Case("a changed bit in the manifest's digest", _flip(MANIFEST_DIGEST), r"differ from those .* \(at manifest\)"),
    *(
        Case(
            f"a changed bit in {name}",
            _flip(section_name("forward", name)),
            rf"differ from those that were written \(at forward.{name}\)|have changed",
            MANIFEST_ONLY,
        )
        for name in ("graph", "signature", "constraints", "calls")
    ),
    Case(
        "a changed bit in stack traces",
        _flip(section_name("forward", "debug")),
        r"\(at (forward\.|__program__/forward/)debug\)",
        frozenset({"inspect", "load_module"}),
    ),
    Case(
        "a changed bit in a weight",
        _flip("linear.weight"),
        r"have changed \(at linear.weight\)",
        frozenset({"inspect", "load", "load_module"}),
    ),
    Case("a section that is not there", parts(_alone), rf"described, but not in the file {_PLACE}.graph\)"),
    Case("a section that is not described", _drop("graph"), rf"section 'graph' is missing {_PLACE}\)"),
    Case("a section of stack traces that is not described", _drop("debug"), r"not in the manifest \(at header"),
    Case(
        "a section that is described twice",
        parts(lambda taken: taken.method["sections"].append(taken.section("graph"))),
        "is there twice",
    ),
    Case("a section of an unknown name", _section(name="pickle"), rf"unknown section 'pickle' {_PLACE}\)"),
    Case("a section under another path", _section(name="../graph"), rf"unknown section '\.\./graph' {_PLACE}\)"),
    Case(
        "two sections in each other's place",
        parts(_swap),
        r"differ from .*\(at forward.\w+\)|have changed",
        MANIFEST_ONLY,
    ),
    Case(
        "two sections in each other's place, with digests", parts(_swap_rightly), r"\(at forward.\w+\)", MANIFEST_ONLY
    ),
    Case("a section's size that is wrong", _section(nbytes=7), rf"7 bytes described, \d+ in the file {_PLACE}.graph\)"),
    Case("a section's size below zero", _section(nbytes=-7), rf"-7 bytes described {_PLACE}|-7 bytes described"),
    Case("a digest of five bytes", _section(sha256=b"short"), rf"a digest of 5 bytes {_PLACE}.graph\)"),
    Case(
        "a digest that is a text",
        _section(sha256="ab" * 16),
        r"`bytes`.*\(at manifest\)|canonical form.*\(at manifest\)",
    ),
    Case("no methods", manifest(lambda taken: taken.update(methods=[])), r"no methods \(at manifest.methods\)"),
    Case("a method that is there twice", manifest(_method_twice), "'forward' is there twice"),
    Case("a method whose name is code", _method(name="x; y"), "'x; y' is not an identifier"),
    Case("a method whose name is a path", _method(name="../../etc"), "is not an identifier"),
    Case("a method of another name than its sections", _method(name="decode"), "not in the file"),
    Case("a newer major version", manifest(lambda taken: taken.update(format=(99, 0))), "version 99.0.*upgrade"),
    Case("a version below zero", manifest(lambda taken: taken.update(format=(-1, 0))), "version -1.0"),
    Case("a version of three numbers", manifest(lambda taken: taken.update(format=(1, 2, 3))), r"\(at manifest\)"),
    Case("a feature that is not known", manifest(lambda taken: taken.update(features=["pickle"])), "needs pickle"),
    Case(
        "a module to import that is code",
        manifest(lambda taken: taken["methods"][0]["operators"][0].update(provider="os; x")),
        "is no module",
    ),
]
