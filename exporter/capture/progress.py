"""Which module the trace is in, for those who want to know."""

from __future__ import annotations

from collections.abc import Callable

import torch

from exporter.events import ModuleEntered, Report
from exporter.torch_internals import outside_of_modes

Entering = Callable[[torch.nn.Module, torch.fx.Graph], None]
"""Called with a module that is about to run and the graph that its operators go to."""


def progress(module: torch.nn.Module, report: Report) -> Entering | None:
    """Return what tells of the modules that are entered; None if nobody listens.

    Args:
        module: The outermost module.
        report: Whom to tell.
    """
    if not report.hears(ModuleEntered):
        return None
    # By the dictionary of attributes: torch calls a module that has several names through a proxy that shares it.
    names = {id(vars(each)): name for name, each in reversed(list(module.named_modules()))}
    total = sum(map(_can_be_called, module.modules()))
    entered: set[int] = set()
    outermost: torch.fx.Graph | None = None

    def entering(owner: torch.nn.Module, graph: torch.fx.Graph) -> None:
        nonlocal outermost
        outermost = outermost or graph  # the next ones are those of branches
        if (key := id(vars(owner))) in names:
            entered.add(key)
            event = ModuleEntered(
                fqn=names[key],
                kind=type(owner).__name__,
                number=len(entered),
                total=total,
                nodes=len(outermost.nodes),
            )
            with outside_of_modes():
                report(event)

    return entering


def _can_be_called(module: torch.nn.Module) -> bool:
    """Whether a module has a ``forward``; lists and dicts of modules have none."""
    return getattr(getattr(module, "forward", None), "__func__", None) is not torch.nn.Module.forward
