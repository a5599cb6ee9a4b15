"""torch's words for sizes, put into the user's: names of dims, paths of arguments, lines of code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from exporter.capture.artifacts import KeyPath, Symbolic
from exporter.torch_internals import DimHint, int_oo

Words = dict[str, str]
"""What the user calls each symbol."""

_SYMBOL = re.compile(r"\b[a-z]+\d+\b")
_SOURCE = re.compile(r"L\['(\w+)'\]")


def dim_in_words(dim: Any) -> str:
    """The specification of a dimension as the user writes it: ``Dim('n', max=8)``, ``Dim.AUTO(min=2)``, ``2*n``."""
    if isinstance(dim, DimHint):
        return _called(f"Dim.{dim.type.name}", min=dim.min, max=dim.max)
    if type(dim) is torch.export.Dim:
        return _called("Dim", repr(dim.__name__), min=dim.min or None, max=None if dim.max == int_oo else dim.max)
    return repr(dim)


def _called(name: str, *args: str, **bounds: int | None) -> str:
    given = [*args, *(f"{key}={value}" for key, value in bounds.items() if value is not None)]
    return f"{name}({', '.join(given)})" if given else name


def words_of(symbolic: Symbolic | None) -> Words:
    """What the user calls the symbols of the inputs: the name of a ``Dim``, or ``x.shape[0]``."""
    if symbolic is None:
        return {}
    words: Words = {}
    for symbol, dim, place in _sizes(symbolic):
        name = getattr(dim, "__name__", "")
        words.setdefault(symbol, name if name.isidentifier() else place)
    return words


def locals_in_words(variables: Mapping[str, Any]) -> Words:
    """What the user's variables call the symbols that they hold."""
    words: Words = {}
    for name, value in variables.items():
        if isinstance(value, torch.SymInt | torch.SymFloat):
            words[str(value.node.expr)] = name
        elif isinstance(value, torch.Tensor):
            for index, symbol in _symbols(value):
                words.setdefault(symbol, f"{name}.shape[{index}]")
    return words


def in_words(text: str, words: Words) -> str:
    """A text of torch's with the user's names for symbols."""
    return _SYMBOL.sub(lambda found: words.get(found[0], found[0]), text)


def has_unnamed(text: str, words: Words) -> bool:
    """Whether a text of torch's speaks of a symbol that the user has no name for."""
    return any(symbol not in words for symbol in _SYMBOL.findall(text))


def sources_in_words(text: str) -> str:
    """A text of torch's with ``x.shape[0]`` for ``L['x'].size()[0]``."""
    return _SOURCE.sub(r"\1", text).replace(".size()[", ".shape[")


def dimension_in_words(name: str, symbolic: Symbolic | None) -> str:
    """A dimension as torch calls it in a message: by its ``Dim``, then with its places in the inputs, or by its source.

    Args:
        name: ``batch`` or ``L['x'].size()[0]``.
        symbolic: The inputs.
    """
    sizes = _sizes(symbolic) if symbolic is not None else iter(())
    places = [place for _, dim, place in sizes if getattr(dim, "__name__", None) == name]
    return f"{name} ({', '.join(places)})" if places else sources_in_words(name)


def symbols_of(name: str, symbolic: Symbolic) -> list[str]:
    """The symbols of a dimension as torch calls it in a message."""
    place = sources_in_words(name)
    return [symbol for symbol, dim, own in _sizes(symbolic) if own == place or getattr(dim, "__name__", None) == name]


def _sizes(symbolic: Symbolic) -> Iterator[tuple[str, Any, str]]:
    """Symbol, specification and place of each size and number in the inputs that was to vary."""
    for leaf, fake in zip(symbolic.bound.leaves, symbolic.fakes, strict=True):
        if isinstance(fake, torch.Tensor):
            for index, symbol in _symbols(fake):
                yield symbol, leaf.dims[index], f"{_path(leaf.path)}.shape[{index}]"
        elif isinstance(fake, torch.SymInt):
            yield str(fake.node._expr), None, _path(leaf.path)


def _symbols(tensor: torch.Tensor) -> Iterator[tuple[int, str]]:
    """Symbols of a tensor's sizes, as they were before any was found to be fixed."""
    sizes: tuple[Any, ...] = tuple(tensor.shape)
    return ((index, str(size.node._expr)) for index, size in enumerate(sizes) if isinstance(size, torch.SymInt))


def _path(path: KeyPath) -> str:
    return "".join(map(str, path))
