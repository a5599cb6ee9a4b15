"""Small archives, taken apart into plain values and put together again with right sizes and digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec

from archive.header import encode_header, layout_key
from archive.reading import open_archive
from schema.codec import compress, decompress
from schema.manifest import Manifest
from schema.names import MANIFEST, MANIFEST_DIGEST, section_name

NAMES = ("tied", "nested", "dynamic", "branch", "odd", "counter", "arguments")
METHOD = "forward"
FOLDER = "TESTS_FUZZ_ARCHIVES"
"""The variable that names the folder in which the archives are, if another process has written them."""

Stored = dict[str, tuple[str, tuple[int, ...], bytes]]
"""Dtype code, shape and bytes of stored tensors, by name."""


class Parts(NamedTuple):
    """An archive, taken apart.

    Attributes:
        stored: Everything that is stored, but the manifest.
        sections: What each section decompresses to.
        manifest: The manifest.
    """

    stored: Stored
    sections: dict[str, bytes]
    manifest: Manifest


def take_apart(path: Path) -> Parts:
    """An archive with one method, taken apart."""
    with open_archive(path) as archive:
        stored = {
            name: (entry.code, entry.shape, archive.raw(name))
            for name, entry in archive.entries.items()
            if name not in (MANIFEST, MANIFEST_DIGEST)
        }
        sections = {
            row.name: decompress(stored[section_name(METHOD, row.name)][2], row.decoded_nbytes, ())
            for row in archive.method(METHOD).sections
        }
        return Parts(stored, sections, archive.manifest)


def with_sections(parts: Parts, contents: Mapping[str, bytes], frames: Mapping[str, bytes] | None = None) -> Parts:
    """The same archive with other sections, given as contents or as frames, and with right sizes and digests."""
    made = {**{name: compress(content) for name, content in contents.items()}, **(frames or {})}
    stored = {**parts.stored, **{section_name(METHOD, name): ("U8", (len(made[name]),), made[name]) for name in made}}
    sections = {**parts.sections, **contents}
    method = parts.manifest.methods[0]
    rows = [
        msgspec.structs.replace(
            row,
            nbytes=len(made[row.name]),
            decoded_nbytes=len(sections[row.name]),
            sha256=hashlib.sha256(made[row.name]).digest(),
        )
        if row.name in made
        else row
        for row in method.sections
    ]
    methods = [msgspec.structs.replace(method, sections=rows)]
    return Parts(stored, sections, msgspec.structs.replace(parts.manifest, methods=methods))


def put_together(parts: Parts, manifest: bytes | None = None) -> bytes:
    """The bytes of an archive.

    Args:
        parts: The archive.
        manifest: Bytes of another manifest, whose digest is then right too.
    """
    data = msgspec.msgpack.encode(parts.manifest) if manifest is None else manifest
    everything = {name: ("U8", (len(each),), each) for name, each in _manifest_rows(data)} | parts.stored
    names = sorted(everything, key=lambda name: layout_key(name, everything[name][0], len(everything[name][2])))
    rows = [(name, *everything[name][:2], len(everything[name][2])) for name in names]
    return encode_header(rows) + b"".join(everything[name][2] for name in names)


def _manifest_rows(data: bytes) -> list[tuple[str, bytes]]:
    return [(MANIFEST, data), (MANIFEST_DIGEST, hashlib.sha256(data).digest())]


@contextmanager
def in_memory(data: bytes) -> Iterator[Path]:
    """A path at which there are some bytes, without a disk."""
    descriptor = os.memfd_create("archive")
    try:
        os.write(descriptor, data)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@cache
def written(name: str) -> bytes:
    """An archive of one of the small models, with its example and what it returns for it."""
    if folder := os.environ.get(FOLDER):  # this process must not import torch
        return (Path(folder) / name).read_bytes()
    import exporter
    from tests.models import cases

    case = cases()[name]()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        exporter.export(
            case.module, case.args, case.kwargs, path=path, dynamic_shapes=case.dynamic_shapes, record_outputs=True
        )
        return path.read_bytes()


def plain(content: bytes) -> Any:
    """A document as plain values, whatever its layout."""
    return msgspec.msgpack.decode(content)
