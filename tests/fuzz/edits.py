"""Changes to plain values: lists, dictionaries and what is in them, whatever they mean."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

MOST_BYTES = 256 * 1024
"""A document that has grown larger is left as it was: these are archives of small models."""

ODD: list[Any] = [
    *(0, 1, -1, 2, 3, 7, 64, 65, 255, 2**31, 2**32, 2**40, 2**63 - 1, -(2**63), 2**64 - 1),
    *(
        0.0,
        -0.0,
        0.5,
        1e308,
        math.inf,
        math.nan,
        True,
        False,
        None,
        b"",
        b"\0",
        b"\xff" * 32,
        [],
        {},
        [[]],
        [0],
        [0] * 65,
    ),
    *(
        "",
        "a",
        "self",
        "class",
        "a.b",
        "x=print(1)",
        "a\0b",
        "'",
        '"',
        "é",
        "a" * 1000,
        "__class__",
        "None",
        "builtins",
    ),
    *("aten::add.Tensor", "aten::from_file", "aten::copy_", "aten::empty.memory_format", "output", "placeholder"),
    *("get_attr", "tensor", "float32", "complex128", "cuda:999", "meta", "collections.OrderedDict", "os.system"),
    [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]],
    {"a": {"a": {"a": {}}}},
]
"""Values that are at the end of some range, of another type, or mean something to somebody."""


class Edit(NamedTuple):
    """A change to one of some documents; all numbers are taken modulo how many there are.

    Attributes:
        document: Which document.
        place: Which of its places.
        operation: What to do there.
        value: Which odd value, or which other place.
    """

    document: int
    place: int
    operation: int
    value: int


class Place(NamedTuple):
    """An item of a list or dictionary."""

    holder: Any
    key: Any

    @property
    def value(self) -> Any:
        """What is there."""
        return self.holder[self.key]


def edit(documents: Sequence[Any], change: Edit) -> None:
    """Change a document, in place."""
    document = documents[change.document % len(documents)]
    places = find_places(document)
    if places:
        place = places[change.place % len(places)]
        OPERATIONS[change.operation % len(OPERATIONS)](place, places, change.value)


def find_places(document: Any) -> list[Place]:
    """Every place in a document, outer before inner."""
    places: list[Place] = []
    holders = [document]
    while holders:
        holder = holders.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            places.append(Place(holder, key))
            holders.append(holder[key])
    return places


def _put_odd(place: Place, _: list[Place], value: int) -> None:
    place.holder[place.key] = copy.deepcopy(ODD[value % len(ODD)])


def _put_odd_of_type(place: Place, _: list[Place], value: int) -> None:
    alike = [each for each in ODD if type(each) is type(place.value)] or ODD
    place.holder[place.key] = copy.deepcopy(alike[value % len(alike)])


def _nudge(place: Place, places: list[Place], value: int) -> None:
    if type(place.value) is int:
        place.holder[place.key] = max(-(2**63), min(2**64 - 1, place.value + value % 17 - 8))
    else:
        _swap(place, places, value)


def _copy_other(place: Place, places: list[Place], value: int) -> None:
    place.holder[place.key] = copy.deepcopy(places[value % len(places)].value)


def _copy_alike(place: Place, places: list[Place], value: int) -> None:
    alike = [each for each in places if type(each.value) is type(place.value)]
    place.holder[place.key] = copy.deepcopy(alike[value % len(alike)].value)


def _swap(place: Place, places: list[Place], value: int) -> None:
    other = places[value % len(places)]
    mine, theirs = copy.deepcopy(place.value), copy.deepcopy(other.value)
    place.holder[place.key] = theirs
    other.holder[other.key] = mine


def _remove(place: Place, _: list[Place], value: int) -> None:
    del place.holder[place.key]


def _repeat(place: Place, _: list[Place], value: int) -> None:
    if isinstance(place.holder, list):
        place.holder[place.key : place.key] = [copy.deepcopy(place.value) for _ in range(1 + value % 3)]


def _wrap(place: Place, _: list[Place], value: int) -> None:
    for _ in range(1 + value % 80):
        place.holder[place.key] = [place.value]


OPERATIONS: list[Callable[[Place, list[Place], int], None]] = [
    *(_put_odd, _put_odd_of_type, _nudge, _copy_other, _copy_alike, _swap, _remove, _repeat, _wrap),
]


def encode(document: Any, otherwise: bytes) -> bytes:
    """A document as msgpack, or what it was if it has become too large."""
    try:
        content = msgspec.msgpack.encode(document)
    except (RecursionError, OverflowError, TypeError):
        return otherwise
    return content if len(content) <= MOST_BYTES else otherwise
