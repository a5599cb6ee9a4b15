"""Objects that are no tensors but operators take: instances of TorchScript classes, and opaque objects.

A script object is written in C++. It is traced through a fake, an instance of the Python class that was registered as
the fake of its class. An opaque object, of a Python class registered with torch, stands for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.export.graph_signature import CustomObjArgument

from exporter.capture.artifacts import Faked, Symbolic
from exporter.torch_internals import (
    FakeScriptObject,
    FakeTensorMode,
    fake_script_object,
    has_fake_class,
    is_opaque_reference_type,
    is_opaque_value,
    is_torchbind_object,
    opaque_type_name,
    traces_with_itself,
)
from schema.errors import CaptureError, Loc


def attributes_of(module: torch.nn.Module, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the plain attributes of one kind with their qualified names."""
    for path, owner in _tree(module, ""):
        yield from ((f"{path}{key}", value) for key, value in vars(owner).items() if isinstance(value, kind))


def _tree(module: torch.nn.Module, prefix: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """Walk the modules; one that a parent holds under two names counts for the first, as in torch."""
    yield prefix, module
    for name, child in module.named_children():
        yield from _tree(child, f"{prefix}{name}.")


def is_object(value: Any) -> bool:
    """Whether an operator may take this as an object."""
    return bool(is_torchbind_object(value) or is_opaque_value(value))


def is_constant_object(value: Any) -> bool:
    """Whether a graph refers to this as a constant; other opaque objects stand in its code."""
    return isinstance(value, torch.ScriptObject | FakeScriptObject) or is_opaque_reference_type(type(value))


def check_object(value: Any, loc: Loc) -> None:
    """Refuse a script object that nothing can stand in for.

    Raises:
        CaptureError: Its class has no fake, or cannot be taken apart for one.
    """
    if not is_torchbind_object(value) or traces_with_itself(value):
        return
    name = class_of(value)
    if not has_fake_class(name):
        *_, namespace, short = name.split(".")
        raise CaptureError(
            f"the script object of class {name} cannot be captured: the class has no fake",
            loc=loc,
            remedy=f'register one with torch._library.register_fake_class("{namespace}::{short}"), '
            "or keep the data in tensors",
        )
    if not hasattr(value, "__obj_flatten__"):
        raise CaptureError(
            f"the script object of class {name} cannot be captured: it cannot be taken apart",
            loc=loc,
            remedy="define __obj_flatten__ for its class, or keep the data in tensors",
        )


def identity(value: Any) -> int:
    """What tells an object from others; Python may have several values that stand for one script object."""
    return hash(value) if isinstance(value, torch.ScriptObject) else id(value)


def fake_of(mode: FakeTensorMode, value: Any) -> Any:
    """Return what stands for an object in the trace."""
    return fake_script_object(mode, value) if is_torchbind_object(value) else value


def fakes_of(module: torch.nn.Module, mode: FakeTensorMode) -> dict[str, Faked]:
    """Return the script objects that modules hold, by qualified name, with their fakes; names of one share one."""
    once: dict[int, Any] = {}
    found = {}
    for name, value in attributes_of(module, torch.ScriptObject):
        if is_torchbind_object(value):
            key = identity(value)
            if key not in once:
                once[key] = fake_of(mode, value)
            found[name] = Faked(value, once[key])
    return found


@contextmanager
def objects_faked(symbolic: Symbolic) -> Iterator[None]:
    """Let the attributes of modules hold the fakes meanwhile."""
    owners = {name: vars(symbolic.module.get_submodule(name.rpartition(".")[0])) for name in symbolic.objects}
    try:
        for name, owner in owners.items():
            owner[name.rpartition(".")[2]] = symbolic.objects[name].fake
        yield
    finally:
        for name, owner in owners.items():
            owner[name.rpartition(".")[2]] = symbolic.objects[name].real


def class_of(value: Any) -> str:
    """Return the qualified name of the class of an object or of its fake."""
    if isinstance(value, FakeScriptObject):
        return str(value.script_class_name)
    if isinstance(value, torch.ScriptObject):
        kind: Any = value
        return str(kind._type().qualified_name())
    return str(opaque_type_name(type(value)))


def object_argument(name: str, value: Any) -> CustomObjArgument:
    """Return how a signature refers to an object."""
    return CustomObjArgument(name, class_of(value), None if isinstance(value, torch.ScriptObject) else value)
