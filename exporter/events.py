"""What a capture tells those who listen: a callback, and the logger ``exporter``. Nothing leaves the process."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from exporter.capture.artifacts import IR
    from schema.errors import CaptureError

_LOG = logging.getLogger("exporter")


@dataclass(frozen=True)
class StageBegan:
    """A stage of a capture, or ``save``, begins."""

    level: ClassVar[int] = logging.DEBUG
    stage: str

    def __str__(self) -> str:
        return f"{self.stage} …"


@dataclass(frozen=True)
class StageEnded:
    """A stage has ended well, after so many seconds."""

    level: ClassVar[int] = logging.DEBUG
    stage: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.stage}: {self.seconds:.3f} s"


@dataclass(frozen=True)
class ModuleEntered:
    """The trace enters a module, perhaps not for the first time.

    Attributes:
        fqn: Its name; empty for the outermost one.
        kind: The name of its class.
        number: How many different modules were entered up to now.
        total: How many there are; not all of them need be entered.
        nodes: How many nodes the graph has up to now.
    """

    level: ClassVar[int] = logging.DEBUG
    fqn: str
    kind: str
    number: int
    total: int
    nodes: int

    def __str__(self) -> str:
        return f"module {self.number} of {self.total}, {self.fqn or 'the outermost'} ({self.kind}): {self.nodes} nodes"


@dataclass(frozen=True)
class CaptureEnded:
    """There is a program.

    Attributes:
        seconds: What it took in all.
        stages: What each stage took.
        operators: How often the program calls each operator, by its name; see ``operator_counts``.
        strict: Whether Dynamo followed the module.
        ir: The dialect of the program.
    """

    level: ClassVar[int] = logging.INFO
    seconds: float
    stages: Mapping[str, float]
    operators: Counter[str]
    strict: bool
    ir: IR

    def __str__(self) -> str:
        mode = f"{'strict' if self.strict else 'non-strict'}, {self.ir} IR"
        return f"captured {self.operators.total()} calls of operators in {self.seconds:.3f} s ({mode})"


@dataclass(frozen=True)
class CaptureFailed:
    """There is no program; the error is raised next.

    Attributes:
        error: What is wrong, where, and what to change.
        case: The case of ``torch._export.db`` that documents it, if torch knows one: ``cond_operands``.
    """

    level: ClassVar[int] = logging.INFO
    error: CaptureError
    case: str | None

    def __str__(self) -> str:
        documented = f" (case {self.case} of torch's exportdb)" if self.case else ""
        return f"capture failed: {self.error}{documented}"


Event = StageBegan | StageEnded | ModuleEntered | CaptureEnded | CaptureFailed


class Report:
    """Tells of events, and times stages.

    An exception of the callback ends the capture: whatever catches it on its way out, be it the user's ``forward``,
    it is raised again at the next event.

    Attributes:
        seconds: What each stage took that has ended.
    """

    def __init__(self, on_event: Callable[[Event], None] | None = None) -> None:
        self._on_event = on_event
        self.seconds: dict[str, float] = {}
        self._interruption: BaseException | None = None

    def hears(self, kind: type[Event]) -> bool:
        """Whether anybody listens to such events."""
        return self._on_event is not None or _LOG.isEnabledFor(kind.level)

    def __call__(self, event: Event) -> None:
        """Tell of an event.

        Raises:
            BaseException: What the callback raises, or has raised before.
        """
        self.check()
        _LOG.log(event.level, "%s", event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except BaseException as error:
                self._interruption = error
                raise

    def check(self) -> None:
        """Raise again what the callback has raised, if it has."""
        if self._interruption is not None:
            raise self._interruption

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Tell that a stage begins and, if the block does not fail, that it has ended."""
        self(StageBegan(name))
        start = perf_counter()
        yield
        self.seconds[name] = perf_counter() - start
        self(StageEnded(name, self.seconds[name]))
