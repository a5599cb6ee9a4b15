"""The version of the format, its history, and the judgement whether a reader may go on.

History, one line per version:
    1.0  2026-11-22  first version.
    1.1  2026-11-23  more higher-order operators; a constant may say that torch took it for a persistent buffer.
    1.2  2026-11-23  sparse tensors, wrapper subclasses, conjugates, ties as one object; integers of 1 to 7 bits, bits;
                     storages may be absent; an operator names the module that registers it.
    1.3  2026-11-23  graphs may read tensors by name; a stack trace may be None.
    2.0  2026-11-23  nodes are columns, their arguments numbers: read in a tenth of the time. Contexts of wrapper
                     subclasses may hold objects.
"""

from __future__ import annotations

from typing import Final

from schema.errors import VersionError

FORMAT_VERSION: Final = (2, 0)
"""(major, minor) that this package writes. A new major breaks old readers, a new minor only adds."""

ABSENT_STORAGES: Final = "absent"
"""The feature of archives that leave bytes of tensors out."""

FEATURES: Final[frozenset[str]] = frozenset(
    {ABSENT_STORAGES, "attributes", "conjugate", "functions", "objects", "sparse", "subclass"}
)
"""Features that this reader understands; an archive may name features that its reader must understand."""


def judge_version(version: tuple[int, int], features: list[str]) -> None:
    """Refuse an archive that this reader cannot understand.

    Args:
        version: (major, minor) that the archive says it is written in.
        features: The features that the archive says its reader must understand.

    Raises:
        VersionError: The major version differs from ours, or a feature is unknown here.
    """
    theirs, ours = ".".join(map(str, version)), ".".join(map(str, FORMAT_VERSION))
    if version[0] != FORMAT_VERSION[0] or version[1] < 0:
        newer = version[0] > FORMAT_VERSION[0]
        remedy = "upgrade program-archive here" if newer else "export the model again"
        message = f"the archive has format version {theirs}, this reader knows {ours}"
        raise VersionError(message, remedy=remedy)
    if unknown := sorted(set(features) - FEATURES):
        message = f"the archive (format {theirs}) needs {', '.join(unknown)}, unknown to this reader (format {ours})"
        raise VersionError(message, remedy="upgrade program-archive here")
