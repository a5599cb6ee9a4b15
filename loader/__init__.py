"""Load, check and run archives: everything that the serving side does.

What is asked for is imported then: a process that only serves is not to wait for what verifies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loader.loading import load
    from loader.module import ProgramModule, load_module
    from loader.stand_ins import StandIn
    from loader.swapping import swap_weights
    from loader.verifying import Check, Report, verify
    from schema.limits import Limits

__all__ = ["Check", "Limits", "ProgramModule", "Report", "StandIn", "load", "load_module", "swap_weights", "verify"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from archive.collector import collector_paused

    with collector_paused():  # which would look through all of torch meanwhile
        globals()[name] = found = getattr(_home(name), name)
    return found


def _home(name: str) -> Any:
    """The module that defines a name."""
    home: Any
    match name:
        case "load":
            from loader import loading as home
        case "ProgramModule" | "load_module":
            from loader import module as home
        case "StandIn":
            from loader import stand_ins as home
        case "swap_weights":
            from loader import swapping as home
        case "Limits":
            from schema import limits as home
        case _:
            from loader import verifying as home
    return home
