"""The one error family of program-archive.

Every error says what is wrong, where (``loc``) and what to do about it (``remedy``), and prints as one line.

    ArchiveError
    ├── AccessError          the file cannot be opened, read or written
    ├── FormatError          the bytes are not an archive, or a malformed one
    │   ├── VersionError     written for a format that this reader does not know
    │   └── IntegrityError   the bytes differ from what was written
    ├── OperatorError        an operator is unknown, forbidden or not admitted
    ├── UnsupportedError     the program holds something that the format cannot carry
    ├── WeightsError         weights are missing, or do not fit the program
    ├── InputError           an input does not fit what the program was captured for
    ├── CaptureError         the module cannot be captured
    └── UsageError           the call or the command line is wrong
"""

from __future__ import annotations

__all__ = [
    "AccessError",
    "ArchiveError",
    "CaptureError",
    "FormatError",
    "InputError",
    "IntegrityError",
    "Loc",
    "OperatorError",
    "UnsupportedError",
    "UsageError",
    "VersionError",
    "WeightsError",
]

Loc = tuple[str | int, ...]
"""Where: the names and indexes that lead from the outermost thing (a section, an argument) to the wrong one."""


class ArchiveError(Exception):
    """Base of every error that program-archive raises on purpose.

    Attributes:
        message: What is wrong.
        loc: Where it is wrong, outermost first; empty where the message says it.
        remedy: What the user can do; empty where nothing can be done.
    """

    def __init__(self, message: str, *, loc: Loc = (), remedy: str = "") -> None:
        super().__init__(message, loc, remedy)
        self.message = message
        self.loc = loc
        self.remedy = remedy

    def __str__(self) -> str:
        where = self._where()
        place = f" ({where})" if where else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return " ".join(f"{self.message}{place}{remedy}".split())

    def _where(self) -> str:
        return f"at {'.'.join(map(str, self.loc))}" if self.loc else ""

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.loc, self.remedy)


class AccessError(ArchiveError):
    """The file cannot be opened, read or written."""


class FormatError(ArchiveError):
    """The bytes are not an archive, or a malformed one."""


class VersionError(FormatError):
    """The archive needs a reader that knows a later format."""


class IntegrityError(FormatError):
    """The bytes differ from those that were written."""


class OperatorError(ArchiveError):
    """An operator is unknown to this process, forbidden, or not admitted by the caller."""


class ClassError(ArchiveError):
    """A class of tensors is unknown to this process, or not admitted by the caller."""


class UnsupportedError(ArchiveError):
    """The program holds something that the format cannot carry."""


class WeightsError(ArchiveError):
    """Weights are missing, or do not fit the program."""


class InputError(ArchiveError, ValueError):
    """An input does not fit what the program was captured for."""


class CaptureError(ArchiveError):
    """The module cannot be captured.

    Attributes:
        stage: The stage of the pipeline that refused: its verb, for example ``"trace"``.
        method: The method that was captured, where it is not ``forward``.
    """

    def __init__(self, message: str, *, loc: Loc = (), remedy: str = "", stage: str = "", method: str = "") -> None:
        super().__init__(message, loc=loc, remedy=remedy)
        self.stage = stage
        self.method = method

    def _where(self) -> str:
        stage = f"in stage {self.stage}" if self.stage else ""
        method = f"of method {self.method}" if self.method else ""
        return ", ".join(filter(None, (super()._where(), f"{stage} {method}".strip())))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_capture, (type(self), self.message, self.loc, self.remedy, self.stage, self.method)


class UsageError(ArchiveError, ValueError):
    """The call or the command line is wrong."""


def _rebuild(kind: type[ArchiveError], message: str, loc: Loc, remedy: str) -> ArchiveError:
    return kind(message, loc=loc, remedy=remedy)


def _rebuild_capture(
    kind: type[CaptureError], message: str, loc: Loc, remedy: str, stage: str, method: str
) -> CaptureError:
    return kind(message, loc=loc, remedy=remedy, stage=stage, method=method)
