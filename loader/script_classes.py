"""Classes of script objects that a program may use: of namespaces that the caller admits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from loader.torch_internals import has_script_class
from schema.errors import ClassError, Loc
from schema.manifest import Object

_PACKAGE: Final = "the package whose library registers it"


class ScriptClasses:
    """Judges classes. Nothing is imported: a class counts only if this process has loaded the library that has it.

    Args:
        allowed: What the caller admits: classes, or namespaces with all that is in them.
        recorded: What the archive says of the objects that it holds.
    """

    def __init__(self, allowed: Iterable[str], recorded: Sequence[Object]) -> None:
        self._allowed = frozenset(allowed)
        self._recorded = recorded

    def check(self, name: str, loc: Loc) -> None:
        """See to it that a program may use a class.

        Raises:
            ClassError: It is not admitted, or not there.
        """
        namespace = name.rpartition(".")[0]
        if self._allowed.isdisjoint((name, namespace)):
            provider = self._provider(name)
            remedy = (
                f'if you trust it, import {provider or _PACKAGE} and pass allow_classes=["{namespace}"]; '
                f"on the command line: --import {provider or 'PACKAGE'} --allow-classes {namespace}"
            )
            raise ClassError(f"the program uses script objects of the class {name}", loc=loc, remedy=remedy)
        if not has_script_class(name):
            remedy = f"import {self._provider(name) or _PACKAGE}"
            raise ClassError(f"no library in this process registers {name}", loc=loc, remedy=remedy)

    def _provider(self, name: str) -> str:
        return next((row.provider for row in self._recorded if row.name == name), "")
