"""Opens an archive: everything about it is checked here but the digests of the weights.

The file is opened once, and every byte that is checked or used is read through that one descriptor.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from archive.documents import check_document
from archive.header import Entry, read_header
from archive.structure import check_structure
from schema.codec import decode, decompress
from schema.errors import AccessError, FormatError, IntegrityError, UsageError
from schema.manifest import Manifest
from schema.names import MANIFEST, MANIFEST_DIGEST, section_name
from schema.version import FORMAT_VERSION, judge_version

if TYPE_CHECKING:
    from types import TracebackType

    from schema.manifest import Method, Section

__all__ = ["MAX_MANIFEST_BYTES", "ArchiveFile", "Entry", "open_archive"]

MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024
"""The largest manifest that is decoded; 100,000 tensors need about a fifth of it."""

_CHUNK_BYTES: Final = 4 * 1024 * 1024
_OPEN_FLAGS: Final = (
    os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)

Document = TypeVar("Document", bound=msgspec.Struct)

# Without reserving swap for it: a writable mapping larger than the machine's memory would otherwise be refused.
_NORESERVE: Final = getattr(mmap, "MAP_NORESERVE", 0x4000)
_PRIVATE: Final[dict[str, int]] = (
    {"flags": mmap.MAP_PRIVATE | _NORESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
    if sys.platform == "linux"
    else {"access": mmap.ACCESS_COPY}
)


class _Preamble(msgspec.Struct):
    """What every version of the manifest begins with."""

    format: tuple[int, int]
    features: list[str] = []  # msgspec copies defaults


def open_archive(path: str | os.PathLike[str]) -> ArchiveFile:
    """Open an archive and check its header, manifest and structure.

    Args:
        path: The file.

    Raises:
        AccessError: The file is missing, not a regular file, or must not be read.
        FormatError: It is not an archive, or a malformed one.
        VersionError: It needs a reader that knows a later format.
        IntegrityError: Its manifest differs from what was written.
    """
    return ArchiveFile(Path(path))


class ArchiveFile:
    """An open archive. Reads are thread-safe; use as a context manager, or call :meth:`close`.

    Attributes:
        path: The file.
        size: Its size in bytes.
        entries: Every stored tensor by name, in the order of their bytes.
        manifest: What is in the file.
    """

    path: Path
    size: int
    entries: dict[str, Entry]
    manifest: Manifest

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._mapping: mmap.mmap | None = None
        self._descriptor, self.size = _open_regular(path)
        try:
            self.entries = read_header(self._read, self.size)
            self.manifest = self._read_manifest()
            check_structure(self.manifest, self.entries)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ArchiveFile({str(self.path)!r})"

    @property
    def mapping(self) -> mmap.mmap:
        """The whole file in memory, made on first use: private and writable, and the file is never written to.

        It outlives :meth:`close` for as long as something (a tensor) holds it.

        Raises:
            AccessError: The file cannot be mapped.
        """
        with self._lock:
            if self._mapping is None:
                self._mapping = _map(self._descriptor, self.size, self.path)
            return self._mapping

    def raw(self, name: str) -> bytes:
        """The bytes of one stored tensor, copied from the file.

        Raises:
            UsageError: There is no such tensor.
            AccessError: The file cannot be read.
        """
        entry = self._entry(name)
        return self._read(entry.start, entry.stop)

    def digest(self, name: str) -> bytes:
        """The sha256 of one stored tensor, as it now is in the file.

        Raises:
            UsageError: There is no such tensor.
            AccessError: The file cannot be read.
        """
        entry, sha256 = self._entry(name), hashlib.sha256()
        for start in range(entry.start, entry.stop, _CHUNK_BYTES):
            sha256.update(self._read(start, min(start + _CHUNK_BYTES, entry.stop)))
        return sha256.digest()

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
        content = decompress(frame, section.decoded_nbytes, loc)
        document = decode(content, kind, loc, canonical=self._canonical)
        check_document(document, (name,))
        return document

    def close(self) -> None:
        """Close the file; doing so twice does nothing."""
        with self._lock:
            descriptor, self._descriptor, self._mapping = self._descriptor, -1, None
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def _canonical(self) -> bool:
        """Whether the documents are held to canonical form."""
        return _is_canonical(self.manifest.format)

    def _entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            raise UsageError(f"the archive stores no tensor {name!r}") from None

    def _find_section(self, method: str, name: str) -> Section:
        sections = self.method(method).sections
        for section in sections:
            if section.name == name:
                return section
        available = ", ".join(section.name for section in sections)
        raise UsageError(f"method {method!r} has no section {name!r}", remedy=f"it has: {available}")

    def _read(self, start: int, stop: int) -> bytes:
        parts = []
        try:
            while start < stop and (part := os.pread(self._descriptor, min(stop - start, 2**30), start)):
                parts.append(part)
                start += len(part)
        except OSError as error:
            raise _access_error(error, self.path) from error
        if start < stop:
            raise AccessError(f"{self.path} has become shorter while it was read", remedy="close what writes to it")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_manifest(self) -> Manifest:
        loc = ("manifest",)
        for name in (MANIFEST, MANIFEST_DIGEST):
            if name not in self.entries or self.entries[name].code != "U8":
                raise FormatError(f"{name} is missing or not of bytes", loc=loc)
        if self.entries[MANIFEST].nbytes > MAX_MANIFEST_BYTES:
            raise FormatError(f"the manifest has more than {MAX_MANIFEST_BYTES} bytes", loc=loc)
        data = self.raw(MANIFEST)
        if hashlib.sha256(data).digest() != self.raw(MANIFEST_DIGEST):
            raise IntegrityError("the bytes differ from those that were written", loc=loc, remedy=_COPY_AGAIN)
        preamble = decode(data, _Preamble, loc, canonical=False)
        judge_version(preamble.format, preamble.features)
        return decode(data, Manifest, loc, canonical=_is_canonical(preamble.format))


def _is_canonical(version: tuple[int, int]) -> bool:
    """Whether our encoding of a document of some version must give its bytes back; other minors have other fields."""
    return version == FORMAT_VERSION


_COPY_AGAIN: Final = "copy or download the file again"
_REMEDIES: Final = {
    FileNotFoundError: "check the path",
    NotADirectoryError: "check the path",
    PermissionError: "ask for permission to read it",
}


def _access_error(error: OSError, path: Path) -> AccessError:
    reason = error.strerror or type(error).__name__
    return AccessError(f"cannot read {path}: {reason}", remedy=_REMEDIES.get(type(error), ""))


def _open_regular(path: Path) -> tuple[int, int]:
    """Descriptor and size in bytes of a regular file; nothing else is read, so nothing can block."""
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        raise _access_error(error, path) from error
    except ValueError as error:
        raise AccessError(f"{str(path)!r} is not a path: {error}", remedy="check the path") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
    raise AccessError(f"cannot read {path}: it is {what}", remedy="name the archive file itself")


def _map(descriptor: int, size: int, path: Path) -> mmap.mmap:
    if descriptor < 0:
        raise UsageError(f"{path} is closed", remedy="open it again")
    try:
        return mmap.mmap(descriptor, size, **_PRIVATE)
    except OSError as error:
        raise _access_error(error, path) from error
