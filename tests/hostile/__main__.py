"""`python -m tests.hostile`: every bad archive, opened in every way, in processes that may crash over it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from tests.hostile.children import try_all
from tests.hostile.corpus import CORPUS
from tests.hostile.judging import Trial


def main() -> int:
    """Open what the command line asks for; the number of failures."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("-k", dest="keyword", default="", help="only cases whose name this regular expression finds")
    options = parser.parse_args()
    names = [name for name in CORPUS if re.search(options.keyword, name)]
    failures, seconds, megabytes = 0, 0.0, 0.0
    for name, trials in try_all(names):
        faults = [trial for trial in trials if trial.fault]
        failures += bool(faults)
        seconds = max(seconds, *(trial.seconds for trial in trials))
        megabytes = max(megabytes, *(trial.megabytes for trial in trials))
        _print_case(name, trials)
    print(f"{len(names)} cases, {failures} failed; at most {seconds:.2f} s and {megabytes:.0f} MB")
    return failures


def _print_case(name: str, trials: Sequence[Trial]) -> None:
    slowest, largest = max(trial.seconds for trial in trials), max(trial.megabytes for trial in trials)
    failed = any(trial.fault for trial in trials)
    print(f"{'FAILED' if failed else 'ok':6}  {slowest:5.2f} s  {largest:4.0f} MB  {name}")
    for error in dict.fromkeys(trial.error for trial in trials if trial.error):
        print(f"{'':25}{error[:200]}")
    for trial in trials:
        if trial.fault:
            print(f"{'':25}{trial.way}: {trial.fault}", flush=True)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
