"""Bar 5: bytes of the graph, against torch's JSON of it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

import archive
from benchmarks.files import file_of
from benchmarks.measuring import Figure, Samples, at_least

SMALLER: Final = at_least(50)
MODEL: Final = "models/model.json"


def measure(_name: str, folder: Path, _rounds: int) -> list[Figure]:
    sections = archive.inspect(file_of("ours", folder)).methods[0].sections
    theirs = _model_bytes(file_of("export", folder))
    graph = sum(section.nbytes for section in sections if section.name == "graph")
    everything = sum(section.nbytes for section in sections)
    return [
        Figure("graph", "x", [theirs / graph], SMALLER, _bytes(graph, theirs), "B"),
        Figure("graph and all other sections", "x", [theirs / everything], SMALLER, _bytes(everything, theirs), "B"),
    ]


def _model_bytes(file: Path) -> int:
    """Size of the graph in a file of torch.export.save, which is not compressed."""
    with zipfile.ZipFile(file) as stored:
        return next(entry.file_size for entry in stored.infolist() if entry.filename.endswith(MODEL))


def _bytes(ours: int, theirs: int) -> Samples:
    return {"ours": [ours], "model.json": [theirs]}
