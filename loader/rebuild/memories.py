"""Meta tensors, whose copies are the memory of tensors without memory.

Where sizes vary, torch takes 200 microseconds to make one, nearly all of it for arithmetic on sizes, and 8 to look in
another way at one that is there. So one is made for each amount of memory, and the others look at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

Sizes = Sequence[int | torch.SymInt]
_Step = tuple[int | torch.SymInt, int | torch.SymInt]
"""Size and stride of a dimension."""

_META: Final = torch.device("meta")


class Memories:
    """Makes meta tensors, of sizes of which each that varies is one object: two tensors may share their memory."""

    def __init__(self) -> None:
        self._flat: dict[Any, torch.Tensor] = {}

    def make(self, shape: Sizes, strides: Sizes, dtype: torch.dtype) -> torch.Tensor:
        """A meta tensor.

        Raises:
            RuntimeError: There can be no such tensor.
        """
        if any(isinstance(each, torch.SymInt) for each in (*shape, *strides)):
            steps = [step for step in zip(shape, strides, strict=True) if not (_is(1, step[0]) or _is(0, step[1]))]
            outermost = _outermost_if_dense(steps)
            if outermost is not None:
                return self._flat_memory(steps, outermost, dtype).as_strided(tuple(shape), tuple(strides))
        return torch.empty_strided(tuple(shape), tuple(strides), dtype=dtype, device=_META)

    def _flat_memory(self, steps: list[_Step], outermost: _Step, dtype: torch.dtype) -> torch.Tensor:
        key = dtype, *sorted((_identity(size), _identity(stride)) for size, stride in steps)
        if key not in self._flat:
            self._flat[key] = torch.empty((outermost[0] * outermost[1],), dtype=dtype, device=_META)
        return self._flat[key]


def _is(number: int, size: int | torch.SymInt) -> bool:
    """Whether a size is always a number; to compare one that varies would be to guard on it."""
    return not isinstance(size, torch.SymInt) and size == number


def _identity(size: int | torch.SymInt) -> tuple[bool, int]:
    return (True, id(size)) if isinstance(size, torch.SymInt) else (False, size)


def _outermost_if_dense(steps: list[_Step]) -> _Step | None:
    """The dimension of the largest stride, if the elements lie without gaps."""
    left, expected, outermost = list(steps), 1, None
    while left:
        place = next((place for place, (_, stride) in enumerate(left) if _expression(stride) == expected), None)
        if place is None:
            return None
        outermost = left.pop(place)  # to look for it again would be to guard on its size
        expected = expected * _expression(outermost[0])
    return outermost


def _expression(size: int | torch.SymInt) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else size
