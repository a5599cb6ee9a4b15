"""`python -m tests.fuzz reader|program|flips`: what was tried, and what was found."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def main() -> None:
    """Fuzz, say what was tried, and end with 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--seconds", type=float, default=60, help="how long; flips take as long as they take")
    parser.add_argument("--seed", type=int, default=1, help="where to begin")
    parser.add_argument("--keep", type=Path, help="a folder for inputs that find something new, and for findings")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    tried, found = COMMANDS[options.what](options)
    print(f"{options.what}: {tried}: {len(found)} found", *found, sep="\n    ")
    sys.exit(bool(found))


def fuzz_reader(options: argparse.Namespace) -> tuple[str, list[str]]:
    """The coverage-guided fuzzer of the reader, from the kept corpus on."""
    from tests.fuzz import archives, reader

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary) / "kept"
        new, seeds, findings, written = (folder / "new", *(Path(temporary) / name for name in ("s", "f", "w")))
        for each in (new, seeds, findings, written):
            each.mkdir(parents=True)
        for name in archives.NAMES:
            (written / name).write_bytes(archives.written(name))
        for number, seed in enumerate(reader.seeds()):
            (seeds / str(number)).write_bytes(seed)
        limits = [f"-max_total_time={options.seconds:g}", f"-seed={options.seed}", "-timeout=30", "-rss_limit_mb=4096"]
        limits += ["-max_len=65536", f"-artifact_prefix={findings}/", "-print_final_stats=1"]
        command = [sys.executable, "-m", "tests.fuzz.libfuzzer", findings, *limits, new, reader.CORPUS, seeds]
        environment = {**os.environ, archives.FOLDER: str(written)}
        done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        found = [path.read_text() for path in findings.glob("*.txt")]
        found += [f"{path.name}: the process ended" for path in findings.iterdir() if "-" in path.name]
        if done.returncode and not found:
            found = [done.stderr[-2000:]]
        if options.keep:
            for path in findings.iterdir():
                path.rename(folder / path.name)
        stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
        coverage = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)
        runs, kept = int(stats.get("number_of_executed_units", 0)), len(list(new.iterdir()))
        edges = f", {coverage[-1][0]} edges" if coverage else ""
        return f"{runs:,} inputs in {options.seconds:g} s, {kept} of them new{edges}", found


def fuzz_program(options: argparse.Namespace) -> tuple[str, list[str]]:
    """Changed documents, in processes that may die of them."""
    from tests.fuzz import archives, workers

    end, number = time.monotonic() + options.seconds, options.seed
    outcomes: Counter[str] = Counter()
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in archives.NAMES:
            (Path(temporary) / name).write_bytes(archives.written(name))
        os.environ[archives.FOLDER] = temporary
        context = multiprocessing.get_context("spawn")
        while time.monotonic() < end:
            current, (ours, theirs) = folder / f"input-{number}", context.Pipe()
            worker = context.Process(target=workers.work, args=(theirs, number, end, current))
            worker.start()
            theirs.close()
            number = workers.follow(ours, worker, number, outcomes, found)
            if worker.exitcode:
                found.setdefault(f"the process ended with status {worker.exitcode}", f"{current}, seed {number}")
                number += 1
    tried = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    return tried, [f"{kind}\n{detail}" for kind, detail in found.items()]


def flip(options: argparse.Namespace) -> tuple[str, list[str]]:
    """Every bit of three archives."""
    from tests.fuzz import flips

    tried, found = [], []
    for name, kind in flips.NAMES.items():
        outcomes, failures = flips.try_flips(name)
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
        tried.append(f"{name} ({kind}) {sum(outcomes.values()):,} bits: {counts}")
        found += failures
    return "; ".join(tried), found


COMMANDS = {"reader": fuzz_reader, "program": fuzz_program, "flips": flip}


if __name__ == "__main__":
    main()
