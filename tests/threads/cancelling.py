"""Loads that are cancelled, as by Ctrl-C, and what they leave behind."""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import linecache
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch._guards import TracingContext
from torch.utils import _python_dispatch, _pytree

import archive
import loader
from archive.tensor_file import TensorFile
from tests.threads.subjects import Subject

NAMES = ("dynamic", "branch", "nested")
ENTRIES: dict[str, Callable[[Subject], object]] = {
    "load": lambda subject: loader.load(subject.path),
    "load, copied and checked": lambda subject: loader.load(subject.path, mmap=False, verify="full"),
    "load_module": lambda subject: loader.load_module(subject.path),
    "inspect": lambda subject: archive.inspect(subject.path),
}


class Cancelled(BaseException):
    """Cancels a load; nobody catches it by accident."""


def be_quiet() -> None:
    """Print nothing where a cancellation comes in a callback, or in a thread that has ended its load."""
    sys.unraisablehook = lambda left: None if left.exc_type is Cancelled else sys.__unraisablehook__(left)
    threading.excepthook = lambda left: None if left.exc_type is Cancelled else threading.__excepthook__(left)


def try_points(subjects: dict[str, Subject], scale: float) -> tuple[str, list[str]]:
    """Cancel loads at points of all code that they run, torch's too, evenly spread."""
    most = max(int(400 * scale), 20)
    failures: list[str] = []
    tried = 0
    for name, (entry, enter) in itertools.product(NAMES, ENTRIES.items()):
        subject, act = subjects[name], functools.partial(enter, subjects[name])
        act()
        before, points = _before(), _points(act)
        for point in range(1, points + 1, max(1, points // most)):
            tried += 1
            place, outcome = _cancel_at(point, act)
            if outcome == "complete":  # it came in a callback of a weak reference: Python swallows it, torch loses that
                before["objects"] = _objects()
            elif outcome != "cancelled":
                failures.append(f"{entry} of {name}, {place}: {outcome}")
            failures += [f"{entry} of {name}, {place}: {what}" for what in _left(before, subject)]
        failures += [f"{entry} of {name}: {what}" for what in _left(before, subject, objects=True)]
        for way in subject.expected:
            subject.check(way)
    return f"{tried} loads", failures


def try_threads(subjects: dict[str, Subject], scale: float) -> tuple[str, list[str]]:
    """Cancel loads in a thread by an exception from outside, whenever it comes."""
    loads = max(int(1000 * scale), 50)
    chance = random.Random(0)
    seconds = {way: _seconds(functools.partial(act, subjects[NAMES[0]])) for way, act in ENTRIES.items()}
    failures: list[str] = []
    outcomes: Counter[str] = Counter()
    before = _before()
    for number in range(loads):
        subject = subjects[NAMES[number % len(NAMES)]]
        way = list(ENTRIES)[number % len(ENTRIES)]
        act = functools.partial(ENTRIES[way], subject)
        outcomes[_cancel_after(chance.uniform(0, seconds[way]), act)] += 1
        failures += [f"load {number}: {what}" for what in _left(before, subject)]
    for name in NAMES:
        failures += [f"{name}: {what}" for what in _left(before, subjects[name], objects=True)]
        for way in subjects[name].expected:
            subjects[name].check(way)
    failures += [outcome for outcome in outcomes if outcome not in ("complete", "cancelled")]
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())), failures


def _seconds(act: Callable[[], object]) -> float:
    start = perf_counter()
    act()
    return perf_counter() - start


def _points(act: Callable[[], object]) -> int:
    """How many points there are at which a call can be cancelled."""
    seen = 0

    def count(_: Any) -> None:
        nonlocal seen
        seen += 1

    _profiled(act, count)
    return seen


def _cancel_at(point: int, act: Callable[[], object]) -> tuple[str, str]:
    """Cancel at the point of some number; says where that was, and what came of it."""
    seen, place = 0, "not reached"

    def cancel(frame: Any) -> None:
        nonlocal seen, place
        seen += 1
        if seen == point:
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            raise Cancelled

    outcome = _profiled(act, cancel)
    return place, outcome


def _profiled(act: Callable[[], object], at_point: Callable[[Any], None]) -> str:
    """Call a function wherever Python looks for exceptions from outside: where a function begins, and after a C one."""

    def profile(frame: Any, event: str, _: Any) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename != __file__:
            at_point(frame)

    sys.setprofile(profile)
    outcome = _outcome(act)
    sys.setprofile(None)
    return outcome


def _outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except Cancelled:
        return "cancelled"
    except BaseException as error:
        # Where torch asks Python for a size and gets an exception, it raises another one that has it as text.
        return "cancelled" if Cancelled.__name__ in str(error) else f"raised {type(error).__name__} {error}"
    return "complete"


def _cancel_after(seconds: float, act: Callable[[], object]) -> str:
    """Cancel a load in a thread of its own after some time."""
    outcome = "hang"

    def work() -> None:
        nonlocal outcome
        outcome = _outcome(act)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Cancelled))
    thread.join(60)
    return outcome


def _before() -> dict[str, Any]:
    return {**_state(), "objects": _objects()}


def _state() -> dict[str, Any]:
    """What is global in this process and no load may change."""
    return {
        "modules": set(sys.modules),
        "threads": set(threading.enumerate()),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "cached casts": torch.is_autocast_cache_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dispatch modes": _modes(),
        "flags of modes": [getattr(_python_dispatch, flag) for flag in FLAGS],
        "function modes": torch._C._len_torch_function_stack(),
        "dispatch keys": (
            str(torch._C._dispatch_tls_local_include_set()),
            str(torch._C._dispatch_tls_local_exclude_set()),
        ),
        "tracing": TracingContext.try_get(),
        "containers": len(_pytree.SUPPORTED_NODES),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "limit": sys.getrecursionlimit(),
        "hooks": (sys.excepthook, sys.unraisablehook, linecache.getlines),
        "switch": sys.getswitchinterval(),
        "random": torch.get_rng_state().tolist(),
    }


FLAGS = [name for name, value in vars(_python_dispatch).items() if name.startswith("_is_in_") and type(value) is bool]
"""Whether a mode is on, as torch notes it for all threads together."""


def _modes() -> int:
    """How many modes are on; they are then all turned off, to look at the rest without them."""
    modes = _python_dispatch._get_current_dispatch_mode_stack()
    for _ in modes:
        _python_dispatch._pop_mode()
    return len(modes)


def _left(before: dict[str, Any], subject: Subject, *, objects: bool = False) -> list[str]:
    """What a load has left behind."""
    left = [f"{name} changed" for name, value in _state().items() if value != before[name]]
    if open_files := [link for link in _links() if link.startswith(str(subject.path))]:
        left.append(f"{len(open_files)} files are open")
    if _is_mapped(subject):
        gc.collect()
        left += ["the file is mapped"] * _is_mapped(subject)
    if objects:
        left += [f"{count} objects of {kind}" for kind, count in (_objects() - before["objects"]).items()]
    return left


def _is_mapped(subject: Subject) -> bool:
    with open("/proc/self/maps") as maps:
        return str(subject.path) in maps.read()


def _objects() -> Counter[str]:
    gc.collect()
    return Counter(type(each).__name__ for each in gc.get_objects() if type(each) in _KINDS)


_KINDS = {
    archive.ArchiveFile,
    TensorFile,
    torch.export.ExportedProgram,
    torch._subclasses.FakeTensorMode,
}


def _links() -> list[str]:
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # that of the list itself
            continue
    return links
