"""Saves in children of this process, each with one fault, and what is in the folder afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import exporter
import loader
from schema.errors import ArchiveError
from tests.models import Case, cases

SHORT, EMPTY, KILL_BEFORE, KILL_AFTER = -2, -3, -4, -5
EVER = 10**6
ONCE = {
    **{name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EDQUOT", "EACCES", "EROFS", "EINTR")},
    "short": SHORT,
    "empty": EMPTY,
    "killed before": KILL_BEFORE,
    "killed after": KILL_AFTER,
}
"""What happens at one point."""

FROM_THERE_ON = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EROFS")}
"""What happens at one point and at every later one."""

WANTED = {"flock", "write", "fsync", "rename", "close"}
"""Calls that a save makes: a shim that does not see them sees nothing."""

NAME = "x.program.safetensors"
SHIM = ctypes.CDLL(None)
Failures = list[str]


def try_all(*, quick: bool) -> int:
    """Try everything; print what was tried and what failed.

    Returns:
        1 if something failed, else 0.
    """
    torch.set_num_threads(1)
    SHIM.fault_names.restype = ctypes.c_char_p
    rounds = 5 if quick else 50
    checks: dict[str, Callable[[Path], tuple[str, Failures]]] = {
        **{f"faults in saves of {name}": _faults_of(name, quick) for name in (["branch"] if quick else PROGRAMS)},
        "8 writers of one path, some of them killed": lambda folder: try_writers(folder, rounds),
        "read-only folder": try_read_only,
        "saving over the file that is mapped": try_mapped,
    }
    failed = 0
    for title, check in checks.items():
        with tempfile.TemporaryDirectory() as folder:
            tried, failures = check(Path(folder))
        failed += len(failures)
        print(f"{title}: {tried}: {len(failures)} failed", *failures, sep="\n    ", flush=True)
    return bool(failed)


def large() -> Case:
    """Weights that take more than one write: of ten mebibytes, and many small ones."""
    layers = [torch.nn.Linear(1600, 1600, bias=False), *(torch.nn.LayerNorm(1600) for _ in range(100))]
    return Case(torch.nn.Sequential(*layers), (torch.ones(1, 1600),))


PROGRAMS: dict[str, Callable[[], Case]] = {"branch": cases()["branch"], "odd": cases()["odd"], "large": large}


def capture(name: str) -> torch.export.ExportedProgram:
    """One of the programs."""
    module, args, kwargs, shapes = PROGRAMS[name]()
    return exporter.capture(module, args, kwargs, dynamic_shapes=shapes)


def _faults_of(name: str, quick: bool) -> Callable[[Path], tuple[str, Failures]]:
    return lambda folder: try_faults(folder, capture(name), quick)


def try_faults(folder: Path, program: Any, quick: bool) -> tuple[str, Failures]:
    """Every fault at every call that a save makes, over an older file and, unless it must be quick, without one."""
    exporter.save(program, folder / "new")
    exporter.save(capture("branch"), folder / "old", record_outputs=True)
    new, old = ((folder / name).read_bytes() for name in ("new", "old"))
    names = count_calls(folder, program)
    failures = [f"the shim sees no {call}" for call in WANTED - set(names)]
    tried = 0
    for before in (old,) if quick else (old, None):
        for point, call in enumerate(names, 1):
            faults = [*((f"{name} once", point, what) for name, what in ONCE.items())]
            faults += [(f"{name} from there on", EVER, what) for name, what in FROM_THERE_ON.items()]
            for title, last, what in faults:
                tried += 1
                if problem := try_fault(folder / "work", program, before, new, (point, last, what)):
                    failures.append(
                        f"{title}, at {call} ({point}), {'over' if before else 'without'} a file: {problem}"
                    )
    calls = ", ".join(f"{count} {call}" for call, count in Counter(names).items())
    return f"{len(names)} calls ({calls}), {tried} saves", failures


def count_calls(folder: Path, program: Any) -> list[str]:
    """The calls that a save makes."""
    SHIM.fault_arm(0, 0, 0)
    exporter.save(program, folder / "counted")
    SHIM.fault_disarm()
    names: str = SHIM.fault_names().decode()
    return names.split()


def try_fault(folder: Path, program: Any, before: bytes | None, new: bytes, fault: tuple[int, int, int]) -> str:
    """Save in a child that has the fault, and say what is wrong with what it leaves."""
    folder.mkdir()
    path = folder / NAME
    if before:
        path.write_bytes(before)

    def save() -> None:
        SHIM.fault_arm(*fault)
        exporter.save(program, path)
        SHIM.fault_disarm()

    try:
        outcome = in_child(save)
        after = path.read_bytes() if path.exists() else None
        left = sorted(entry.name for entry in folder.iterdir() if entry.name != NAME)
        exporter.save(program, path)
        return _judge(outcome, fault, after, {before, new}, new) or _judge_left(folder, left, path, new)
    finally:
        for entry in folder.iterdir():
            entry.unlink()
        folder.rmdir()


def _judge(outcome: str, fault: tuple[int, int, int], after: bytes | None, allowed: set[Any], new: bytes) -> str:
    if outcome not in ("done", "refused", "killed") or (outcome == "killed") != (fault[2] in (KILL_BEFORE, KILL_AFTER)):
        return f"the save {outcome}"
    if after not in allowed or (outcome == "done" and after != new):
        return f"the save was {outcome}, and the file holds {len(after or b'')} other bytes"
    return ""


def _judge_left(folder: Path, left: list[str], path: Path, new: bytes) -> str:
    if len(left) > 1:
        return f"{left} stayed behind"
    if path.read_bytes() != new or sorted(folder.iterdir()) != [path]:
        return f"the next save did not sweep {sorted(folder.iterdir())}"
    return ""


def in_child(act: Callable[[], None]) -> str:
    """What became of something in a child: done, refused with an error of ours, killed, or what else."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            act()
            SHIM.fault_disarm()
            outcome = "done"
        except ArchiveError:
            SHIM.fault_disarm()
            outcome = "refused"
        except BaseException:
            SHIM.fault_disarm()
            outcome = f"raised {traceback.format_exc(limit=-1)}"
        os.write(writing, outcome.encode()[-4000:])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        outcome = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "killed" if status == -signal.SIGKILL else outcome or f"ended with status {status}"


