"""Tensors without memory, as values of nodes, and the mode that they belong to.

torch makes one by running ``empty_strided`` in its mode, which goes through its dispatcher in Python. Here one is a
subclass instance around an empty meta tensor of its own, with the attributes that torch's constructor gives; what these
are is learned from that constructor once in a process, for each device.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from loader.rebuild.memories import Memories, Sizes
from loader.torch_internals import (
    FakeTensor,
    FakeTensorMode,
    dispatch_keys,
    lazy_clone,
    new_shape_env,
    warn_of_data_access,
)

Maker = Callable[[], torch.Tensor]

_META = torch.device("meta")


class _Becoming:
    """The lock under which a mode becomes an ordinary one; a child process, forked while it was held, has its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()


_BECOMING = _Becoming()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_BECOMING.__init__)  # type: ignore[misc]


class LazyMode(FakeTensorMode):  # type: ignore[no-untyped-call]
    """A mode for values of tensors, made in full when it is first used for more than to hold tensors together.

    To make one imports all of Dynamo and sympy, and to look at a tensor's shape, type or device takes neither. On first
    use it becomes a plain ``FakeTensorMode`` with a shape environment of its own.
    """

    def __init__(self) -> None:
        self.in_kernel_invocation = False  # which every look at a tensor's device asks for

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        with _BECOMING.lock:
            if type(self) is LazyMode:
                FakeTensorMode.__init__(
                    self, allow_fallback_kernels=False, allow_non_fake_inputs=True, shape_env=new_shape_env()
                )
                self.__class__ = FakeTensorMode  # type: ignore[assignment]
        return getattr(self, name)


class _Stub(FakeTensorMode):  # type: ignore[no-untyped-call]
    """As much of a mode as the constructor of a tensor asks for."""

    def __init__(self) -> None:
        self._allow_unsafe_data_ptr_access = True
        self.allow_meta = True


class PublicFakes:
    """Makes tensors of one mode by running an operator in it.

    Args:
        mode: The mode.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode

    def maker(self, shape: Sizes, strides: Sizes, dtype: torch.dtype, device: torch.device, grad: bool) -> Maker:
        """A function that makes tensors of one kind, no two of which share memory.

        Raises:
            RuntimeError: There can be no such tensor.
        """

        def make() -> torch.Tensor:
            with self._mode:
                return torch.empty_strided(shape, strides, dtype=dtype, device=device, requires_grad=grad)

        make()
        return make


class FastFakes:
    """Makes tensors by what torch's constructor comes down to; in all else as :class:`PublicFakes`."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._attributes: dict[torch.device, tuple[dict[str, Any], torch.device]] = {}
        self._memories = Memories()

    def maker(self, shape: Sizes, strides: Sizes, dtype: torch.dtype, device: torch.device, grad: bool) -> Maker:
        """A function that makes tensors of one kind, no two of which share memory."""
        attributes, device = self._attributes_on(device)
        # To copy one takes half as long as to make one, and a twentieth if its sizes vary.
        make_memory = partial(lazy_clone, self._memories.make(shape, strides, dtype))

        def make() -> torch.Tensor:
            made: torch.Tensor = _make_subclass(
                FakeTensor, make_memory(), grad, dispatch_device=True, device_for_backend_keys=device
            )
            warn_of_data_access(made)
            made.__dict__ = attributes.copy()
            return made

        return make

    def _attributes_on(self, device: torch.device) -> tuple[dict[str, Any], torch.device]:
        """The attributes of a tensor on a device, and the device as torch then calls it."""
        if device not in self._attributes:
            official = _official(torch.empty(0, device=_META), device)
            self._attributes[device] = {**vars(official), "fake_mode": self._mode}, official.fake_device
        return self._attributes[device]


_make_subclass = torch.Tensor._make_subclass


def _official(memory: torch.Tensor, device: torch.device) -> FakeTensor:
    return FakeTensor(_Stub(), memory, device)


def _described(tensor: torch.Tensor) -> list[Any]:
    attributes = {name: value for name, value in vars(tensor).items() if name != "fake_mode"}
    return [type(tensor), attributes, tensor.shape, tensor.stride(), tensor.device, dispatch_keys(tensor)]


def _are_alike() -> bool:
    device = torch.device("cpu")
    try:
        fast = FastFakes(_Stub()).maker((2, 3), (3, 1), torch.float32, device, False)()
        return _described(fast) == _described(_official(torch.empty((2, 3), device=_META), device))
    except Exception:  # another torch can differ in anything
        return False


FAKES = FastFakes if _are_alike() else PublicFakes
"""The fastest way to make such tensors that this torch knows."""
