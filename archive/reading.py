"""Opens an archive: everything about it is checked here but the digests of the weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from archive.documents import check_document
from archive.header import Entry, read_header
from archive.structure import check_structure
from archive.tensor_file import TensorFile
from schema.calls import Calls
from schema.codec import check_canonical, decode, decompress, learn
from schema.constraints import Constraints
from schema.debug import Debug
from schema.errors import FormatError, IntegrityError, Loc, UsageError
from schema.graph import ProgramGraph
from schema.limits import DEFAULT_LIMITS, RAISE_LIMIT, Limits
from schema.manifest import Manifest
from schema.names import MANIFEST, MANIFEST_DIGEST, section_name
from schema.signature import Signature
from schema.version import FORMAT_VERSION, judge_version

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from schema.manifest import Method, Section

__all__ = ["ArchiveFile", "Entry", "open_archive"]

Document = TypeVar("Document", bound=msgspec.Struct)


class _Preamble(msgspec.Struct):
    """What every version of the manifest begins with."""

    format: tuple[int, int]
    features: list[str] = []  # msgspec copies defaults


learn(_Preamble, Manifest, ProgramGraph, Signature, Constraints, Calls, Debug)


def open_archive(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> ArchiveFile:
    """Open an archive and check its header, manifest and structure.

    Args:
        path: The file.
        limits: How much to spend on it.

    Raises:
        AccessError: The file is missing, not a regular file, or must not be read.
        FormatError: It is not an archive, or a malformed one.
        VersionError: It needs a reader that knows a later format.
        IntegrityError: Its manifest differs from what was written.
    """
    return ArchiveFile(Path(path), limits)


class ArchiveFile(TensorFile):
    """An open archive. Reads are thread-safe; use as a context manager, or call :meth:`close`.

    Attributes:
        manifest: What is in the file.
        stored: Names of tensors that are just what the header has under their names, and the whole of a storage.
    """

    manifest: Manifest
    stored: set[str]

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        super().__init__(path)

    def _read_entries(self) -> dict[str, Entry]:
        entries = read_header(self._read, self.size, most=self._limits.header_bytes)
        self.manifest = self._read_manifest(entries)
        self.stored = check_structure(self.manifest, entries)
        return entries

    def method(self, name: str) -> Method:
        """What the manifest says of one method.

        Raises:
            UsageError: There is no such method.
        """
        for method in self.manifest.methods:
            if method.name == name:
                return method
        available = ", ".join(method.name for method in self.manifest.methods)
        raise UsageError(f"the archive has no method {name!r}", remedy=f"it has: {available}")

    def section(self, method: str, name: str, kind: type[Document]) -> Document:
        """One section of a method: its digest checked, then decompressed and decoded.

        Args:
            method: Name of the method.
            name: Name of the section.
            kind: Type of its document.

        Raises:
            UsageError: There is no such method or section.
            IntegrityError: The section differs from what was written.
            FormatError: It is malformed.
        """
        section, loc = self._find_section(method, name), (method, name)
        frame = self.raw(section_name(method, name))
        if hashlib.sha256(frame).digest() != section.sha256:
            raise IntegrityError("the bytes differ from those that were written", loc=loc, remedy=_COPY_AGAIN)
        content = decompress(frame, section.decoded_nbytes, loc, self._limits)
        document = decode(content, kind, loc, canonical=self._canonical, limits=self._limits)
        check_document(document, (name,))
        return document

    @property
    def _canonical(self) -> bool:
        """Whether the documents are held to canonical form."""
        return _is_canonical(self.manifest.format)

    def _find_section(self, method: str, name: str) -> Section:
        sections = self.method(method).sections
        for section in sections:
            if section.name == name:
                return section
        available = ", ".join(section.name for section in sections)
        raise UsageError(f"method {method!r} has no section {name!r}", remedy=f"it has: {available}")

    def _read_manifest(self, entries: Mapping[str, Entry]) -> Manifest:
        loc = ("manifest",)
        for name in (MANIFEST, MANIFEST_DIGEST):
            if name not in entries or entries[name].code != "U8":
                raise FormatError(f"{name} is missing or not of bytes", loc=loc)
        if entries[MANIFEST].nbytes > self._limits.manifest_bytes:
            message = f"{entries[MANIFEST].nbytes} bytes, more than {self._limits.manifest_bytes}"
            raise FormatError(message, loc=loc, remedy=RAISE_LIMIT.format("manifest_bytes"))
        data, digest = (self._read(entries[name].start, entries[name].stop) for name in (MANIFEST, MANIFEST_DIGEST))
        if hashlib.sha256(data).digest() != digest:
            raise IntegrityError("the bytes differ from those that were written", loc=loc, remedy=_COPY_AGAIN)
        return _decode_manifest(data, loc, self._limits)


def _decode_manifest(data: bytes, loc: Loc, limits: Limits) -> Manifest:
    """The manifest in some bytes, of a version that this reader knows."""
    try:
        manifest = decode(data, Manifest, loc, canonical=False, limits=limits)
    except FormatError:
        # That of another version may have any shape: it is to be refused by its version.
        preamble = decode(data, _Preamble, loc, canonical=False, limits=limits)
        judge_version(preamble.format, preamble.features)
        raise
    judge_version(manifest.format, manifest.features)
    if _is_canonical(manifest.format):
        check_canonical(manifest, data, loc)
    return manifest


def _is_canonical(version: tuple[int, int]) -> bool:
    """Whether our encoding of a document of some version must give its bytes back; other minors have other fields."""
    return version == FORMAT_VERSION


_COPY_AGAIN: Final = "copy or download the file again"
