"""What it was measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Final

from benchmarks.scratch import parent
from benchmarks.ways import THREADS

PACKAGES: Final = ("torch", "transformers", "safetensors", "onnxruntime")


def describe() -> dict[str, str]:
    """The machine and the versions, each in words."""
    return {
        "date": str(datetime.date.today()),
        "processor": f"{_processor()}, {os.cpu_count()} cores, {THREADS} thread used",
        "load": f"{os.getloadavg()[0]:.1f} at the start",
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "saves to": str(parent(0)),
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
