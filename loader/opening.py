"""One method of an open archive, with all that builds its parts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import msgspec

from archive.composites import absent_tensors
from archive.reading import ArchiveFile, open_archive
from archive.text import count_text
from loader.devices import Devices, Target
from loader.operators import Operators
from loader.rebuild.contexts import ContextBuilder
from loader.rebuild.literals import LiteralBuilder
from loader.rebuild.objects import ObjectBuilder
from loader.rebuild.tensors import TensorBuilder
from loader.script_classes import ScriptClasses
from loader.tensor_classes import TensorClasses
from schema.errors import UsageError, WeightsError
from schema.limits import DEFAULT_LIMITS, Limits
from schema.manifest import Method
from schema.version import ABSENT_STORAGES

if TYPE_CHECKING:
    from loader.given import Weights

Verify = Literal["sections", "full"]

Document = TypeVar("Document", bound=msgspec.Struct)


class OpenMethod(msgspec.Struct, frozen=True):
    """A method whose program can be rebuilt.

    Attributes:
        archive: The archive.
        method: What its manifest says of the method.
        operators: Resolves targets.
        literals: Builds literals.
        contexts: Builds contexts of wrapper tensors.
        tensors: Builds tensors.
        classes: Finds classes of wrapper tensors.
        objects: Builds script objects.
    """

    archive: ArchiveFile
    method: Method
    operators: Operators
    literals: LiteralBuilder
    contexts: ContextBuilder
    tensors: TensorBuilder
    classes: TensorClasses
    objects: ObjectBuilder

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
    weights: Weights | None = None,
    hollow: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[OpenMethod]:
    """Open an archive for one of its methods.

    The arguments and errors are those of :func:`loader.load`, but for ``hollow``: whether absent weights may stay
    away, on the meta device.
    """
    if verify not in get_args(Verify):
        raise UsageError(f"verify is {verify!r}", remedy=f"pass one of {', '.join(map(repr, get_args(Verify)))}")
    with open_archive(path, limits) as archive:
        found = archive.method(method)
        if verify == "full":
            from archive.integrity import check_digests  # which nothing else asks for

            check_digests(archive)
        devices, operators, classes = (
            Devices(device),
            Operators(allow_ops, found.operators),
            TensorClasses(allow_classes),
        )
        literals = LiteralBuilder(devices, operators)
        contexts = ContextBuilder(devices, operators, classes)
        tensors = TensorBuilder(archive, devices, contexts, classes, mmap=mmap, hollow=hollow)
        if weights is not None:
            from loader.weights import archive_weights  # which most programs do without

            tensors.give(archive_weights(archive, found, weights, tensors))
        elif not hollow:
            _check_present(archive, found, devices)
        rows = archive.manifest.objects
        objects = ObjectBuilder(rows, literals, tensors, ScriptClasses(classes.allowed, rows))
        yield OpenMethod(archive, found, operators, literals, contexts, tensors, classes, objects)


def _check_present(archive: ArchiveFile, method: Method, devices: Devices) -> None:
    """Refuse to go on without weights that the archive does not hold."""
    if ABSENT_STORAGES not in archive.manifest.features:
        return
    tensors, absent = archive.manifest.tensors, absent_tensors(archive.manifest)
    rows = [tensors[item.tensor] for item in method.state if absent[item.tensor]]
    missing = [row.name for row in rows if devices.place(row.device).type != "meta"]
    if missing:
        from loader.weights import few

        message = f"the archive leaves {count_text(len(missing), 'weight')} out ({few(missing)})"
        raise WeightsError(
            message, remedy="pass weights= (--weights FILE): a safetensors file or the index of its shards"
        )
