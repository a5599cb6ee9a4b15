"""Inputs and dynamic dimensions as they are written on the command line. Pure data, without torch.

--input x=f32[batch,3,224,224]     a tensor of random numbers; integers are ones, truths are false
--input x=i64[1,16]=zeros          filled with zeros, ones or rand
--input x=@file.safetensors:key    a tensor from a file
--input n=3  --input scale=0.5  --input flag=true  --input mode='"fast"'  --input mask=none
--dynamic batch=1..64              a dimension, by name; either end may be left out
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from schema.dtypes import SHORT_NAMES
from schema.errors import UsageError
from schema.names import is_identifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FILLS: Final = ("zeros", "ones", "rand")

_TENSOR: Final = re.compile(r"(?P<dtype>\w+)\[(?P<dims>[^\[\]]*)\](?:=(?P<fill>\w+))?")
_RANGE: Final = re.compile(r"([0-9]{0,18})\.\.([0-9]{0,18})")
_WORDS: Final = {"true": True, "false": False, "none": None}
_INPUT_FORM: Final = "write NAME=f32[2,3], NAME=3, NAME=true, NAME='\"text\"' or NAME=@FILE.safetensors:KEY"
_DYNAMIC_FORM: Final = "write NAME, NAME=1..64, NAME=..64 or NAME=2.."
_LEAST: Final = 2
"""The smallest size to capture with: torch takes 0 and 1 for fixed."""


class TensorSpec(NamedTuple):
    """A tensor to be made.

    Attributes:
        dtype: torch's name of the element type.
        dims: Its sizes; a name where a size is a dynamic dimension's.
        fill: One of :data:`FILLS`.
    """

    dtype: str
    dims: tuple[int | str, ...]
    fill: str


class StoredTensor(NamedTuple):
    """A tensor in a safetensors file, by its key."""

    path: str
    key: str


class Plain(NamedTuple):
    """A value that is no tensor."""

    value: bool | int | float | str | None


class InputSpec(NamedTuple):
    """An input, by the name of its argument."""

    name: str
    source: TensorSpec | StoredTensor | Plain


class DynamicDim(NamedTuple):
    """A dimension whose size may vary, from ``lower`` to ``upper``; None where there is no bound."""

    name: str
    lower: int | None
    upper: int | None


def parse_input(text: str) -> InputSpec:
    """An ``--input``.

    Raises:
        UsageError: It is not written as one.
    """
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not is_identifier(name):
        raise UsageError(f"--input {text!r} does not begin with a name and `=`", remedy=_INPUT_FORM)
    if value.startswith("@"):
        return InputSpec(name, _stored(text, value[1:]))
    if match := _TENSOR.fullmatch(value):
        return InputSpec(name, _tensor(text, match))
    return InputSpec(name, _plain(text, value))


def parse_dynamic(text: str) -> DynamicDim:
    """A ``--dynamic``.

    Raises:
        UsageError: It is not written as one.
    """
    name, equals, value = text.partition("=")
    match = _RANGE.fullmatch(value.strip() if equals else "..")
    if not is_identifier(name.strip()) or not match:
        raise UsageError(f"--dynamic {text!r} is not a name with a range", remedy=_DYNAMIC_FORM)
    lower, upper = (int(end) if end else None for end in match.groups())
    if upper is not None and upper < (lower or 0):
        raise UsageError(f"--dynamic {text!r} ends before it begins", remedy=_DYNAMIC_FORM)
    if upper is not None and upper == (lower or 0):
        raise UsageError(f"--dynamic {text!r} leaves only one size", remedy=f"write {upper} in the input itself")
    if upper is not None and upper < _LEAST:
        raise UsageError(f"--dynamic {text!r} has no size of {_LEAST} or more to capture with", remedy=_DYNAMIC_FORM)
    return DynamicDim(name.strip(), lower, upper)


def parse_inputs(texts: Iterable[str]) -> list[InputSpec]:
    """Several ``--input``, each of which names another argument.

    Raises:
        UsageError: One is not written well, or given twice.
    """
    specs = [parse_input(text) for text in texts]
    _once("--input", [spec.name for spec in specs])
    return specs


def parse_all(inputs: Iterable[str], dynamic: Iterable[str]) -> tuple[list[InputSpec], dict[str, DynamicDim]]:
    """Inputs, and dynamic dimensions by name, that fit together.

    Raises:
        UsageError: One is not written well or given twice, an input names a dimension that is not dynamic, or a
            dynamic dimension is in no input.
    """
    specs = parse_inputs(inputs)
    dims = [parse_dynamic(text) for text in dynamic]
    _once("--dynamic", [dim.name for dim in dims])
    used = _named_dims(specs)
    by_name = {dim.name: dim for dim in dims}
    for name in used:
        if name not in by_name:
            remedy = f"say `--dynamic {name}=1..64`, or write a number in its place"
            raise UsageError(f"dimension {name!r} has no size", remedy=remedy)
    for name in by_name:
        if name not in used:
            raise UsageError(f"--dynamic {name}: no input has this dimension", remedy=f"write x=f32[{name},3]")
    return specs, by_name


def example_sizes(specs: Iterable[InputSpec], dims: Mapping[str, DynamicDim]) -> dict[str, int]:
    """A size for each dynamic dimension, to capture with.

    Sizes are at least 2 and differ from each other and from the fixed sizes where the ranges allow it: a program
    that was captured with equal sizes, or with 1, could take them for the same, or for fixed.
    """
    taken = {size for spec in specs if isinstance(spec.source, TensorSpec) for size in spec.source.dims}
    sizes: dict[str, int] = {}
    for name, dim in dims.items():
        lower = max(dim.lower or 0, _LEAST)
        upper = lower + len(dims) + len(taken) if dim.upper is None else dim.upper
        sizes[name] = next((size for size in range(lower, upper + 1) if size not in taken), lower)
        taken.add(sizes[name])
    return sizes


def _named_dims(specs: Iterable[InputSpec]) -> list[str]:
    dims = [dim for spec in specs if isinstance(spec.source, TensorSpec) for dim in spec.source.dims]
    return list(dict.fromkeys(dim for dim in dims if isinstance(dim, str)))


def _once(option: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{option} {name} is given twice", remedy="give it once")


def _stored(text: str, value: str) -> StoredTensor:
    path, colon, key = value.rpartition(":")
    if not (colon and path and key):
        raise UsageError(f"--input {text!r} does not name a tensor", remedy="write NAME=@FILE.safetensors:KEY")
    return StoredTensor(path, key)


def _tensor(text: str, match: re.Match[str]) -> TensorSpec:
    dtype, dims, fill = match["dtype"], match["dims"].strip(), match["fill"]
    if dtype not in SHORT_NAMES:
        raise UsageError(f"--input {text!r}: unknown dtype {dtype!r}", remedy=f"use {', '.join(SHORT_NAMES)}")
    if fill is not None and fill not in FILLS:
        raise UsageError(f"--input {text!r}: unknown fill {fill!r}", remedy=f"use {', '.join(FILLS)}")
    sizes = tuple(_dim(text, dim.strip()) for dim in dims.split(",")) if dims else ()
    return TensorSpec(SHORT_NAMES[dtype], sizes, fill or _default_fill(dtype))


def _default_fill(dtype: str) -> str:
    """Ones for integers, which as indexes are valid in most tables; False for truths."""
    if dtype[0] in "iu":
        return "ones"
    return "zeros" if dtype == "bool" else "rand"


def _dim(text: str, dim: str) -> int | str:
    if re.fullmatch("[0-9]{1,18}", dim):
        return int(dim)
    if is_identifier(dim):
        return dim
    raise UsageError(f"--input {text!r}: {dim!r} is no size", remedy="write a number, or the name of a dimension")


def _plain(text: str, value: str) -> Plain:
    if value.lower() in _WORDS:
        return Plain(_WORDS[value.lower()])
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return Plain(value[1:-1])
    for number in (int, float):
        try:
            return Plain(number(value))
        except ValueError:
            continue
    raise UsageError(f"--input {text!r} is not understood", remedy=_INPUT_FORM)
