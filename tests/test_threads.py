"""Archives are loaded by many threads, in forked processes, and by loads that are cancelled, and nothing goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="looks for what stays open and mapped in /proc, Linux's")
def test_loads_are_safe_in_threads_forks_and_cancellations() -> None:
    command = [sys.executable, "-m", "tests.threads", "--scale", "0.05"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": 0 failed") == 7