def try_writers(folder: Path, rounds: int) -> tuple[str, Failures]:
    """Processes that save to one path, some killed: at every moment the path holds one of the files, whole."""
    programs = [capture("branch"), capture("odd")]
    path, allowed = folder / NAME, set()
    for program in programs:
        exporter.save(program, path)
        allowed.add(path.read_bytes())
    failures: Failures = []
    for number in range(rounds):
        children = [_saving_child(programs[index % 2], path, number * 8 + index) for index in range(8)]
        while children:
            if path.read_bytes() not in allowed:
                failures.append(f"round {number}: the file is torn")
            child, status = os.waitpid(-1, os.WNOHANG)
            if child:
                children.remove(child)
                if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
                    failures.append(f"round {number}: a save failed, status {status}")
    exporter.save(programs[0], path)
    failures += [f"{entry.name} stayed behind" for entry in folder.iterdir() if entry != path]
    return f"{rounds * 8} processes, {rounds * 8 * 3} saves", failures


def _saving_child(program: Any, path: Path, number: int) -> int:
    child = os.fork()
    if child:
        return child
    with contextlib.suppress(BaseException):
        if number % 3 == 0:  # killed at some call of its first to third save
            SHIM.fault_arm(1 + number % 37, EVER, KILL_BEFORE)
        for _ in range(3):
            exporter.save(program, path)
        os._exit(0)
    traceback.print_exc()
    os._exit(1)


def try_read_only(folder: Path) -> tuple[str, Failures]:
    """A folder that nobody but root may write to, for a process that is not root; what is in it stays readable."""
    program = capture("branch")
    path = folder / NAME
    exporter.save(program, path)
    before = path.read_bytes()
    folder.chmod(0o555)

    def save() -> None:
        if os.getuid() == 0:
            os.setuid(65534)  # nobody
        exporter.save(program, path)

    outcome = in_child(save)
    folder.chmod(0o755)
    failures = [] if outcome == "refused" else [f"the save was {outcome}"]
    if path.read_bytes() != before or list(folder.iterdir()) != [path]:
        failures.append("the folder has changed")
    return "1 save", failures


def try_mapped(folder: Path) -> tuple[str, Failures]:
    """A program is saved over the file that its own weights are; the old one goes on with what it has."""
    path, failures = folder / NAME, []
    programs = [capture("odd"), capture("branch")]
    exporter.save(programs[0], path)
    loaded, module = loader.load(path), loader.load_module(path)
    x = torch.ones(2, 4)
    expected = module(x)
    for saved in (loaded, programs[1], loaded):
        exporter.save(saved, path)
        loader.load_module(path, verify="full")
        failures += [
            "a loaded program computes something else"
            for run in (module, loaded.module())
            if not all(map(torch.equal, run(x), expected))
        ]
    return "3 saves", failures
