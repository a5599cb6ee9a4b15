"""What a case is, and the good archives of which bad ones are made."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import exporter
from tests.flat_calls import indexed
from tests.hostile.parts import Parts, take_apart
from tests.models import Case as Model, cases as models
from tests.rewriting import rewrite

Builder = Callable[[Path], Path]
"""Makes a bad archive in a folder, and returns its path."""

MANIFEST_ONLY = frozenset({"inspect"})
"""Ways to open an archive that read no section of it."""


class Case(NamedTuple):
    """A bad archive.

    Attributes:
        name: What is wrong with it.
        build: Makes it.
        says: A regular expression: what every error must say, with the place.
        blind: Ways to open it that do not read what is wrong.
        during: What happens while it is read.
    """

    name: str
    build: Builder
    says: str
    blind: frozenset[str] = frozenset()
    during: Callable[[Path], AbstractContextManager[Any]] = lambda _: nullcontext()


@functools.cache
def original(name: str = "dynamic") -> Path:
    """A good archive of one of the small models."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    case = (models() | {"indexed": _indexed})[name]()
    path = folder / name
    exporter.export(case.module, case.args, case.kwargs, dynamic_shapes=case.dynamic_shapes, path=path)
    return path


def _indexed() -> Model:
    case = indexed()
    return Model(case.module, case.args)


def content(data: bytes) -> Builder:
    """A file of these bytes."""
    return changed(lambda _: data)


def changed(change: Callable[[bytes], bytes], name: str = "dynamic") -> Builder:
    """A good archive after a change of its bytes."""

    def build(folder: Path) -> Path:
        (folder / "bad").write_bytes(change(original(name).read_bytes()))
        return folder / "bad"

    return build


def header(change: Callable[[bytes], bytes]) -> Builder:
    """A good archive after a change of its header's text."""

    def change_file(data: bytes) -> bytes:
        stop = 8 + int.from_bytes(data[:8], "little")
        text = change(data[8:stop])
        return len(text).to_bytes(8, "little") + text + data[stop:]

    return changed(change_file)


def parts(change: Callable[[Parts], Any], name: str = "dynamic") -> Builder:
    """A good archive after a change of what it consists of; its digests are right again."""

    def build(folder: Path) -> Path:
        taken = take_apart(original(name))
        change(taken)
        return taken.write(folder / "bad")

    return build


def manifest(change: Callable[[dict[str, Any]], Any], name: str = "dynamic") -> Builder:
    """A good archive after a change of its manifest as plain values."""
    return parts(lambda taken: change(taken.manifest), name)


def documents(change: Callable[[dict[str, Any], dict[str, Any]], Any], name: str = "dynamic") -> Builder:
    """A good archive after a change of its documents, and its manifest, as plain values."""
    return lambda folder: rewrite(original(name), folder / "bad", change)
