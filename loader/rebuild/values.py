"""What is known of values before the program runs: fake tensors, symbolic numbers, constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.export.graph_signature import CustomObjArgument

from loader.rebuild.composites import build_subclass
from loader.rebuild.contexts import ContextBuilder
from loader.rebuild.fakes import FAKES, Maker
from loader.rebuild.literals import check_gradient, torch_constant
from loader.rebuild.symbols import SymbolBuilder
from loader.rebuild.tables import Tables
from loader.tensor_classes import TensorClasses
from loader.torch_internals import fake_sparse
from schema import graph as documents
from schema.errors import FormatError, Loc
from schema.literals import DType, Layout


class ValueBuilder:
    """Builds values of rows of one table. Tensors are made anew each time, since no two nodes share one.

    Args:
        tables: The tables of the program, whose places have been checked.
        contexts: Builds contexts of wrapper tensors, and devices.
        symbols: Builds symbolic numbers.
        mode: The mode of fake tensors.
        classes: Finds classes of wrapper tensors.
        inputs: The script objects among the inputs of graphs, by name of the placeholder.

    Attributes:
        makers: For each row, a function that makes its value.

    Raises:
        FormatError: A row is not valid.
    """

    makers: list[Callable[[], Any]]

    def __init__(
        self,
        tables: Tables,
        contexts: ContextBuilder,
        symbols: SymbolBuilder,
        mode: Any,
        classes: TensorClasses,
        inputs: Mapping[str, CustomObjArgument],
    ) -> None:
        self._rows = tables.document.values
        self._arguments = tables.arguments
        self._contexts = contexts
        self._symbols = symbols
        self._mode = mode
        self._fakes = FAKES(mode)
        self._classes = classes
        self._inputs = inputs
        self.makers = []
        for place, row in enumerate(self._rows):
            self.makers.append(_MAKERS[type(row)](self, row, ("graph", "values", place)))

    def _constant(self, row: documents.LiteralValue, _loc: Loc) -> Callable[[], Any]:
        value = self._arguments[row.literal]
        return lambda: value

    def _number(self, row: documents.Symbolic, loc: Loc) -> Callable[[], Any]:
        number = self._symbols.number(row, loc)
        return lambda: number

    def _list(self, row: documents.ListValue, _loc: Loc) -> Callable[[], Any]:
        parts = [self.makers[item] for item in row.items]
        return lambda: [make() for make in parts]

    def _tuple(self, row: documents.TupleValue, _loc: Loc) -> Callable[[], Any]:
        parts = [self.makers[item] for item in row.items]
        return lambda: tuple([make() for make in parts])

    def _tensor(self, row: documents.TensorValue, loc: Loc) -> Maker:
        dtype = torch_constant(DType(row.dtype), loc)
        if row.layout != "strided":
            raise FormatError(f"a tensor of layout {row.layout[:80]!r}", loc=loc)
        if row.requires_grad:
            check_gradient(dtype, loc)
        shape, strides, device = self._sizes(row.shape, loc), self._sizes(row.strides, loc), row.device
        try:
            return self._fakes.maker(shape, strides, dtype, self._contexts.device(device), row.requires_grad)
        except _REFUSALS as error:
            raise FormatError(f"not a valid tensor value: {error}", loc=loc) from error

    def _sparse(self, row: documents.SparseValue, loc: Loc) -> Maker:
        dtype, indices = (torch_constant(DType(name), loc) for name in (row.dtype, row.indices))
        layout = torch_constant(Layout(row.layout), loc)

        def make() -> torch.Tensor:
            kind = {"layout": layout, "dtype": dtype, "device": self._contexts.device(row.device)}
            made = fake_sparse(self._mode, row.shape, row.dense, row.block, indices, row.coalesced, **kind)
            return made.requires_grad_(row.requires_grad)  # type: ignore[no-any-return]

        try:
            make()
        except _REFUSALS as error:
            raise FormatError(f"not a valid sparse value: {error}", loc=loc) from error
        return make

    def _subclass(self, row: documents.SubclassValue, loc: Loc) -> Maker:
        outer = self._rows[row.outer]
        assert isinstance(outer, documents.TensorValue)  # has been checked
        kind = self._classes.resolve(row.module, row.qualname, loc)
        context = self._contexts.build(row.context, loc)
        shape, strides, grad = self._sizes(outer.shape, loc), self._sizes(outer.strides, loc), outer.requires_grad

        def make() -> torch.Tensor:
            parts = {name: self.makers[part]() for name, part in zip(row.attributes, row.parts, strict=True)}
            made = build_subclass(kind, parts, context, shape, strides, loc)
            return made.requires_grad_(grad)

        return make

    def _object(self, row: documents.ObjectValue, _loc: Loc) -> Callable[[], Any]:
        argument = self._inputs[row.name]
        return lambda: replace(argument)  # torch changes the names of some

    def _sizes(self, sizes: list[documents.Size], loc: Loc) -> list[Any]:
        if any(size < 0 for size in sizes if not isinstance(size, documents.Symbolic)):
            raise FormatError("a size or stride below zero", loc=loc)
        return [self._symbols.number(size, loc) if isinstance(size, documents.Symbolic) else size for size in sizes]


_REFUSALS = (RuntimeError, TypeError, ValueError, OverflowError, IndexError)
"""What torch raises of a tensor that cannot be."""

_MAKERS: dict[type, Callable[[ValueBuilder, Any, Loc], Callable[[], Any]]] = {
    documents.LiteralValue: ValueBuilder._constant,
    documents.Symbolic: ValueBuilder._number,
    documents.ListValue: ValueBuilder._list,
    documents.TupleValue: ValueBuilder._tuple,
    documents.TensorValue: ValueBuilder._tensor,
    documents.SparseValue: ValueBuilder._sparse,
    documents.SubclassValue: ValueBuilder._subclass,
    documents.ObjectValue: ValueBuilder._object,
}
