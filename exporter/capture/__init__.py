"""Capture: from a ``torch.nn.Module`` and example arguments to a ``torch.export.ExportedProgram``."""

from __future__ import annotations

from exporter.capture.artifacts import DynamicShapes
from exporter.capture.methods import Call, CaptureOptions, capture_methods
from exporter.capture.pipeline import STAGES, capture

__all__ = ["STAGES", "Call", "CaptureOptions", "DynamicShapes", "capture", "capture_methods"]
