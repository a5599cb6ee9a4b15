"""An archive taken apart, to be put together again with something wrong in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from archive.reading import open_archive
from archive.writing import Blob, bytes_blob, write_archive
from schema.codec import compress, decompress
from schema.limits import Limits
from schema.names import MANIFEST, MANIFEST_DIGEST, section_name

_NO_LIMITS = Limits(header_bytes=2**40, manifest_bytes=2**40, section_bytes=2**40, containers=2**40)


@dataclass
class Parts:
    """What an archive of one method consists of.

    Attributes:
        manifest: The manifest as plain values.
        blobs: The stored tensors but for the manifest, by name.
    """

    manifest: dict[str, Any]
    blobs: dict[str, Blob]

    @property
    def method(self) -> dict[str, Any]:
        """What the manifest says of the method."""
        return self.manifest["methods"][0]

    def section(self, name: str) -> dict[str, Any]:
        """What the manifest says of a section."""
        return next(row for row in self.method["sections"] if row["name"] == name)

    def content(self, name: str) -> bytes:
        """The decompressed bytes of a section."""
        blob = self.blobs[section_name("forward", name)]
        return decompress(blob.owner, self.section(name)["decoded_nbytes"], ())

    def put_frame(self, name: str, frame: bytes, size: int | None = None) -> None:
        """Store other bytes as a section, rightly described; ``size`` is that of their content, if another."""
        self.blobs[section_name("forward", name)] = bytes_blob(section_name("forward", name), frame)
        self.section(name).update(nbytes=len(frame), sha256=hashlib.sha256(frame).digest())
        if size is not None:
            self.section(name)["decoded_nbytes"] = size

    def put_content(self, name: str, content: bytes) -> None:
        """Store other content as a section, well compressed."""
        self.put_frame(name, compress(content), len(content))

    def store(self, name: str, data: bytes, **kind: Any) -> None:
        """Store a tensor."""
        self.blobs[name] = bytes_blob(name, data)._replace(**kind)

    def write(self, path: Path, manifest: bytes | None = None) -> Path:
        """Write the archive, with other bytes as its manifest if any are given."""
        data = msgspec.msgpack.encode(self.manifest) if manifest is None else manifest
        write_archive(path, list(self.blobs.values()), lambda _: data, limits=_NO_LIMITS)
        return path


def take_apart(path: Path) -> Parts:
    """The parts of an archive."""
    with open_archive(path) as archive:
        manifest = msgspec.to_builtins(archive.manifest, builtin_types=(bytes,))
        blobs = {
            name: bytes_blob(name, archive.raw(name))._replace(code=entry.code, shape=entry.shape)
            for name, entry in archive.entries.items()
            if name not in (MANIFEST, MANIFEST_DIGEST)
        }
    return Parts(manifest, blobs)
