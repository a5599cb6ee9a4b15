"""Archives with documents that no writer of ours would write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from archive.reading import open_archive
from archive.writing import bytes_blob, write_archive
from schema.calls import Calls
from schema.codec import compress
from schema.constraints import Constraints
from schema.graph import ProgramGraph
from schema.names import MANIFEST, MANIFEST_DIGEST, section_name
from schema.signature import Signature

KINDS = {"graph": ProgramGraph, "signature": Signature, "constraints": Constraints, "calls": Calls}


def rewrite(source: Path, target: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """Write an archive anew, well formed and with right digests, after a change to its documents as plain values."""
    with open_archive(source) as archive:
        documents = {name: msgspec.to_builtins(archive.section("forward", name, kind)) for name, kind in KINDS.items()}
        manifest = msgspec.to_builtins(archive.manifest, builtin_types=(bytes,))
        change(documents, manifest)
        raw = {name: archive.raw(name) for name in archive.entries if name not in (MANIFEST, MANIFEST_DIGEST)}
        entries = archive.entries
        for name, document in documents.items():
            content = msgspec.msgpack.encode(document)
            frame = compress(content)
            raw[section_name("forward", name)] = frame
            for section in manifest["methods"][0]["sections"]:
                if section["name"] == name:
                    digest = hashlib.sha256(frame).digest()
                    section.update(nbytes=len(frame), decoded_nbytes=len(content), sha256=digest)
        blobs = [bytes_blob(name, data)._replace(**_shape(entries, name, data)) for name, data in raw.items()]
    write_archive(target, blobs, lambda _: msgspec.msgpack.encode(manifest))
    return target


class NodeRow:
    """One node of a graph's columns, as plain values: what is set here is set there."""

    def __init__(self, graph: dict[str, Any], name: str) -> None:
        self._graph = graph
        self.place = graph["names"].index(name)
        self._first = sum(graph["arities"][: self.place])

    def __setitem__(self, column: str, entry: Any) -> None:
        self._graph[column][self.place] = entry

    def __getitem__(self, column: str) -> Any:
        return self._graph[column][self.place]

    @property
    def operands(self) -> list[int]:
        """Its arguments."""
        return list(self._graph["operands"][self._first : self._first + self["arities"]])

    def set_operand(self, index: int, operand: int) -> None:
        """Change one of its arguments."""
        assert index < self["arities"]
        self._graph["operands"][self._first + index] = operand


def caller(documents: dict[str, Any], target: str) -> NodeRow:
    """The first node of the program's graph that calls something."""
    graph, place = documents["graph"]["graphs"][0], documents["graph"]["targets"].index(target)
    return NodeRow(graph, graph["names"][graph["targets"].index(place)])


def _shape(entries: Any, name: str, data: bytes) -> dict[str, Any]:
    if name.startswith("__program__/") and "example" not in name:
        return {"code": "U8", "shape": (len(data),)}
    return {"code": entries[name].code, "shape": entries[name].shape}
