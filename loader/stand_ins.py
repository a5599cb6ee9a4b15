"""Stand-ins for container classes that this process does not know.

A program may return, say, the output class of a library that is not installed where the program runs. Its values then
come back as a stand-in: fields by attribute, by key and by index, iteration and ``repr`` as the original has them.
"""

from __future__ import annotations

import copyreg
from collections import namedtuple
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from loader.torch_internals import find_registered, forget_registered_name, pytree
from schema.calls import DESCRIPTION, TreeType
from schema.names import is_identifier


class _StandInType(type):
    """The type of stand-in classes, which can be pickled although no module has them."""


class StandIn(metaclass=_StandInType):
    """A value of a class that is not known here. Subclasses stand for one class each.

    Fields that the value does not have, though its class does, are None as attributes and absent otherwise.
    """

    __archive_type__: ClassVar[TreeType]
    _items: dict[str, Any]
    _context: Any

    def __init__(self, values: Iterable[Any], context: Any) -> None:
        items = list(values)
        vars(self)["_context"] = context
        vars(self)["_items"] = dict(zip(field_names(context, len(items)), items, strict=True))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):  # which Python and torch look for in every object
            if name in (items := vars(self).get("_items", {})):  # one that is being copied has none yet
                return items[name]
            if name in type(self).__archive_type__.fields:
                return None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self._items[name] = value

    def __getitem__(self, key: Any) -> Any:
        return self._items[key] if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._items[key] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self).__archive_type__, list(self._items.values()), self._context)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items if type(self).__archive_type__.kind == "mapping" else self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: Any) -> bool:
        return item in list(self)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._items == self._items

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._items.items())})"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._items, *type(self).__archive_type__.fields})

    def keys(self) -> Iterable[str]:
        """Names of the fields that are there."""
        return self._items.keys()

    def values(self) -> Iterable[Any]:
        """The fields that are there."""
        return self._items.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and values of the fields that are there."""
        return self._items.items()

    def get(self, name: str, default: Any = None) -> Any:
        """The field of a name, or a default."""
        return self._items.get(name, default)

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are there, in order."""
        return tuple(self._items.values())


def _restore(kind: TreeType, values: list[Any], context: Any) -> Any:
    """A stand-in that was pickled, in a process that may not have met its class yet."""
    return stand_in(kind)(values, context)


def field_names(context: Any, count: int) -> list[str]:
    """Names of the parts of a value, read from the context its class gave; numbers where it names none.

    Classes keep the names of their parts as a list (mappings), or as a list of the names that are there and one of
    those that are None (dataclasses).
    """
    candidates = [context, context[0]] if isinstance(context, (list, tuple)) and context else [context]
    for names in candidates:
        if isinstance(names, (list, tuple)) and len(names) == count and all(isinstance(name, str) for name in names):
            return list(names)
    return [str(index) for index in range(count)]


def _key_entry(name: str) -> Any:
    return pytree.GetAttrKey(name) if is_identifier(name) else pytree.MappingKey(name)


def stand_in(kind: TreeType) -> type:
    """A class that stands for one that is not known here; the same one for the same description."""
    known = _STAND_INS.get(_key(kind))
    return known or _STAND_INS.setdefault(_key(kind), _make(kind))


_STAND_INS: dict[tuple[Any, ...], type] = {}


def _key(kind: TreeType) -> tuple[Any, ...]:
    return kind.name, kind.kind, tuple(kind.fields), kind.dumped


def _make(kind: TreeType) -> type:
    module, _, name = kind.name.rpartition(".")
    if kind.kind in ("namedtuple", "structseq"):
        fields = namedtuple(name, kind.fields, module=module)  # type: ignore[misc]  # noqa: PYI024
        return _StandInType(name, (fields,), {"__slots__": (), "__module__": module, DESCRIPTION: kind})
    cls = _StandInType(name, (StandIn,), {"__module__": module, "__qualname__": name, DESCRIPTION: kind})
    _register(cls, kind.name)
    return cls


def _register(cls: Any, name: str) -> None:
    free = find_registered(name) is None
    pytree.register_pytree_node(
        cls,
        lambda value: (list(value.values()), value._context),
        cls,
        serialized_type_name=name,
        flatten_with_keys_fn=lambda value: (
            [(_key_entry(key), item) for key, item in value.items()],
            value._context,
        ),
    )
    if free:
        forget_registered_name(name)


def _reduce_class(cls: type) -> Any:
    kind = vars(cls).get(DESCRIPTION)
    return cls.__qualname__ if kind is None else (stand_in, (kind,))


copyreg.pickle(_StandInType, _reduce_class)
