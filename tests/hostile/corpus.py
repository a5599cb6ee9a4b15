"""All cases, by layer and name."""

from __future__ import annotations

from tests.hostile import (
    constraints,
    encoding,
    environment,
    frames,
    functions,
    graph,
    header,
    objects,
    sections,
    signature,
    tensors,
    trees,
)
from tests.hostile.cases import Case

LAYERS = {
    "header": header.CASES,
    "sections": sections.CASES,
    "zstd": frames.CASES,
    "msgpack": encoding.CASES,
    "tensors": tensors.CASES,
    "graph": graph.CASES,
    "constraints": constraints.CASES,
    "signature": signature.CASES,
    "trees": trees.CASES,
    "objects": objects.CASES,
    "functions": functions.CASES,
    "environment": environment.CASES,
}

CORPUS: dict[str, Case] = {f"{layer}: {case.name}": case for layer, cases in LAYERS.items() for case in cases}
"""Every case by its full name."""

assert len(CORPUS) == sum(map(len, LAYERS.values())), "two cases have one name"
