"""The digests of an archive's weights."""

from __future__ import annotations

from archive.reading import ArchiveFile
from schema.errors import IntegrityError


def check_storages(archive: ArchiveFile) -> int:
    """Compare every stored tensor with its digest.

    Returns:
        How many bytes were compared.

    Raises:
        IntegrityError: A stored tensor is not the one that was written.
    """
    for storage in archive.manifest.storages:
        if archive.digest(storage.name) != storage.sha256:
            remedy = "get the file again from where it was written"
            raise IntegrityError("the bytes of a tensor have changed", loc=(storage.name,), remedy=remedy)
    return sum(storage.nbytes for storage in archive.manifest.storages)
