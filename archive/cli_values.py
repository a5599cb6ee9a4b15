"""Tensors for the command line: made from what it says, described, and saved. Uses torch, so import it late."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from archive.input_specs import Plain, StoredTensor, TensorSpec
from archive.text import tensor_text
from schema.errors import AccessError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from archive.input_specs import InputSpec

_FEW: Final = 6
_SMALL: Final = 1000
"""The largest tensor, in elements, of which JSON output holds the values."""


def make_inputs(specs: Iterable[InputSpec], sizes: Mapping[str, int], device: str | None = None) -> dict[str, Any]:
    """The values that inputs are written for, the same ones every time.

    Args:
        specs: What is written.
        sizes: A size for each dimension that is written as a name.
        device: Where to put tensors.

    Raises:
        UsageError: A dimension has no size, or a tensor is not in its file.
        AccessError: A file cannot be read.
    """
    generator = torch.Generator().manual_seed(0)
    values = {spec.name: _make(spec, sizes, generator) for spec in specs}
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def _make(spec: InputSpec, sizes: Mapping[str, int], generator: torch.Generator) -> Any:
    match spec.source:
        case Plain(value):
            return value
        case StoredTensor(path, key):
            return _stored(path, key)
        case TensorSpec(dtype, dims, fill):
            shape = [_size(spec.name, dim, sizes) for dim in dims]
            return _fill(shape, getattr(torch, dtype), fill, generator)


def _size(name: str, dim: int | str, sizes: Mapping[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    if dim not in sizes:
        raise UsageError(f"input {name}: dimension {dim!r} has no size here", remedy="write a number in its place")
    return sizes[dim]


def _fill(shape: list[int], dtype: torch.dtype, fill: str, generator: torch.Generator) -> torch.Tensor:
    try:
        if fill != "rand":
            return torch.full(shape, fill == "ones", dtype=dtype)
        numbers = torch.rand(shape, generator=generator)
    except RuntimeError as error:
        raise UsageError(f"cannot make a tensor of {shape}: {str(error).splitlines()[0]}") from error
    # Of integers and truths, zeros and ones.
    return (numbers if dtype.is_floating_point or dtype.is_complex else numbers.round()).to(dtype)


def _stored(path: str, key: str) -> torch.Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(key)  # type: ignore[no-any-return]
    except OSError as error:
        raise AccessError(f"cannot read {path}: {error.strerror or error}", remedy="check the path") from error
    except SafetensorError as error:
        raise UsageError(f"cannot take {key!r} from {path}: {error}", remedy="check the key") from error


def output_row(name: str, value: Any) -> tuple[str, str, str]:
    """Name, type and first values of an output."""
    if not isinstance(value, torch.Tensor):
        return name, type(value).__name__, repr(value)
    few = value.detach().flatten()[:_FEW].tolist()
    numbers = ", ".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in few)
    more = ", …" if value.numel() > _FEW else ""
    return name, tensor_text(_dtype(value), value.shape), f"{numbers}{more}"


def output_json(name: str, value: Any) -> dict[str, Any]:
    """An output as plain values; those of a large tensor are left out."""
    if not isinstance(value, torch.Tensor):
        plain = value if isinstance(value, (bool, int, float, str)) or value is None else repr(value)
        return {"name": name, "kind": type(value).__name__, "value": plain}
    described = {"name": name, "kind": "tensor", "dtype": _dtype(value), "shape": list(value.shape)}
    if value.numel() <= _SMALL:
        real = torch.view_as_real(value) if value.is_complex() else value
        described["values"] = real.detach().tolist()
    return described


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def save_outputs(path: Path, outputs: Iterable[tuple[str, Any]]) -> int:
    """Save the tensors among some outputs as a safetensors file.

    Returns:
        How many there were.

    Raises:
        AccessError: The file cannot be written.
    """
    from safetensors.torch import save

    # Clones: safetensors refuses tensors that share memory.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in outputs
        if isinstance(value, torch.Tensor)
    }
    try:
        path.write_bytes(save(tensors, {"format": "pt"}))
    except OSError as error:
        raise AccessError(f"cannot write {path}: {error.strerror}", remedy="choose another --save") from error
    return len(tensors)
