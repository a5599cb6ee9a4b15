"""The reader under a coverage-guided fuzzer: header, manifest and sections, without torch.

An input is a byte that says what the rest is (the whole file, the manifest, a section, a section's frame), a byte that
says which archive it is put into, and the rest. Digests and sizes are made right: what they hide is reached.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from archive.agreement import check_agreement
from archive.graph_text import graph_lines
from archive.reading import open_archive
from archive.render import operator_lines, summary_lines, tensor_lines
from archive.summary import summarize
from schema.calls import Calls
from schema.constraints import Constraints
from schema.debug import Debug
from schema.graph import ProgramGraph
from schema.signature import Signature
from tests.fuzz.archives import METHOD, NAMES, Parts, in_memory, put_together, take_apart, with_sections, written
from tests.fuzz.edits import Edit, edit, encode
from tests.fuzz.judging import judge

CORPUS = Path(__file__).parent / "corpus"
SECTIONS: dict[str, Any] = {
    "graph": ProgramGraph,
    "signature": Signature,
    "constraints": Constraints,
    "calls": Calls,
    "debug": Debug,
}
PARTS = ("file", "manifest", "frame", *SECTIONS)


@cache
def bases() -> list[Parts]:
    """The archives that inputs are put into."""
    found = []
    for name in NAMES:
        with in_memory(written(name)) as path:
            found.append(take_apart(path))
    return found


def build(data: bytes) -> bytes:
    """The file that an input stands for."""
    if len(data) < 2:
        return data
    part, rest = PARTS[data[0] % len(PARTS)], data[2:]
    if part == "file":
        return rest
    base = bases()[data[1] % len(bases())]
    if part == "manifest":
        return put_together(base, rest)
    if part == "frame":
        return put_together(with_sections(base, {}, {"graph": rest}))
    return put_together(with_sections(base, {part: rest}))


def seeds() -> Iterator[bytes]:
    """Inputs that stand for the archives as they are."""
    for number, base in enumerate(bases()):
        rests = {"file": put_together(base), "manifest": msgspec.msgpack.encode(base.manifest), **base.sections}
        rests["frame"] = base.stored[f"__program__/{METHOD}/graph"][2]
        yield from (bytes([PARTS.index(part), number]) + rest for part, rest in rests.items())


def read(path: Path) -> None:
    """Everything that is done with an archive without torch."""
    with open_archive(path) as archive:
        summary = summarize(archive, 2)
        for _ in (*summary_lines(summary), *tensor_lines(summary)):
            pass
        for method in archive.manifest.methods:
            read = {row.name: archive.section(method.name, row.name, SECTIONS[row.name]) for row in method.sections}
            for _ in graph_lines(archive, method.name):
                pass
            check_agreement(method, read["graph"], read["signature"])
        for _ in (line for each in summary.methods for line in operator_lines(each)):
            pass
        for name in archive.entries:
            archive.digest(name)


def check(data: bytes) -> None:
    """Read what an input stands for.

    Raises:
        Finding: The reader does what it must not.
    """
    with in_memory(build(data)) as path:
        judge(lambda: read(path), "read")


def mutate(data: bytes, seed: int) -> bytes:
    """Another input: its document, as plain values, with one to four changes; the same if it is no document."""
    chance = random.Random(seed)
    try:
        document = [msgspec.msgpack.decode(data[2:])]
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return data
    for _ in range(chance.randint(1, 4)):
        edit(document, Edit(0, *(chance.randrange(2**32) for _ in range(3))))
    return data[:2] + encode(document[0], data[2:]) if document else data
