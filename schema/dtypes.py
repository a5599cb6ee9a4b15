"""Element types: torch's names for them, and the safetensors dtype that carries each; and sparse layouts.

safetensors has no code for some of torch's types. A *carrier* says how their bytes are stored: as another type of
which ``parts`` elements make one element of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple


class Carrier(NamedTuple):
    """How elements of one type are stored.

    Attributes:
        code: safetensors dtype code.
        parts: How many stored elements make one element; more than one adds a last dimension.
        nbytes: Size in bytes of one element as torch counts it.
    """

    code: str
    parts: int
    nbytes: int


CARRIERS: Final[dict[str, Carrier]] = {
    "bool": Carrier("BOOL", 1, 1),
    "uint8": Carrier("U8", 1, 1),
    "int8": Carrier("I8", 1, 1),
    "uint16": Carrier("U16", 1, 2),
    "int16": Carrier("I16", 1, 2),
    "uint32": Carrier("U32", 1, 4),
    "int32": Carrier("I32", 1, 4),
    "uint64": Carrier("U64", 1, 8),
    "int64": Carrier("I64", 1, 8),
    "float16": Carrier("F16", 1, 2),
    "bfloat16": Carrier("BF16", 1, 2),
    "float32": Carrier("F32", 1, 4),
    "float64": Carrier("F64", 1, 8),
    "float8_e4m3fn": Carrier("F8_E4M3", 1, 1),
    "float8_e5m2": Carrier("F8_E5M2", 1, 1),
    "float8_e8m0fnu": Carrier("F8_E8M0", 1, 1),
    "float8_e4m3fnuz": Carrier("U8", 1, 1),
    "float8_e5m2fnuz": Carrier("U8", 1, 1),
    "float4_e2m1fn_x2": Carrier("U8", 1, 1),
    "complex32": Carrier("F16", 2, 4),
    "bcomplex32": Carrier("BF16", 2, 4),
    "complex64": Carrier("C64", 1, 8),
    "complex128": Carrier("F64", 2, 16),
    **{f"{sign}int{bits}": Carrier("U8", 1, 1) for bits in range(1, 8) for sign in ("", "u")},
    **{name: Carrier("U8", 1, 1) for name in ("bits8", "bits4x2", "bits2x4", "bits1x8")},
    "bits16": Carrier("U16", 1, 2),
}
"""Every element type that an archive can hold, by torch's name without the ``torch.``."""

SPARSE_LAYOUTS: Final[dict[str, tuple[str, ...]]] = {
    "sparse_coo": ("indices", "values"),
    "sparse_csr": ("crow_indices", "col_indices", "values"),
    "sparse_csc": ("ccol_indices", "row_indices", "values"),
    "sparse_bsr": ("crow_indices", "col_indices", "values"),
    "sparse_bsc": ("ccol_indices", "row_indices", "values"),
}
"""The plain tensors that a sparse tensor of each layout is made of."""

INDEX_DTYPES: Final = ("int64", "int32")
"""Element types that the indices of a sparse tensor can have."""

CODE_BYTES: Final[dict[str, int]] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "F8_E8M0": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "C64": 8,
    "F64": 8,
    "I64": 8,
    "U64": 8,
}
"""Size in bytes of one element of each safetensors dtype code that an archive uses; in the library's own order, from
the last in a file to the first."""

SHORT_NAMES: Final[dict[str, str]] = {
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "c64": "complex64",
    "c128": "complex128",
    "bool": "bool",
}
"""The short names that people type, as torch's graph printer writes them."""


def stored_shape(dtype: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape under which a tensor's elements are stored: with a last dimension where its carrier takes several."""
    parts = CARRIERS[dtype].parts
    return (*shape, parts) if parts > 1 else tuple(shape)
