"""What is known of nodes' values before the program runs: rows of the table of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.export.graph_signature import CustomObjArgument

from exporter.emit.composites import flatten, sparse_parts
from exporter.emit.literals import emit_device, emit_literal, torch_name
from exporter.emit.objects import emit_class_name
from exporter.emit.tables import Table
from exporter.torch_internals import FakeTensor, is_traceable_wrapper_subclass
from schema import graph as documents
from schema.errors import Loc, UnsupportedError

if TYPE_CHECKING:
    from exporter.emit.symbols import SymbolTable

PlaceFake = Callable[[CustomObjArgument], int | None]

_SYMBOLIC: dict[type, str] = {torch.SymInt: "int", torch.SymFloat: "float", torch.SymBool: "bool"}


class ValueEmitter:
    """Collects the values of one program.

    Args:
        symbols: Collects symbols.
        arguments: The table of arguments.
        place_fake: Gives the object whose fake stands for an input a place in the table of objects.
    """

    def __init__(self, symbols: SymbolTable, arguments: Table[documents.Argument], place_fake: PlaceFake) -> None:
        self._symbols = symbols
        self._arguments = arguments
        self._place_fake = place_fake
        self._table: Table[documents.Value] = Table()

    @property
    def rows(self) -> list[documents.Value]:
        """The table of values."""
        return self._table.rows

    def place(self, value: Any, loc: Loc) -> int:
        """The place of a value.

        Raises:
            UnsupportedError: It is of no kind that an archive can hold.
        """
        if type(value) is FakeTensor and value.layout is torch.strided:  # most are
            return self._place_tensor(value)
        if not isinstance(value, torch.Tensor):
            return self._table.place(self._other(value, (*loc, "val")))
        if is_traceable_wrapper_subclass(value):
            return self._table.place(self._subclass(value, (*loc, "val")))
        if value.layout is not torch.strided:
            return self._table.place(self._sparse(value, (*loc, "val")))
        return self._place_tensor(value)

    def _place_tensor(self, value: torch.Tensor) -> int:
        """The place of a strided tensor; one like it is mostly there, and found without making a row."""
        key = (value.dtype, value.device, value.requires_grad, value.shape, value.stride())
        try:
            return self._table.find(key, self._tensor, value)
        except TypeError:  # sizes that vary have no hash: to compare them would be to guard on them
            return self._table.place(self._tensor(value))

    def _other(self, value: Any, loc: Loc) -> documents.Value:
        if type(value) in _SYMBOLIC:
            return self._symbolic(value)
        if isinstance(value, (list, tuple)):
            items = [self.place(item, (*loc, index)) for index, item in enumerate(value)]
            return documents.ListValue(items) if isinstance(value, list) else documents.TupleValue(items)
        if isinstance(value, CustomObjArgument):
            return documents.ObjectValue(value.name, emit_class_name(value.class_fqn, loc), self._place_fake(value))
        return documents.LiteralValue(self._arguments.place(emit_literal(value, loc)))

    def _subclass(self, value: torch.Tensor, loc: Loc) -> documents.SubclassValue:
        flat = flatten(value, loc)
        return documents.SubclassValue(
            module=flat.module,
            qualname=flat.qualname,
            attributes=list(flat.parts),
            parts=[self.place(part, (*loc, name)) for name, part in flat.parts.items()],
            context=flat.context,
            outer=self._table.place(self._tensor(value)),
        )

    def _sparse(self, value: torch.Tensor, loc: Loc) -> documents.SparseValue:
        if any(isinstance(size, torch.SymInt) for size in value.shape):
            message = "a sparse tensor whose sizes vary cannot be stored"
            raise UnsupportedError(message, loc=loc, remedy="capture it without dynamic shapes")
        index, *_, values = sparse_parts(value, loc).values()
        block = 2 if value.layout in (torch.sparse_bsr, torch.sparse_bsc) else 0
        first = values.dim() - value.dense_dim() - block
        return documents.SparseValue(
            layout=torch_name(value.layout),
            dtype=torch_name(value.dtype),
            shape=list(value.shape),
            dense=value.dense_dim(),
            block=list(values.shape[first : first + block]),
            indices=torch_name(index.dtype),
            coalesced=value.layout is torch.sparse_coo and value.is_coalesced(),
            device=emit_device(value.device),
            requires_grad=value.requires_grad,
        )

    def _tensor(self, value: torch.Tensor) -> documents.TensorValue:
        return documents.TensorValue(
            dtype=torch_name(value.dtype),
            shape=[self._size(size) for size in value.shape],
            strides=[self._size(stride) for stride in value.stride()],
            device=emit_device(value.device),
            requires_grad=value.requires_grad,
        )

    def _size(self, size: int | torch.SymInt) -> documents.Size:
        if isinstance(size, torch.SymInt):
            fixed = size.node.expr
            return int(fixed) if fixed.is_Integer else self._symbolic(size)
        return size

    def _symbolic(self, value: torch.SymInt | torch.SymFloat | torch.SymBool) -> documents.Symbolic:
        node = value.node
        constant = None if node.expr.free_symbols else node.expr  # torch may know it without a hint
        hint = node.hint if node.has_hint() else constant
        kind = _SYMBOLIC[type(value)]
        plain = None if hint is None else {"int": int, "float": float, "bool": bool}[kind](hint)
        return documents.Symbolic(kind, self._symbols.expression(node.expr), plain)
