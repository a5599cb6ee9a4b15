"""A save that fails or is killed leaves the old archive or the new one, whole, and the next one clears up behind it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="calls of the system are made to fail by LD_PRELOAD, Linux's")
@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler, for tests/faults/shim.c")
def test_no_fault_at_any_call_of_a_save_tears_the_file() -> None:
    command = [sys.executable, "-m", "tests.faults", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": 0 failed") == 4
