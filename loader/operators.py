"""Names of callables to callables, under the rule which of them an archive may call.

Nothing is looked up by a name from a file unless the name is in a closed list of ours, or is an operator in torch's
registry whose namespace is admitted.
"""

from __future__ import annotations

import builtins
import math
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch

from loader.torch_internals import HigherOrderOperator, OpOverload, predispatch
from schema.errors import Loc, OperatorError, UsageError
from schema.operators import ALLOWED_NAMESPACES, FORBIDDEN, HIGHER_ORDER, PYTHON_FUNCTIONS, SCRIPT_TYPES, split_target

_MODULES: dict[str, Any] = {
    "operator": operator,
    "math": math,
    "builtins": builtins,
    "torch": torch,
    "predispatch": predispatch,
}


class Operators:
    """Resolves targets.

    Args:
        allow: Namespaces of custom operators that the caller admits.

    Raises:
        UsageError: ``allow`` is one text instead of several.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        if isinstance(allow, str):
            raise UsageError(f"allow_ops is the text {allow!r}", remedy=f'pass a list: allow_ops=["{allow}"]')
        self._allowed = ALLOWED_NAMESPACES | frozenset(allow)

    def resolve(self, target: str, loc: Loc) -> Callable[..., Any]:
        """The callable that a target names.

        Raises:
            OperatorError: It is forbidden, its namespace is not admitted, or this process does not know it.
        """
        namespace, name, overload = split_target(target)
        if namespace == "python":
            return _python_function(target, loc)
        if f"{namespace}::{name}" in FORBIDDEN:
            raise OperatorError(f"the operator {target} is forbidden in an archive", loc=loc)
        if namespace not in self._allowed:
            remedy = (
                f'if you trust it, import the package that defines it and pass allow_ops=["{namespace}"]; '
                f"on the command line: --import PACKAGE --allow-ops {namespace}"
            )
            raise OperatorError(f"the program calls the custom operator {target}", loc=loc, remedy=remedy)
        return _higher_order(name, loc) if namespace == "higher_order" else _overload(namespace, name, overload, loc)


def _python_function(target: str, loc: Loc) -> Callable[..., Any]:
    function = None
    if target in PYTHON_FUNCTIONS:
        module, _, name = target.removeprefix("python::").partition(".")
        function = getattr(_MODULES[module], name, None)
    if function is None:
        raise OperatorError(f"{target[:80]!r} is no function that an archive may call", loc=loc)
    return function  # type: ignore[no-any-return]


def _higher_order(name: str, loc: Loc) -> Callable[..., Any]:
    found = getattr(torch.ops.higher_order, name, None) if name in HIGHER_ORDER else None
    if not isinstance(found, HigherOrderOperator):
        raise OperatorError(f"torch {torch.__version__} has no higher-order operator {name[:80]!r}", loc=loc)
    return found


def _is_script_only(overload: OpOverload) -> bool:
    """Whether an operator works on TorchScript's containers and handles instead of tensors."""
    types = " ".join(str(argument.type) for argument in (*overload._schema.arguments, *overload._schema.returns))
    return "__torch__" in types or bool(set(re.findall(r"\w+", types)) & set(SCRIPT_TYPES))


def _overload(namespace: str, name: str, overload: str, loc: Loc) -> Callable[..., Any]:
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except (AttributeError, RuntimeError):
        found = None
    if isinstance(found, OpOverload) and _is_script_only(found):
        raise OperatorError(f"the operator {namespace}::{name}.{overload} is TorchScript's own", loc=loc)
    if not isinstance(found, OpOverload):
        target = f"{namespace}::{name}.{overload}"[:120]
        builtin = namespace in ALLOWED_NAMESPACES
        remedy = "use a torch that has it" if builtin else f"import the package that defines {namespace} before loading"
        raise OperatorError(f"torch {torch.__version__} knows no operator {target}", loc=loc, remedy=remedy)
    return found
