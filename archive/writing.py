"""Writes an archive: one pass straight from the tensors' memory, and the file appears whole or not at all."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections import ChainMap, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from blake3 import blake3

from archive.header import encode_header, layout_key
from archive.unfinished import unfinished_file
from schema.codec import most_containers
from schema.errors import AccessError, UnsupportedError, UsageError
from schema.limits import DEFAULT_LIMITS, Limits
from schema.names import MANIFEST, MANIFEST_DIGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import BinaryIO

_SMALL_BYTES: Final = 1024 * 1024
"""What is hashed before a thread has begun."""

_HASH_THREADS: Final = min(4, max(1, (os.cpu_count() or 1) - 1))
"""Beside the thread that writes, so that they leave it a processor."""

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
    """The BLAKE3 of a blob's bytes."""
    return blake3(memoryview(_memory(blob)).cast("B") if blob.nbytes else b"").digest()


def _memory(blob: Blob) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * blob.nbytes).from_address(blob.address)


@contextmanager
def _hashing(blobs: Sequence[Blob]) -> Iterator[Callable[[], dict[str, bytes]]]:
    """Compute the BLAKE3 of each blob beside what the caller does; the function does the rest and gives all by name."""
    queue = deque(sorted(blobs, key=lambda blob: -blob.nbytes))
    threads = _HASH_THREADS if sum(blob.nbytes for blob in blobs) > _SMALL_BYTES else 0
    pool = ThreadPoolExecutor(_HASH_THREADS)
    try:
        parts = [pool.submit(_digests, queue) for _ in range(threads)]
        yield lambda: dict(ChainMap(_digests(queue), *(part.result() for part in parts)))
    finally:
        queue.clear()
        pool.shutdown()


def _digests(queue: deque[Blob]) -> dict[str, bytes]:
    """The BLAKE3 of the blobs in a queue, from which other threads may take some."""
    digests = {}
    with suppress(IndexError):
        while True:
            blob = queue.popleft()
            digests[blob.name] = digest(blob)
    return digests


def write_archive(
    path: str | os.PathLike[str],
    blobs: Sequence[Blob],
    describe: Callable[[Mapping[str, bytes]], bytes],
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> int:
    """Write an archive; on any failure, what was there before stays.

    Args:
        path: Where to write it. A symbolic link is followed.
        blobs: The tensors and sections.
        describe: Gives the encoded manifest, which describes them, from the BLAKE3 of each by name. Its size is the
            same whatever they are: they are computed while the rest of the file is written, and it is asked for twice.
        limits: What those take who are to read it.

    Returns:
        Size of the file in bytes.

    Raises:
        AccessError: The file cannot be written.
        UnsupportedError: It would be more than readers take.
        UsageError: Two blobs have one name.
    """
    unknown = dict.fromkeys((blob.name for blob in blobs), bytes(blake3.digest_size))
    manifest = describe(unknown)
    everything = sorted([*blobs, *_manifest(manifest)], key=lambda blob: layout_key(blob.name, blob.code, blob.nbytes))
    if len({blob.name for blob in everything}) != len(everything):
        raise UsageError("two tensors have the same name", remedy="rename one of them")
    header = encode_header((blob.name, blob.code, blob.shape, blob.nbytes) for blob in everything)
    _check_readable(manifest, header, limits)
    try:
        with _hashing(blobs) as digests:
            return _replace(_target(path), header, everything, lambda: _manifest(describe(digests())))
    except OSError as error:
        reason, remedy = error.strerror or type(error).__name__, _REMEDIES.get(type(error), "")
        raise AccessError(f"cannot write {os.fspath(path)}: {reason}", remedy=remedy) from error


def _manifest(encoded: bytes) -> list[Blob]:
    sha256 = hashlib.sha256(encoded).digest()
    return [bytes_blob(MANIFEST, encoded), bytes_blob(MANIFEST_DIGEST, sha256)]


def _check_readable(manifest: bytes, header: bytes, limits: Limits) -> None:
    """Refuse to write what a reader refuses to read unless it is told otherwise."""
    for what, size, most in (
        ("bytes in the manifest", len(manifest), limits.manifest_bytes),
        ("lists and records in the manifest", most_containers(manifest), limits.containers),
        ("bytes in the header", len(header), limits.header_bytes),
    ):
        if size > most:
            remedy = "save fewer tensors to one archive"
            raise UnsupportedError(f"{size} {what}, more than the {most} that readers take", remedy=remedy)


def _replace(path: Path, header: bytes, blobs: list[Blob], final: Callable[[], list[Blob]]) -> int:
    """Write a file beside the path, make it durable, and rename it to the path.

    Args:
        path: Where the file is to be.
        header: What it begins with.
        blobs: What it holds, in order.
        final: Gives, once all of them are written, blobs that take the places of those of the same names and sizes.
    """
    _refuse_special(path)
    with unfinished_file(path.parent) as (temporary, file):
        starts, size = _write(file, header, blobs)
        for blob in final():
            file.seek(starts[blob.name])
            file.write(_memory(blob))
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(path)
    _sync(path.parent)
    return size


def _write(file: BinaryIO, header: bytes, blobs: list[Blob]) -> tuple[dict[str, int], int]:
    """Write all bytes of a file, and return where each blob starts, and where the last one ends."""
    starts, size = {}, file.write(header)
    for blob in blobs:
        starts[blob.name] = size
        if blob.nbytes:
            size += file.write(_memory(blob))
    return starts, size


def _target(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:
        raise AccessError(f"{os.fspath(path)!r} is not a path: {error}", remedy="check the path") from error


def _refuse_special(path: Path) -> None:
    """Refuse to replace a folder, device, pipe or link to itself by a file."""
    if os.path.lexists(path) and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise AccessError(f"cannot write {path}: it is {kind}", remedy="name a file")


def _sync(folder: Path) -> None:
    """Wait until a folder's list of names is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
