"""Capture modules as programs and write them to archives: everything that the training side does."""

from exporter.capture import capture
from exporter.saving import export, save
from exporter.statistics import operator_counts

__all__ = ["capture", "export", "operator_counts", "save"]
