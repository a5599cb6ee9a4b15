"""`python -m tests.faults`: every point of a save at which a disk can fail or the process be killed, each tried."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SHIM = Path(__file__).parent / "shim.c"
PRELOADED = "TESTS_FAULTS_SHIM"


def main() -> None:
    """Try what the command line asks for, say what was tried, and end with 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one program instead of three, and fewer rounds")
    options = parser.parse_args()
    if PRELOADED not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            shim = _compile(Path(folder))
            environment = {**os.environ, "LD_PRELOAD": str(shim), PRELOADED: str(shim)}
            sys.exit(subprocess.run([sys.executable, "-m", "tests.faults", *sys.argv[1:]], env=environment).returncode)
    from tests.faults.saving import try_all

    sys.exit(try_all(quick=options.quick))


def _compile(folder: Path) -> Path:
    target = folder / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", target, SHIM, "-ldl"], check=True)
    return target


if __name__ == "__main__":
    main()
