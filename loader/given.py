"""Weights that are given beside a program, from wherever they come, as tensors by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch

from archive.composites import is_composite, made_of
from archive.reading import open_archive
from archive.weight_files import StoredWeight, open_weights
from loader.devices import Devices
from loader.operators import Operators
from loader.parts import Parts, take_apart
from loader.rebuild.contexts import ContextBuilder
from loader.rebuild.literals import DTYPES
from loader.rebuild.tensors import TensorBuilder
from loader.tensor_classes import TensorClasses
from schema.dtypes import CARRIERS
from schema.errors import UsageError
from schema.names import MANIFEST

Weights = str | os.PathLike[str] | Mapping[str, torch.Tensor]
"""A safetensors file or archive, the index of a file's shards, or tensors by name."""

CODE_DTYPES: dict[str, str] = {}
"""torch's name of the element type that each safetensors code stands for."""
for _name, _carrier in CARRIERS.items():
    if _carrier.parts == 1:
        CODE_DTYPES.setdefault(_carrier.code, _name)


class OtherType(NamedTuple):
    """A tensor in a file, of an element type that no program has."""

    code: str


@contextmanager
def given_tensors(weights: Weights | object) -> Iterator[Parts]:
    """The tensors of some weights by name: mapped where they are in files, and taken apart where made of others.

    Raises:
        AccessError: A file cannot be read.
        FormatError: A file is malformed.
        UsageError: The weights are neither a path nor a mapping.
    """
    if isinstance(weights, Mapping):
        yield take_apart(weights)
        return
    if not isinstance(weights, str | os.PathLike):
        message = f"weights are of type {type(weights).__name__}"
        raise UsageError(message, remedy="pass a path, or a mapping of names to tensors")
    with open_weights(weights) as stored:
        if MANIFEST in stored:
            yield Parts(_of_archive(weights), {})
        else:
            yield Parts({name: _mapped(weight) for name, weight in stored.items()}, {})


def _of_archive(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The weights of another archive, views as they are; not those that it leaves out."""
    with open_archive(path) as archive:
        manifest = archive.manifest
        places = {item.key: item.tensor for method in manifest.methods for item in method.state}
        devices, classes = Devices("cpu"), TensorClasses()
        tensors = TensorBuilder(archive, devices, ContextBuilder(devices, Operators(), classes), classes)
        return {
            name: tensors.build(place).detach()
            for key, first in places.items()
            for name, place in made_of(manifest.tensors, key, first)
            if not is_composite(row := manifest.tensors[place]) and not manifest.storages[row.storage].absent
        }


def _mapped(weight: StoredWeight) -> torch.Tensor | OtherType:
    entry = weight.entry
    dtype = DTYPES.get(CODE_DTYPES.get(entry.code, ""))
    if dtype is None:
        return OtherType(entry.code[:20])
    if not entry.nbytes:
        return torch.empty(entry.shape, dtype=dtype)
    content = torch.frombuffer(weight.file.mapping, dtype=torch.uint8, count=entry.nbytes, offset=entry.start)
    aligned = entry.start % dtype.itemsize == 0
    return (content if aligned else content.clone()).view(dtype).view(entry.shape)
