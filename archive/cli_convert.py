"""What ``archive convert`` does: files of torch.export.save to archives, and back."""

from __future__ import annotations

import logging
import secrets
import warnings
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from archive.cli_imports import describe
from schema.errors import AccessError, ArchiveError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_MARKS: Final = ("archive_format", "serialized_exported_program.json")
"""Files that only torch.export.save puts into its zip files: today, and before torch 2.8."""


class Converted(NamedTuple):
    """What was written, and what to say about it."""

    path: Path
    nbytes: int
    notes: list[str]


def is_torch_program(path: Path) -> bool:
    """Whether a file is one of torch.export.save.

    Raises:
        AccessError: It cannot be read.
    """
    if path.exists() and not path.is_file():
        return False  # a pipe would block
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                return False
            with zipfile.ZipFile(file) as archive:
                return any(name.rpartition("/")[2] in _MARKS for name in archive.namelist())
    except OSError as error:
        raise AccessError(f"cannot read {path}: {error.strerror}", remedy="check the path") from error
    except zipfile.BadZipFile:
        return False


def to_archive(path: Path, output: Path, *, trust: bool, weights: bool) -> Converted:
    """Write the program in a file of torch.export.save to an archive.

    Args:
        path: The file.
        output: Where to write.
        trust: Whether the user trusts the file: reading it runs what its author wants.
        weights: Whether to keep parameters and persistent buffers.

    Raises:
        UsageError: The file is not trusted.
        ArchiveError: It cannot be read, or holds what no archive can hold.
    """
    if not trust:
        message = f"torch reads {path} with pickle, which runs whatever the author of the file wants"
        raise UsageError(message, remedy="pass --trust if you trust where it comes from")
    from exporter import save
    from exporter.emit.guards import read_guards

    program = _load(path)
    dropped = read_guards(program).dropped
    notes = [f"not carried: the guard {guard}, which no condition can be read from" for guard in dropped]
    with _quiet():  # of the warning that says the same
        nbytes = save(program, output, weights=weights)
    return Converted(output, nbytes, notes)


def _load(path: Path) -> Any:
    import torch

    try:
        with path.open("rb") as file, _quiet():
            return torch.export.load(file)
    except Exception as error:  # torch raises many types, and so does what it unpickles
        message = f"torch.export.load cannot read {path}: {describe(error)}"
        raise ArchiveError(message, remedy="import with --import what it needs, and use a torch of its time") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own warnings and logs: it warns of itself, and logs an error before it raises it."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def to_torch(
    path: Path,
    output: Path,
    *,
    method: str,
    weights: Path | None,
    allow_ops: Iterable[str],
    allow_classes: Iterable[str],
) -> Converted:
    """Write one method of an archive to a file of torch.export.save.

    Args:
        path: The archive.
        output: Where to write.
        method: Which method: such a file holds one.
        weights: A file of weights to take in place of the archive's.
        allow_ops: Namespaces of custom operators that the program may call.
        allow_classes: Modules whose classes of tensors, or namespaces whose script objects, it may have.

    Raises:
        ArchiveError: The archive cannot be loaded, or torch cannot write its program.
        AccessError: The file cannot be written.
    """
    from archive.reading import open_archive
    from loader import load

    program = load(path, method=method, weights=weights, allow_ops=allow_ops, allow_classes=allow_classes, debug=True)
    with open_archive(path) as archive:
        others = [each.name for each in archive.manifest.methods if each.name != method]
    notes = [f"not carried: {', '.join(others)}; such a file holds one method"] if others else []
    return Converted(output, _save(program, output), notes)


def _save(program: Any, output: Path) -> int:
    """Write a file of torch.export.save; it is there whole or not at all. Its size in bytes."""
    import torch

    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file, _quiet():
            torch.export.save(program, file)
        size = temporary.stat().st_size
        temporary.replace(output)
    except OSError as error:
        raise AccessError(f"cannot write {output}: {error.strerror}", remedy="choose another --output") from error
    except Exception as error:  # torch raises many types
        raise UnsupportedError(f"torch.export.save cannot write this program: {describe(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return size
