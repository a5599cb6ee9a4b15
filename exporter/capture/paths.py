"""Key paths: how one leaf of the arguments is reached, as a source, as a place in a message, as a name."""

from __future__ import annotations

import re
from typing import Any

from exporter.capture.artifacts import KeyPath
from exporter.torch_internals import AttrSource, GetItemSource, Source, pytree
from schema.errors import Loc


def key_of(entry: Any) -> Any:
    """Return the plain key of a pytree entry: an index, a mapping's key or an attribute's name."""
    match entry:
        case pytree.SequenceKey():
            return entry.idx
        case pytree.MappingKey():
            return entry.key
        case pytree.GetAttrKey():
            return entry.name
        case _:
            return entry


def source_of(parent: Source, entry: Any) -> Source:
    """Return the source of a child; its text decides how the child's symbols are called."""
    if isinstance(entry, pytree.GetAttrKey):
        return AttrSource(parent, entry.name)
    return GetItemSource(parent, key_of(entry))


def loc_of(path: KeyPath, *more: str | int) -> Loc:
    """Return the place of a leaf for an error."""
    keys = [key_of(entry) for entry in path]
    return (*(key if isinstance(key, int) else str(key) for key in keys), *more)


def identifier_of(path: KeyPath) -> str:
    """Return the name that the placeholder of a leaf asks for: ``batch_images_0``."""
    return "_".join(_word(entry) for entry in path)


def _word(entry: Any) -> str:
    word = re.sub(r"[^a-zA-Z0-9]", "_", str(entry.key)) if isinstance(entry, pytree.MappingKey) else str(key_of(entry))
    return word.lower()
