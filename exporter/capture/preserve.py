"""The user's module is handed back as it was, whatever its ``forward`` assigns while it is traced."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

_REGISTRIES = frozenset(vars(torch.nn.Module()))
"""The attributes that every module has. Parameters and buffers are followed by the trace, hooks hold no tensors."""

_CONTAINERS = (dict, list, tuple, set)


@dataclass(frozen=True)
class _Snapshot:
    """What a module tree looks like: a shallow copy of each module's attributes, and of each container in them."""

    modules: list[tuple[str, torch.nn.Module, dict[str, Any]]] = field(default_factory=list)
    containers: dict[int, tuple[str, Any, Any]] = field(default_factory=dict)


@contextmanager
def module_kept(module: torch.nn.Module) -> Iterator[None]:
    """Restore every attribute on the way out, and warn of tensors that were assigned to attributes."""
    with module_restored(module) as assigned:
        yield
    warn_of_assignments(assigned)


@contextmanager
def module_restored(module: torch.nn.Module) -> Iterator[list[str]]:
    """Restore every attribute on the way out; the list then names those to which a tensor was assigned."""
    snapshot = _take(module)
    assigned: list[str] = []
    try:
        yield assigned
        assigned += _assigned_tensors(snapshot)
    finally:
        _restore(snapshot)


def warn_of_assignments(assigned: list[str]) -> None:
    """Warn of tensors that were assigned to attributes.

    The program cannot carry such an assignment: its state is the parameters and buffers, so the value that the
    module would have had on the next call is lost. The graph is right for one call.
    """
    if assigned:
        warnings.warn(
            f"the module assigns a tensor to {', '.join(assigned)}; the program does not keep it from one call to the "
            "next. Register it with register_buffer to make it part of the program's state",
            stacklevel=3,
        )


def can_be_written_back(value: object, buffer: torch.Tensor) -> bool:
    """Whether what is assigned to a buffer can be written into it; a size that varies does not fit, as none has one."""
    if not isinstance(value, torch.Tensor):
        return True  # that is refused elsewhere
    sizes: list[Any] = list(value.shape)
    return all(isinstance(size, int) for size in sizes) and sizes == list(buffer.shape)


def warn_of_other_shapes(buffers: list[str]) -> None:
    """Warn of buffers to which tensors of other shapes were assigned.

    A program writes into its buffers, whose shapes stay. Modules that make a table anew where it has not the size that
    they need make it in every call of the program: the graph is right for each.
    """
    if buffers:
        warnings.warn(
            f"the module assigns a tensor of another shape to the buffers {', '.join(buffers)}; the program computes "
            "with it, and leaves the buffers as they are. Give them this shape to have the assignment kept",
            stacklevel=3,
        )


def _take(module: torch.nn.Module) -> _Snapshot:
    snapshot = _Snapshot()
    for name, owner in module.named_modules():
        path = f"self.{name}" if name else "self"
        snapshot.modules.append((path, owner, dict(vars(owner))))
        for key, value in vars(owner).items():
            if isinstance(value, _CONTAINERS):
                _remember(snapshot, "" if key in _REGISTRIES else f"{path}.{key}", value)
    return snapshot


def _remember(snapshot: _Snapshot, path: str, container: Any) -> None:
    if id(container) in snapshot.containers:
        return
    snapshot.containers[id(container)] = path, container, _copy(container)
    if container and not isinstance(container, set):
        for key, item in _items(container):
            if isinstance(item, _CONTAINERS):
                _remember(snapshot, f"{path}[{key!r}]" if path else "", item)


def _copy(container: Any) -> Any:
    return dict(container) if isinstance(container, dict) else list(container)


def _items(container: Any) -> Iterable[tuple[Any, Any]]:
    return container.items() if isinstance(container, dict) else enumerate(container)


def _assigned_tensors(snapshot: _Snapshot) -> list[str]:
    """Return the paths of attributes and items that hold a tensor which they did not hold before."""
    found = []
    for path, owner, before in snapshot.modules:
        found += [f"{path}.{key}" for key in _new_tensors(before, vars(owner)) if key not in _REGISTRIES]
    for path, container, saved in snapshot.containers.values():
        if path and isinstance(container, dict | list):
            found += [f"{path}[{key!r}]" for key in _new_tensors(saved, container)]
    return found


def _new_tensors(before: Any, now: Any) -> list[Any]:
    known = dict(_items(before))
    changed = [(key, value) for key, value in _items(now) if known.get(key) is not value]
    return [key for key, value in changed if isinstance(value, torch.Tensor)]


def _restore(snapshot: _Snapshot) -> None:
    for _, owner, before in snapshot.modules:
        if _differs(vars(owner), before):
            vars(owner).clear()
            vars(owner).update(before)
    for _, container, saved in snapshot.containers.values():
        if not isinstance(container, tuple) and _differs(container, saved):
            _refill(container, saved)


def _differs(now: Any, before: Any) -> bool:
    if isinstance(now, set):
        return now != set(before)
    if isinstance(now, dict):
        return [*now] != [*before] or not all(map(operator.is_, now.values(), before.values()))
    return len(now) != len(before) or not all(map(operator.is_, now, before))


def _refill(container: Any, saved: Any) -> None:
    container.clear()
    getattr(container, "extend" if isinstance(container, list) else "update")(saved)
