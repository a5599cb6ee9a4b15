"""Saving makes no second copy of the weights, and loading makes none at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MIB = 2**20
WEIGHTS_BYTES = 256 * MIB

SAVE = """
import torch, exporter, safetensors.torch
module = torch.nn.Sequential(*(torch.nn.Linear(4096, 4096, bias=False) for _ in range(4)))
program = exporter.capture(module, (torch.ones(1, 4096),))
start()
exporter.save(program, sys.argv[1])
exporter.save(program, sys.argv[1] + ".program", weights=False)
safetensors.torch.save_file(module.state_dict(), sys.argv[1] + ".weights")
"""

LOAD = """
import torch, loader, torch._dynamo, sympy
start()
program = loader.load(sys.argv[1])
module = loader.load_module(sys.argv[1])
apart = loader.load_module(sys.argv[1] + ".program", weights=sys.argv[1] + ".weights")
for each in (module, apart):
    assert sum(p.numel() for p in each.parameters()) * 4 == 256 * 2**20
"""

PEAK = """
import sys
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
def start():
    global before
    # Measure from what is used now, not from an earlier peak.
    open("/proc/self/clear_refs", "w").write("5")
    before = peak()
"""


def growth(code: str, path: Path) -> int:
    """By how many bytes the peak memory of a fresh process grows."""
    script = f"{PEAK}{code}\nprint(peak() - before)"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc to measure memory")
def test_memory_does_not_grow_with_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "large"
    saving = growth(SAVE, path)
    assert path.stat().st_size > WEIGHTS_BYTES
    assert saving < WEIGHTS_BYTES // 4, f"saving took {saving / MIB:.0f} MiB more"
    loading = growth(LOAD, path)
    assert loading < WEIGHTS_BYTES // 4, f"loading took {loading / MIB:.0f} MiB more"
