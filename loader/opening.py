"""One method of an open archive, with all that builds its parts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import msgspec

from archive.reading import ArchiveFile, open_archive
from loader.devices import Devices, Target
from loader.integrity import check_digests
from loader.operators import Operators
from loader.rebuild.literals import LiteralBuilder
from loader.rebuild.tensors import TensorBuilder
from loader.tensor_classes import TensorClasses
from schema.errors import UsageError
from schema.manifest import Method

Verify = Literal["sections", "full"]

Document = TypeVar("Document", bound=msgspec.Struct)


@dataclass(frozen=True)
class OpenMethod:
    """A method whose program can be rebuilt.

    Attributes:
        archive: The archive.
        method: What its manifest says of the method.
        operators: Resolves targets.
        literals: Builds literals.
        tensors: Builds tensors.
        classes: Finds classes of wrapper tensors.
    """

    archive: ArchiveFile
    method: Method
    operators: Operators
    literals: LiteralBuilder
    tensors: TensorBuilder
    classes: TensorClasses

    def section(self, name: str, kind: type[Document]) -> Document:
        """One section of the method.

        Raises:
            IntegrityError: It is not the one that was written.
            FormatError: It is malformed.
        """
        return self.archive.section(self.method.name, name, kind)


@contextmanager
def open_method(
    path: str | os.PathLike[str],
    *,
    method: str = "forward",
    device: Target = None,
    mmap: bool = True,
    allow_ops: Iterable[str] = (),
    allow_classes: Iterable[str] = (),
    verify: Verify = "sections",
) -> Iterator[OpenMethod]:
    """Open an archive for one of its methods. The arguments and errors are those of :func:`loader.load`."""
    if verify not in get_args(Verify):
        raise UsageError(f"verify is {verify!r}", remedy=f"pass one of {', '.join(map(repr, get_args(Verify)))}")
    with open_archive(path) as archive:
        found = archive.method(method)
        if verify == "full":
            check_digests(archive)
        devices, operators, classes = Devices(device), Operators(allow_ops), TensorClasses(allow_classes)
        literals = LiteralBuilder(devices, operators)
        tensors = TensorBuilder(archive, devices, literals, classes, mmap=mmap)
        yield OpenMethod(archive, found, operators, literals, tensors, classes)
