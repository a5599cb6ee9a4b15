"""The digests of everything in an archive."""

from __future__ import annotations

from archive.reading import ArchiveFile
from schema.errors import IntegrityError
from schema.names import section_name


def check_digests(archive: ArchiveFile) -> int:
    """Compare every stored tensor and section with its digest; that of the manifest was compared on opening.

    Returns:
        How many bytes were compared.

    Raises:
        IntegrityError: Some bytes are not those that were written.
    """
    sections = [
        (section_name(method.name, section.name), section.sha256)
        for method in archive.manifest.methods
        for section in method.sections
    ]
    stored = [(storage.name, storage.sha256) for storage in archive.manifest.storages if not storage.absent]
    for name, digest in (*stored, *sections):
        if archive.digest(name) != digest:
            remedy = "get the file again from where it was written"
            raise IntegrityError("the bytes of a tensor have changed", loc=(name,), remedy=remedy)
    return sum(archive.entries[name].nbytes for name, _ in (*stored, *sections))
