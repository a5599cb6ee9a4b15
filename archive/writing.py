"""Writes an archive: one pass straight from the tensors' memory, and the file appears whole or not at all."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from archive.header import METADATA
from schema.errors import AccessError, UsageError
from schema.names import MANIFEST, MANIFEST_DIGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPEC_DTYPES: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
}
"""What safetensors' ``TensorSpec`` calls the dtypes for which its files have codes."""

_HASH_THREADS: Final = 4
_REMEDIES: Final = {
    FileNotFoundError: "create the folder first",
    NotADirectoryError: "check the path",
    IsADirectoryError: "name a file, not a folder",
    PermissionError: "choose a folder that you may write to",
}


class Blob(NamedTuple):
    """Memory to be stored as one tensor.

    Attributes:
        name: Its name in the file.
        code: safetensors dtype code.
        shape: Size of each dimension, in elements.
        address: Where its bytes start in memory.
        nbytes: Size in bytes.
        owner: What keeps the memory alive.
    """

    name: str
    code: str
    shape: tuple[int, ...]
    address: int
    nbytes: int
    owner: object


def bytes_blob(name: str, data: bytes) -> Blob:
    """Some bytes, to be stored as a tensor of them."""
    # c_char_p points at the bytes' own memory: no copy.
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    return Blob(name, "U8", (len(data),), address, len(data), data)


def digest(blob: Blob) -> bytes:
    """The sha256 of a blob's bytes."""
    if not blob.nbytes:
        return hashlib.sha256().digest()
    return hashlib.sha256((ctypes.c_char * blob.nbytes).from_address(blob.address)).digest()


def digests(blobs: Sequence[Blob]) -> list[bytes]:
    """The sha256 of each blob's bytes; several are computed at once."""
    with ThreadPoolExecutor(min(_HASH_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(digest, blobs))


def write_archive(path: str | os.PathLike[str], blobs: Sequence[Blob], manifest: bytes) -> int:
    """Write an archive; on any failure, what was there before stays.

    Args:
        path: Where to write it. A symbolic link is followed.
        blobs: The tensors and sections.
        manifest: The encoded manifest, which describes them.

    Returns:
        Size of the file in bytes.

    Raises:
        AccessError: The file cannot be written.
        UsageError: Two blobs have one name.
    """
    sha256 = hashlib.sha256(manifest).digest()
    everything = [*blobs, bytes_blob(MANIFEST, manifest), bytes_blob(MANIFEST_DIGEST, sha256)]
    if len({blob.name for blob in everything}) != len(everything):
        raise UsageError("two tensors have the same name", remedy="rename one of them")
    try:
        return _replace(Path(path).resolve(), everything)
    except OSError as error:
        reason, remedy = error.strerror or type(error).__name__, _REMEDIES.get(type(error), "")
        raise AccessError(f"cannot write {os.fspath(path)}: {reason}", remedy=remedy) from error


def _replace(path: Path, blobs: list[Blob]) -> int:
    """Write a temporary file beside the path, make it durable, and rename it to the path."""
    _refuse_special(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    mode = _create(temporary)
    try:
        _serialize(temporary, blobs)
        temporary.chmod(mode)
        size = temporary.stat().st_size
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)
    return size


def _refuse_special(path: Path) -> None:
    """Refuse to replace a folder, device or pipe by a file."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise AccessError(f"cannot write {path}: it is {kind}", remedy="name a file")


def _create(path: Path) -> int:
    """Create a file, and return the mode that the process's umask gives to new files."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _serialize(path: Path, blobs: list[Blob]) -> None:
    # Here and not above: reading an archive must not pay for what only writing needs.
    from safetensors import SafetensorError, TensorSpec, serialize_file

    specs = {
        blob.name: TensorSpec(
            dtype=_SPEC_DTYPES[blob.code], shape=blob.shape, data_ptr=blob.address, data_len=blob.nbytes
        )
        for blob in blobs
    }
    try:
        serialize_file(specs, path, METADATA)
    except SafetensorError as error:
        # The library hides the error number in its message.
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
