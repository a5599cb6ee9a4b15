"""Weights in files of others: one safetensors file, or shards of one beside an index.

Such files are as little trusted as an archive: headers are checked whole, an index names only files that lie beside it.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from archive.header import without_repeats
from archive.tensor_file import TensorFile, read_file
from schema.codec import learn
from schema.errors import FormatError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from archive.header import Entry

MAX_INDEX_BYTES: Final = 64 * 1024 * 1024
"""The largest index that is read; one of 100,000 tensors takes about a tenth of it."""

_INDEX_SUFFIX: Final = ".json"
_SHARD_SUFFIX: Final = ".safetensors"


class StoredWeight(NamedTuple):
    """A tensor in a file, and where in it."""

    file: TensorFile
    entry: Entry


class _Index(msgspec.Struct):
    """What the model hub writes beside shards; other fields do not concern us."""

    weight_map: dict[str, str]


learn(_Index)


@contextmanager
def open_weights(path: str | os.PathLike[str]) -> Iterator[dict[str, StoredWeight]]:
    """Open the tensors of a safetensors file, or of the shards that an index names, by name.

    Args:
        path: A safetensors file, or the ``.json`` index of its shards.

    Raises:
        AccessError: A file cannot be read.
        FormatError: A file is malformed, or the index names what is not there or does not lie beside it.
    """
    path = Path(path)
    with ExitStack() as stack:
        yield _sharded(path, stack) if path.suffix == _INDEX_SUFFIX else _single(path, stack)


def _single(path: Path, stack: ExitStack) -> dict[str, StoredWeight]:
    file = stack.enter_context(_open(path))
    return {name: StoredWeight(file, entry) for name, entry in file.entries.items()}


def _sharded(path: Path, stack: ExitStack) -> dict[str, StoredWeight]:
    shards: dict[str, TensorFile] = {}
    found = {}
    for name, shard in _read_index(path).items():
        if shard not in shards:
            shards[shard] = stack.enter_context(_open(_beside(path, shard)))
        if name not in shards[shard].entries:
            message = f"{path} says that {shard} holds {name[:80]!r}, which it does not"
            raise FormatError(message, remedy="download both again")
        found[name] = StoredWeight(shards[shard], shards[shard].entries[name])
    return found


def _open(path: Path) -> TensorFile:
    try:
        return TensorFile(path)
    except FormatError as error:
        raise type(error)(f"{path}: {error.message}", loc=error.loc, remedy=error.remedy) from error


def _read_index(path: Path) -> dict[str, str]:
    """File name of the shard of each tensor."""
    data = read_file(path, MAX_INDEX_BYTES)
    try:
        fields = json.loads(str(data, "utf-8"), object_pairs_hook=without_repeats)
        return msgspec.convert(fields, type=_Index).weight_map
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        remedy = "name a *.safetensors.index.json, or a safetensors file"
        raise FormatError(f"{path} is not an index of shards: {error}", remedy=remedy) from error


def _beside(path: Path, shard: str) -> Path:
    """Path of a shard, which is a plain file name: no folder, so that nothing elsewhere can be reached."""
    plain = shard.isprintable() and not set(shard) & set("/\\:") and shard.endswith(_SHARD_SUFFIX)
    if not plain:
        message = f"{path} names the shard {shard[:80]!r}, which is no name of a safetensors file beside it"
        raise FormatError(message, remedy="download the index again")
    return path.parent / shard
