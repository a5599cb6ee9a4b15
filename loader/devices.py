"""Where a loaded program lives: the devices it was captured on, and those it is put on."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from schema.errors import UsageError

Target = str | torch.device | Mapping[str, str | torch.device] | None
"""One device for everything, or a map of recorded devices to new ones, or None to keep what was recorded."""


class Devices:
    """Maps recorded devices to those that the caller wants.

    Raises:
        UsageError: On first use of a device that this machine does not have.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._known: dict[str, torch.device] = {}

    def place(self, recorded: str) -> torch.device:
        """The device to use where the archive says ``recorded``."""
        if recorded not in self._known:
            self._known[recorded] = _available(self._wanted(recorded), recorded)
        return self._known[recorded]

    def _wanted(self, recorded: str) -> torch.device:
        target = self._target
        try:
            if isinstance(target, Mapping):
                kind = recorded.partition(":")[0]
                return _device(target.get(recorded, target.get(kind, recorded)))
            # The meta device holds no data: nothing can be moved off it.
            return _device(recorded if target is None or recorded == "meta" else target)
        except RuntimeError as error:
            raise UsageError(f"no such device: {error}".splitlines()[0], remedy='name one such as "cpu"') from error


def _device(name: str | torch.device) -> torch.device:
    """The device of a name; torch makes ``cuda:0`` of ``cuda:256``."""
    device = torch.device(name)
    if str(device) != str(name):
        raise UsageError(f"no such device: {str(name)[:80]!r}", remedy='name one such as "cuda:0"')
    return device


def _available(device: torch.device, recorded: str) -> torch.device:
    if device.type in ("cpu", "meta"):
        return device
    backend = getattr(torch, device.type, None)
    count = backend.device_count() if backend is not None and hasattr(backend, "device_count") else 0
    if (device.index or 0) >= count:
        message = f"the program uses device {recorded}, and {device} is not available here"
        raise UsageError(message, remedy='pass device="cpu", or another that is')
    return device
