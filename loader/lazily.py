"""Attributes that are made when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class lazily(Generic[Value]):  # noqa: N801 - used like a function
    """An attribute that a method makes on first use, for objects that one thread has.

    That of :mod:`functools` takes a lock up to Python 3.11, for all objects of a class: a child process that is forked
    while another thread makes an attribute would wait for it for ever.

    Args:
        make: The method.
    """

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __get__(self, owner: Any, _kind: type | None = None) -> Value:
        # The attribute of the object hides this one from now on.
        value = vars(owner)[self._make.__name__] = self._make(owner)
        return value
