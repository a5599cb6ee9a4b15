"""The process in which atheris, which is libFuzzer, changes inputs of the reader: FINDINGS-FOLDER ARGUMENT…"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["archive", "schema"], enable_loader_override=False):
    from tests.fuzz import reader
    from tests.fuzz.judging import Finding

FINDINGS = Path(sys.argv[1])


def check(data: bytes) -> None:
    """Check an input, and keep one of each kind that has a finding."""
    try:
        reader.check(data)
    except Finding as finding:
        kind = str(finding).rpartition(" at ")[2]
        path = FINDINGS / f"{zlib.crc32(kind.encode()):08x}"
        if not path.exists():
            path.write_bytes(data)
            path.with_suffix(".txt").write_text(str(finding))


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Half of the changes are to the values of a document, half to bytes."""
    changed = reader.mutate(data, seed) if seed % 2 else data
    return changed if changed != data and len(changed) <= most else atheris.Mutate(data, most)


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], check, custom_mutator=mutate)
    atheris.Fuzz()
