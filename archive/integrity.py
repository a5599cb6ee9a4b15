"""The digests of everything in an archive, compared with its bytes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from schema.errors import IntegrityError
from schema.names import section_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from archive.reading import ArchiveFile


class Part(NamedTuple):
    """A stored tensor or section.

    Attributes:
        name: Its name in the file.
        kind: ``section`` or ``tensor``.
        nbytes: Its size in bytes.
        ok: Whether its bytes are those that were written; None if they are not in the file.
    """

    name: str
    kind: str
    nbytes: int
    ok: bool | None


def compare_digests(archive: ArchiveFile) -> Iterator[Part]:
    """Compare every stored tensor and section with its digest; that of the manifest was compared on opening.

    Raises:
        AccessError: The file cannot be read.
    """
    for storage in archive.manifest.storages:
        ok = None if storage.absent else archive.digest(storage.name) == storage.blake3
        yield Part(storage.name, "tensor", storage.nbytes, ok)
    for method in archive.manifest.methods:
        for section in method.sections:
            name = section_name(method.name, section.name)
            ok = hashlib.sha256(archive.raw(name)).digest() == section.sha256
            yield Part(name, "section", section.nbytes, ok)


def check_digests(archive: ArchiveFile) -> list[Part]:
    """Every stored tensor and section, whose bytes are those that were written.

    Raises:
        IntegrityError: Some are not.
    """
    parts = list(compare_digests(archive))
    refuse_changed(parts)
    return parts


def refuse_changed(parts: Sequence[Part]) -> None:
    """Refuse parts of which some are not those that were written.

    Raises:
        IntegrityError: With the first of them.
    """
    if changed := [part.name for part in parts if part.ok is False]:
        what = "a tensor" if len(changed) == 1 else f"{len(changed)} tensors"
        remedy = "get the file again from where it was written"
        raise IntegrityError(f"the bytes of {what} have changed", loc=(changed[0],), remedy=remedy)
