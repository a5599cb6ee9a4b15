"""Capture modules as programs and write them to archives: everything that the training side does."""

from exporter.capture import Call, capture, capture_methods
from exporter.saving import export, save
from exporter.statistics import operator_counts

__all__ = ["Call", "capture", "capture_methods", "export", "operator_counts", "save"]
