"""An open safetensors file: opened once, and every byte that is checked or used is read through one descriptor."""

from __future__ import annotations

import mmap
import os
import stat
import sys
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from archive.header import WEIGHTS, Entry, read_header
from schema.errors import AccessError, FormatError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK_BYTES: Final = 4 * 1024 * 1024

# Without reserving swap for it: a writable mapping larger than the machine's memory would otherwise be refused.
_NORESERVE: Final = getattr(mmap, "MAP_NORESERVE", 0x4000)
_PRIVATE: Final[dict[str, int]] = (
    {"flags": mmap.MAP_PRIVATE | _NORESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
    if sys.platform == "linux"
    else {"access": mmap.ACCESS_COPY}
)


class TensorFile:
    """An open safetensors file. Reads are thread-safe; use as a context manager, or call :meth:`close`.

    Attributes:
        path: The file.
        size: Its size in bytes.
        entries: Every stored tensor by name, in the order of their bytes.
    """

    path: Path
    size: int
    entries: dict[str, Entry]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapping: mmap.mmap | None = None
        self._file, self.size = _open_regular(path)
        try:
            self.entries = self._read_entries()
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
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def mapping(self) -> mmap.mmap:
        """The whole file in memory, made on first use: private and writable, and the file is never written to.

        It outlives :meth:`close` for as long as something (a tensor) holds it.

        Raises:
            AccessError: The file cannot be mapped.
        """
        if self._mapping is None:  # without a lock: threads that come together make one each, and one of them stays
            self._mapping = _map(self._descriptor(), self.size, self.path)
        return self._mapping

    def raw(self, name: str) -> bytes:
        """The bytes of one stored tensor, copied from the file.

        Raises:
            UsageError: There is no such tensor.
            AccessError: The file cannot be read.
        """
        entry = self._entry(name)
        return self._read(entry.start, entry.stop)

    def copy(self, name: str) -> bytearray:
        """The bytes of one stored tensor in memory that can be written to.

        Raises:
            UsageError: There is no such tensor.
            AccessError: The file cannot be read.
        """
        entry = self._entry(name)
        made = bytearray(entry.nbytes)
        left, place, descriptor = memoryview(made), entry.start, self._descriptor()
        try:
            while left.nbytes and (count := os.preadv(descriptor, [left[: 2**30]], place)):
                left, place = left[count:], place + count
        except OSError as error:
            raise _access_error(error, self.path) from error
        if left.nbytes:
            raise _shrunk(self.path)
        return made

    def digest(self, name: str) -> bytes:
        """The BLAKE3 of one stored tensor, as it now is in the file.

        Raises:
            UsageError: There is no such tensor.
            AccessError: The file cannot be read.
        """
        from blake3 import blake3  # which a load that checks no weights does without

        entry, hasher = self._entry(name), blake3()
        for start in range(entry.start, entry.stop, _CHUNK_BYTES):
            hasher.update(self._read(start, min(start + _CHUNK_BYTES, entry.stop)))
        return hasher.digest()

    def close(self) -> None:
        """Close the file; doing so twice does nothing."""
        self._mapping = None
        self._file.close()

    def _read_entries(self) -> dict[str, Entry]:
        return read_header(self._read, self.size, WEIGHTS)

    def _descriptor(self) -> int:
        if self._file.closed:
            raise UsageError(f"{self.path} is closed", remedy="open it again")
        return self._file.fileno()

    def _entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            raise UsageError(f"{self.path} stores no tensor {name!r}") from None

    def _read(self, start: int, stop: int) -> bytes:
        parts = []
        descriptor = self._descriptor()
        try:
            while start < stop and (part := os.pread(descriptor, min(stop - start, 2**30), start)):
                parts.append(part)
                start += len(part)
        except OSError as error:
            raise _access_error(error, self.path) from error
        if start < stop:
            raise _shrunk(self.path)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a regular file.

    Args:
        path: The file.
        most: The most bytes that it may have.

    Raises:
        AccessError: It cannot be read.
        FormatError: It is larger.
    """
    file, size = _open_regular(path)
    with file:
        if size > most:
            raise FormatError(f"{path} has {size} bytes, more than {most}", remedy="check the path")
        try:
            return file.readall()
        except OSError as error:
            raise _access_error(error, path) from error


_REMEDIES: Final = {
    FileNotFoundError: "check the path",
    NotADirectoryError: "check the path",
    PermissionError: "ask for permission to read it",
}


def _shrunk(path: Path) -> AccessError:
    return AccessError(f"{path} has become shorter while it was read", remedy="close what writes to it")


def _access_error(error: OSError, path: Path) -> AccessError:
    reason = error.strerror or type(error).__name__
    return AccessError(f"cannot read {path}: {reason}", remedy=_REMEDIES.get(type(error), ""))


def _open_regular(path: Path) -> tuple[FileIO, int]:
    """A regular file and its size in bytes; nothing else is opened, so nothing can block."""
    try:
        _check_regular(os.stat(path), path)
        # One call, so that the descriptor has an owner from the start: a load that is cancelled right here leaves none.
        file = FileIO(path)
    except OSError as error:
        raise _access_error(error, path) from error
    except ValueError as error:
        raise AccessError(f"{str(path)!r} is not a path: {error}", remedy="check the path") from error
    status = os.fstat(file.fileno())
    _check_regular(status, path)  # it may have been replaced meanwhile
    return file, status.st_size


def _check_regular(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
        raise AccessError(f"cannot read {path}: it is {what}", remedy="name the file itself")


def _map(descriptor: int, size: int, path: Path) -> mmap.mmap:
    try:
        mapping = mmap.mmap(descriptor, size, **_PRIVATE)
    except (OSError, ValueError) as error:  # the latter if the file has become shorter
        raise (_access_error(error, path) if isinstance(error, OSError) else _shrunk(path)) from error
    if os.fstat(descriptor).st_size < size:
        raise _shrunk(path)
    return mapping
