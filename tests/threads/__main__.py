"""`python -m tests.threads`: loads from many threads, in forked processes, and cancelled at every point."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from tests.threads import cancelling, forking, sharing
from tests.threads.subjects import Subject, write_subjects

CHECKS: dict[str, Callable[[dict[str, Subject], float], tuple[str, list[str]]]] = {
    "8 threads, the first loads of a process": sharing.try_first_loads,
    "8 threads, all calls and archives mixed": sharing.try_mixed,
    "8 threads, one module": sharing.try_one_module,
    "8 threads, a file that is replaced": sharing.try_replaced,
    "processes that fork after and during loads": forking.try_forks,
    "loads cancelled at points of the code": cancelling.try_points,
    "loads cancelled by another thread": cancelling.try_threads,
}


def main() -> None:
    """Try everything, say what was tried, and end with 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.threads", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="how much to try: 1 for thousands of calls")
    parser.add_argument("-k", dest="keyword", default="", help="only checks in whose title this is")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a process that has used more hangs in torch itself after a fork
    sys.setswitchinterval(1e-5)
    cancelling.be_quiet()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        subjects = write_subjects(Path(folder))
        for title, check in CHECKS.items():
            if options.keyword in title:
                tried, failures = check(subjects, options.scale)
                failed += len(failures)
                print(f"{title}: {tried}: {len(failures)} failed", *failures[:20], sep="\n    ", flush=True)
    sys.stdout.flush()
    os._exit(bool(failed))  # at once, whatever threads hang


if __name__ == "__main__":
    main()
