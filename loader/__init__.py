"""Load, check and run archives: everything that the serving side does.

What is asked for is imported then: a process that only serves is not to wait for what verifies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schema.limits import Limits

if TYPE_CHECKING:
    from loader.loading import load
    from loader.module import ProgramModule, load_module
    from loader.stand_ins import StandIn
    from loader.swapping import swap_weights
    from loader.verifying import Check, Report, verify

__all__ = ["Check", "Limits", "ProgramModule", "Report", "StandIn", "load", "load_module", "swap_weights", "verify"]


def __getattr__(name: str) -> Any:
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
        case "Check" | "Report" | "verify":
            from loader import verifying as home
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(home, name)
    return found
