"""Classes of wrapper tensors, and of what describes them, that a program may use: of modules that the caller admits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch

from loader.torch_internals import is_wrapper_class
from schema.errors import ClassError, Loc, UsageError


class TensorClasses:
    """Finds classes. Nothing is imported: a module counts only if this process has imported it.

    Args:
        allow: Modules whose classes the caller admits, with all that is below them.

    Attributes:
        allowed: The same.

    Raises:
        UsageError: ``allow`` is one text instead of several.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        if isinstance(allow, str):
            raise UsageError(f"allow_classes is the text {allow!r}", remedy=f'pass a list: allow_classes=["{allow}"]')
        self.allowed = tuple(allow)

    def resolve(self, module: str, name: str, loc: Loc) -> type[torch.Tensor]:
        """The class of wrapper tensors that a module has under a name.

        Raises:
            ClassError: Its module is not admitted or not imported, or has no such class.
        """
        return self.find(module, name, "class of wrapper tensors", is_wrapper_class, loc)

    def find(self, module: str, name: str, what: str, fits: Callable[[type], bool], loc: Loc) -> type[Any]:
        """The class that a module has under a name, of a kind that is wanted.

        Raises:
            ClassError: Its module is not admitted or not imported, or has no such class.
        """
        if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in self.allowed):
            remedy = (
                f'if you trust it, import {module} and pass allow_classes=["{module}"]; '
                f"on the command line: --import {module} --allow-classes {module}"
            )
            raise ClassError(f"the program needs the {what} {module}.{name}", loc=loc, remedy=remedy)
        found: object = sys.modules.get(module)
        if found is None:
            raise ClassError(f"{module}, which defines {name}, is not imported", loc=loc, remedy=f"import {module}")
        for part in name.split("."):
            found = vars(found).get(part) if hasattr(found, "__dict__") else None
        if not isinstance(found, type) or not fits(found):
            remedy = f"use the version of {module} that the program was written with"
            raise ClassError(f"{module}.{name} is no {what}", loc=loc, remedy=remedy)
        return found
