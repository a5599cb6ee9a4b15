"""Classes of script objects that a program may use: of namespaces that the caller admits."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from loader.torch_internals import has_script_class
from schema.errors import ClassError, Loc
from schema.manifest import Object


class ScriptClasses:
    """Judges classes. Nothing is imported: a class counts only if this process has loaded the library that has it.

    Args:
        allowed: What the caller admits: classes, or namespaces with all that is in them.
        recorded: What the archive says of the objects that it holds.
    """

    def __init__(self, allowed: Collection[str], recorded: Sequence[Object]) -> None:
        self._allowed = allowed
        self._recorded = recorded

    def check(self, name: str, loc: Loc) -> None:
        """See to it that a program may use a class.

        Raises:
            ClassError: It is not admitted, or not there.
        """
        namespace = name.rpartition(".")[0]
        provider = next((row.provider for row in self._recorded if row.name == name), "")
        library = provider or "the package whose library registers it"
        if not {name, namespace} & set(self._allowed):
            remedy = (
                f'if you trust it, import {library} and pass allow_classes=["{namespace}"]; '
                f"on the command line: --import {provider or 'PACKAGE'} --allow-classes {namespace}"
            )
            raise ClassError(f"the program uses script objects of the class {name}", loc=loc, remedy=remedy)
        if not has_script_class(name):
            raise ClassError(f"no library in this process registers {name}", loc=loc, remedy=f"import {library}")
