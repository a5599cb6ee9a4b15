"""What is known of values before the program runs: fake tensors, symbolic numbers, constants."""

from __future__ import annotations

from typing import Any

from loader.rebuild.composites import build_subclass
from loader.rebuild.literals import LiteralBuilder, torch_constant
from loader.rebuild.symbols import SymbolBuilder
from loader.tensor_classes import TensorClasses
from loader.torch_internals import fake_sparse, fake_tensor
from schema import graph as documents
from schema.errors import FormatError, Loc
from schema.literals import DType, Layout


class ValueBuilder:
    """Builds values of rows of one table. Tensors are made anew each time, since no two nodes share one.

    Args:
        rows: The table of values.
        literals: The values of the table of literals.
        builder: Builds what a tensor's row names.
        symbols: Builds symbolic numbers.
        mode: The mode of fake tensors.
        classes: Finds classes of wrapper tensors.
    """

    def __init__(
        self,
        rows: list[documents.Value],
        literals: list[Any],
        builder: LiteralBuilder,
        symbols: SymbolBuilder,
        mode: Any,
        classes: TensorClasses,
    ) -> None:
        self._rows = rows
        self._literals = literals
        self._builder = builder
        self._symbols = symbols
        self._mode = mode
        self._classes = classes

    def build(self, index: int, loc: Loc) -> Any:
        """The value at a place of the table.

        Raises:
            FormatError: The row, or one that it refers to, is not there or not valid.
        """
        if not 0 <= index < len(self._rows):
            raise FormatError(f"no value {index}", loc=loc)
        match self._rows[index]:
            case documents.TensorValue() as row:
                return self._tensor(row, loc)
            case documents.SparseValue() as row:
                return self._sparse(row, loc)
            case documents.SubclassValue() as row:
                return self._subclass(row, loc)
            case documents.Symbolic() as row:
                return self._symbols.number(row, loc)
            case documents.LiteralValue(literal):
                return self._literals[literal]
            case documents.ListValue(items):
                return [self.build(item, loc) for item in items]
            case documents.TupleValue(items):
                return tuple(self.build(item, loc) for item in items)

    def _tensor(self, row: documents.TensorValue, loc: Loc) -> Any:
        shape = [self._size(size, loc) for size in row.shape]
        strides = [self._size(stride, loc) for stride in row.strides]
        dtype = torch_constant(DType(row.dtype), loc)
        if row.layout != "strided":
            raise FormatError(f"a tensor of layout {row.layout[:80]!r}", loc=loc)
        try:
            device = self._builder.device(row.device)
            return fake_tensor(self._mode, shape, strides, dtype, device, row.requires_grad)
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"not a valid tensor value: {error}", loc=loc) from error

    def _sparse(self, row: documents.SparseValue, loc: Loc) -> Any:
        dtype, indices = (torch_constant(DType(name), loc) for name in (row.dtype, row.indices))
        layout = torch_constant(Layout(row.layout), loc)
        try:
            device = self._builder.device(row.device)
            kind = {"layout": layout, "dtype": dtype, "device": device}
            made = fake_sparse(self._mode, row.shape, row.dense, row.block, indices, row.coalesced, **kind)
            return made.requires_grad_(row.requires_grad)
        except (RuntimeError, TypeError, ValueError, OverflowError, IndexError) as error:
            raise FormatError(f"not a valid sparse value: {error}", loc=loc) from error

    def _subclass(self, row: documents.SubclassValue, loc: Loc) -> Any:
        outer = self._rows[row.outer]
        assert isinstance(outer, documents.TensorValue)  # has been checked
        kind = self._classes.resolve(row.module, row.qualname, loc)
        parts = {name: self.build(part, loc) for name, part in zip(row.attributes, row.parts, strict=True)}
        shape, strides = ([self._size(size, loc) for size in sizes] for sizes in (outer.shape, outer.strides))
        made = build_subclass(kind, parts, self._literals[row.context], shape, strides, loc)
        return made.requires_grad_(outer.requires_grad)

    def _size(self, size: documents.Size, loc: Loc) -> Any:
        return self._symbols.number(size, loc) if isinstance(size, documents.Symbolic) else size
