"""Modules that are captured by torch and by us, and must give the same program."""

from tests.capture_cases import regions, shapes, state
from tests.capture_cases.common import CASES, Batch, Case, Module, Pair, both

__all__ = ["CASES", "Batch", "Case", "Module", "Pair", "both", "regions", "shapes", "state"]
