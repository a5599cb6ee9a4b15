"""Names of callables to callables, under the rule which of them an archive may call.

Nothing is looked up by a name from a file unless the name is in a closed list of ours, or is an operator in torch's
registry: one of torch's own that is on the list, or one that the caller admits.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch

from loader.torch_internals import HigherOrderOperator, OpOverload, predispatch, register_operators
from schema.errors import Loc, OperatorError, UsageError
from schema.manifest import OperatorUse
from schema.names import is_identifier
from schema.operators import (
    ALLOWED_NAMESPACES,
    FLAT_APPLY,
    FORBIDDEN,
    HIGHER_ORDER,
    LISTED_NAMESPACES,
    PYTHON_FUNCTIONS,
    REGISTERED_LATE,
    RUNS_TEXT,
    listed_operators,
    split_target,
)

_MODULES: dict[str, Any] = {
    "operator": operator,
    "math": math,
    "builtins": builtins,
    "torch": torch,
    "predispatch": predispatch,
}

_FEW = 6


class Operators:
    """Resolves targets.

    Args:
        allow: What the caller admits: namespaces of custom operators, exact overloads, and operators that run text.
        recorded: What the archive says of the operators that it calls.

    Raises:
        UsageError: ``allow`` is one text instead of several, or names a namespace of torch's own.
    """

    def __init__(self, allow: Iterable[str] = (), recorded: Iterable[OperatorUse] = ()) -> None:
        if isinstance(allow, str):
            raise UsageError(f"allow_ops is the text {allow!r}", remedy=f'pass a list: allow_ops=["{allow}"]')
        self._exact = frozenset(name for name in allow if "::" in name)
        self._namespaces = frozenset(allow) - self._exact
        if own := self._namespaces & LISTED_NAMESPACES - REGISTERED_LATE:
            remedy = f'name the overload: allow_ops=["{min(own)}::NAME.OVERLOAD"]'
            raise UsageError(f"allow_ops has all of {min(own)}, torch's own operators", remedy=remedy)
        self._recorded = {use.name: use for use in recorded}

    def resolve(self, target: str, loc: Loc, *, called: bool = False) -> Callable[..., Any]:
        """The callable that a target names.

        Args:
            target: The target.
            loc: Where it stands.
            called: Whether a node calls it itself, instead of giving it to what it calls.

        Raises:
            OperatorError: It is forbidden or not admitted, or this process does not know it.
        """
        namespace, name, overload = split_target(target)
        if namespace == "python":
            return _python_function(target, loc)
        if namespace == "higher_order":
            if name in RUNS_TEXT - self._namespaces:
                remedy = f'if you trust it, pass allow_ops=["{name}"]; on the command line: --allow-ops {name}'
                raise OperatorError(f"the program runs text that it holds, through {name}", loc=loc, remedy=remedy)
            if name == FLAT_APPLY and not called:
                raise OperatorError(f"{name} among the arguments of a node", loc=loc)
            return _higher_order(name, loc)
        if f"{namespace}::{name}" in FORBIDDEN:
            raise OperatorError(f"the operator {target} is forbidden in an archive", loc=loc)
        own = namespace in LISTED_NAMESPACES
        admitted = namespace in self._namespaces or target in self._exact
        if not own and not admitted:
            message = f"the program calls the custom operator {target[:120]}"
            raise OperatorError(message, loc=loc, remedy=self._how_to_admit(namespace))
        found = _overload(namespace, name, overload)
        if found is None and namespace in REGISTERED_LATE:
            register_operators(namespace)
            found = _overload(namespace, name, overload)
        if found is None:
            raise self._unknown(target, namespace, loc)
        if own and not (target in listed_operators() or admitted):
            message = f"{target} is not on the list of operators that any archive may call"
            remedy = f'if you trust the program, pass allow_ops=["{target}"] (--allow-ops {target})'
            raise OperatorError(message, loc=loc, remedy=remedy)
        if not own:
            self._check_schema(target, str(found._schema), loc)
        return found

    def _unknown(self, target: str, namespace: str, loc: Loc) -> OperatorError:
        package = ", ".join(self._providers([namespace])) or f"the package that defines {namespace[:80]}"
        remedy = "use a torch that has it" if namespace in ALLOWED_NAMESPACES else f"import {package} before loading"
        return OperatorError(f"torch {torch.__version__} knows no operator {target[:120]}", loc=loc, remedy=remedy)

    def _how_to_admit(self, namespace: str) -> str:
        """What to import and what to pass, at once for all operators that are not admitted."""
        recorded = {split_target(name)[0] for name in self._recorded} - self._namespaces - ALLOWED_NAMESPACES
        wanted = sorted({namespace[:80], *filter(is_identifier, recorded)})[:_FEW]
        providers = self._providers(wanted)
        passed = ", ".join(f'"{name}"' for name in wanted)
        options = [f"--import {name}" for name in providers or ["PACKAGE"]] + [f"--allow-ops {name}" for name in wanted]
        return (
            f"if you trust it, import {', '.join(providers) or 'the package that defines it'} and pass "
            f"allow_ops=[{passed}]; on the command line: {' '.join(options)}"
        )

    def _providers(self, namespaces: Iterable[str]) -> list[str]:
        """Modules that are recorded as those that register operators of some namespaces. They are never imported."""
        uses = [use for name, use in self._recorded.items() if split_target(name)[0] in namespaces]
        return sorted({use.provider for use in uses if use.provider})[:_FEW]

    def _check_schema(self, target: str, schema: str, loc: Loc) -> None:
        use = self._recorded.get(target)
        if use is not None and use.schema != schema:
            message = f"the archive was written for {use.schema[:400]}, and here it is {schema}"
            remedy = f"import the version of {use.provider or 'the package that defines it'} that it was written with"
            raise OperatorError(message, loc=loc, remedy=remedy)


def _python_function(target: str, loc: Loc) -> Callable[..., Any]:
    function = None
    if target in PYTHON_FUNCTIONS:
        module, _, name = target.removeprefix("python::").partition(".")
        function = getattr(_MODULES[module], name, None)
    if function is None:
        raise OperatorError(f"{target[:80]!r} is no function that an archive may call", loc=loc)
    return function  # type: ignore[no-any-return]


def _higher_order(name: str, loc: Loc) -> Callable[..., Any]:
    found = getattr(torch.ops.higher_order, name, None) if name in HIGHER_ORDER | RUNS_TEXT else None
    if not isinstance(found, HigherOrderOperator):
        raise OperatorError(f"torch {torch.__version__} has no higher-order operator {name[:80]!r}", loc=loc)
    return found


def _overload(namespace: str, name: str, overload: str) -> OpOverload | None:
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except (AttributeError, RuntimeError):
        return None
    return found if isinstance(found, OpOverload) else None
