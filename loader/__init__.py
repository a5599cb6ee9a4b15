"""Load, check and run archives: everything that the serving side does."""

from loader.loading import load
from loader.module import ProgramModule, load_module
from loader.stand_ins import StandIn
from loader.swapping import swap_weights
from loader.verifying import Check, Report, verify

__all__ = ["Check", "ProgramModule", "Report", "StandIn", "load", "load_module", "swap_weights", "verify"]
