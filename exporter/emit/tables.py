"""Interning: one row for equal things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, TypeVarTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Item = TypeVar("Item")
Parts = TypeVarTuple("Parts")

_ENCODER = msgspec.msgpack.Encoder()


class Table(Generic[Item]):
    """Rows in the order in which they were first placed, each of them once.

    Rows are told apart by their encoding, so ``1``, ``1.0`` and ``True`` are three, and so are ``0.0`` and ``-0.0``.
    """

    def __init__(self) -> None:
        self.rows: list[Item] = []
        self._places: dict[bytes, int] = {}
        self._known: dict[Hashable, int] = {}

    def place(self, row: Item) -> int:
        """The place of a row, which is added if it is new."""
        key = _ENCODER.encode(row)
        place = self._places.setdefault(key, len(self.rows))
        if place == len(self.rows):
            self.rows.append(row)
        return place

    def find(self, key: Hashable, make: Callable[[*Parts], Item], *parts: *Parts) -> int:
        """The place of the row that stands for a key; it is made of its parts when the key is first seen."""
        place = self._known.get(key)
        if place is None:
            place = self._known[key] = self.place(make(*parts))
        return place
