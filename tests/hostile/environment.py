"""What a path can lead to but an archive, and what can happen to the file while it is read."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tests.hostile.cases import Builder, Case, changed, original

_GOOD = changed(lambda data: data)
_WITHOUT_TENSORS = frozenset({"inspect"})


def _made(make: Callable[[Path], Any]) -> Builder:
    def build(folder: Path) -> Path:
        make(folder / "bad")
        return folder / "bad"

    return build


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # the path of a socket must be short
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def _chain(path: Path) -> None:
    """A symbolic link to a pipe."""
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def _reads(change: Callable[[int, bytes], bytes]) -> Callable[[Path], AbstractContextManager[Any]]:
    """Change what the system gives at the Nth read, counted from one."""

    def during(_: Path) -> AbstractContextManager[Any]:
        count, pread = 0, os.pread

        def read(*arguments: Any) -> bytes:
            nonlocal count
            count += 1
            return change(count, pread(*arguments))

        return mock.patch("os.pread", read)

    return during


def _failing(number: int, code: int) -> Callable[[Path], AbstractContextManager[Any]]:
    def change(count: int, data: bytes) -> bytes:
        if count == number:
            raise OSError(code, os.strerror(code))
        return data

    return _reads(change)


def _ending(number: int) -> Callable[[Path], AbstractContextManager[Any]]:
    """The file is cut before the Nth read."""
    return _reads(lambda count, data: b"" if count >= number else data)


def _half(number: int) -> Callable[[Path], AbstractContextManager[Any]]:
    """A read gives half of the bytes, and the next nothing."""
    return _reads(lambda count, data: data[: len(data) // 2] if count == number else b"" if count > number else data)


@contextmanager
def _mapped_short(path: Path) -> Iterator[None]:
    """The file is cut just before it is mapped."""
    import mmap

    data, make = path.read_bytes(), mmap.mmap

    def cut(*arguments: Any, **options: Any) -> Any:
        os.truncate(path, 100)
        return make(*arguments, **options)

    with mock.patch("mmap.mmap", cut):
        try:
            yield
        finally:
            path.write_bytes(data)


@contextmanager
def _unmappable(_: Path) -> Iterator[None]:
    with mock.patch("mmap.mmap", side_effect=OSError(errno.ENODEV, os.strerror(errno.ENODEV))):
        yield


@contextmanager
def _overwritten(path: Path) -> Iterator[None]:
    """Another program writes into the file once its header has been read."""
    data, pread, done = path.read_bytes(), os.pread, False

    def read(descriptor: int, size: int, start: int) -> bytes:
        nonlocal done
        if start > 8 and not done:
            done = True
            with open(path, "r+b") as file:
                file.seek(int.from_bytes(data[:8], "little") + 8)
                file.write(b"\xff" * 4000)
        return pread(descriptor, size, start)

    with mock.patch("os.pread", read):
        try:
            yield
        finally:
            path.write_bytes(data)


CASES = [
    Case("nothing there", lambda folder: folder / "bad", r"No such file or directory; check the path"),
    Case("no such folder", lambda folder: folder / "none" / "bad", r"No such file or directory; check the path"),
    Case("a file as a folder", lambda folder: original() / "bad", r"Not a directory; check the path"),
    Case("a folder", _made(Path.mkdir), r"it is a folder; name the file itself"),
    Case("a pipe", _made(os.mkfifo), r"it is a device or pipe"),
    Case("a socket", _made(_socket), r"cannot read .*bad"),
    Case("a device without end", lambda folder: Path("/dev/zero"), r"cannot read /dev/zero: it is a device or pipe"),
    Case("a device that waits", lambda folder: Path("/dev/tty"), r"cannot read /dev/tty"),
    Case("a file of the system without a size", lambda folder: Path("/proc/self/maps"), r"the file is empty"),
    Case("a link to nothing", _made(lambda path: path.symlink_to("none")), r"No such file or directory"),
    Case("a link to itself", _made(lambda path: path.symlink_to("bad")), r"cannot read .*bad"),
    Case("a link to a pipe", _made(_chain), r"it is a device or pipe"),
    Case("a path with a zero", lambda folder: folder / "b\0d", r"is not a path"),
    Case("a path that is too long", lambda folder: folder / ("b" * 300), r"cannot read .*File name too long"),
    *(
        Case(
            f"an error at read {number}", _GOOD, r"cannot read .*Input/output error", during=_failing(number, errno.EIO)
        )
        for number in (1, 2, 3, 4)
    ),
    *(
        Case(
            f"an error at read {number}",
            _GOOD,
            r"cannot read .*Input/output error",
            _WITHOUT_TENSORS,
            _failing(number, errno.EIO),
        )
        for number in (5, 6, 7, 8)
    ),
    *(
        Case(
            f"a file that ends at read {number}", _GOOD, r"has become shorter|the file is empty", during=_ending(number)
        )
        for number in (2, 3, 4)
    ),
    Case("a file that ends at read 6", _GOOD, r"has become shorter", _WITHOUT_TENSORS, _ending(6)),
    Case("a read of half of the header", _GOOD, r"has become shorter", during=_half(2)),
    Case("a stale handle", _GOOD, r"cannot read .*Stale file handle", during=_failing(2, errno.ESTALE)),
    Case(
        "a file that is cut before it is mapped",
        _GOOD,
        r"has become shorter|differ|have changed",
        _WITHOUT_TENSORS,
        _mapped_short,
    ),
    Case("a disk that cannot be mapped", _GOOD, r"cannot read .*No such device", _WITHOUT_TENSORS, _unmappable),
    Case(
        "a file that is written to meanwhile",
        _GOOD,
        r"differ from those that were written|have changed",
        during=_overwritten,
    ),
]
