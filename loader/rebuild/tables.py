"""The tables that the graphs of one program share, as Python and torch values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.fx.immutable_collections import immutable_dict

from loader.operators import Operators
from loader.rebuild.flat_calls import build_specs
from loader.rebuild.literals import LiteralBuilder
from loader.tensor_classes import TensorClasses
from schema import graph as documents
from schema.errors import FormatError, Loc
from schema.graph import Container, DictOf, ListOf, SliceOf, TupleOf


class Tables:
    """The tables of one program.

    Args:
        document: The ``graph`` section, whose places have been checked.
        literals: Builds literals.
        operators: Resolves targets.
        classes: Finds classes that graphs call.

    Attributes:
        targets: Callables of nodes, and for nodes that call nothing, their kind.
        arguments: Values of literals; None where the table has a container.
        containers: Rows of containers, by place.
        keywords: Keyword arguments whose operands are all literals, by place.
        specs: Of each graph, the tree specs that it reads, by name.

    Raises:
        FormatError: There is no graph.
        OperatorError: A target is forbidden, not admitted or unknown.
        ClassError: A class that is called is not admitted, or not there.
    """

    def __init__(
        self,
        document: documents.ProgramGraph,
        literals: LiteralBuilder,
        operators: Operators,
        classes: TensorClasses,
    ) -> None:
        if not document.graphs:
            raise FormatError("no graph", loc=("graph",))
        self.document = document
        self._parts = document, literals, operators, classes
        self.targets: list[str | Callable[..., Any]] = [
            target.removeprefix("node::")
            if target.startswith("node::")
            else operators.resolve(target, ("graph", "targets", place), called=True)
            for place, target in enumerate(document.targets)
        ]
        self.containers = {place: row for place, row in enumerate(document.arguments) if isinstance(row, Container)}
        self.arguments = [
            None if isinstance(row, Container) else literals.build(row, ("graph", "arguments", place))
            for place, row in enumerate(document.arguments)
        ]
        self.keywords: dict[int, dict[str, Any]] = {
            place: immutable_dict(zip(row.names, map(self.arguments.__getitem__, row.operands), strict=True))
            for place, row in enumerate(document.keywords)
            if min(row.operands, default=0) >= 0 and self.containers.keys().isdisjoint(row.operands)
        }

        self.specs = build_specs(document, literals, classes)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tables, self._parts  # operators cannot be pickled, but by their names

    def operand(self, operand: int, results: Sequence[Any]) -> Any:
        """The value of an operand.

        Args:
            operand: The operand.
            results: What stands for the results of the nodes so far.

        Raises:
            IndexError: It is the result of a node that is not there.
        """
        if operand < 0:
            return results[operand]
        row = self.containers.get(operand)
        return self.arguments[operand] if row is None else _BUILDERS[type(row)](row, results, self)

    def keyword_arguments(self, place: int, results: Sequence[Any]) -> dict[str, Any]:
        """Keyword arguments, as :meth:`operand` gives each."""
        row = self.document.keywords[place]
        return {name: self.operand(operand, results) for name, operand in zip(row.names, row.operands, strict=True)}


def _operands(operands: Sequence[int], results: Sequence[Any], tables: Tables) -> list[Any]:
    return [tables.operand(each, results) for each in operands]


def _dictionary(row: DictOf, results: Sequence[Any], tables: Tables) -> dict[Any, Any]:
    return dict(zip(_operands(row.keys, results, tables), _operands(row.values, results, tables), strict=True))


_BUILDERS: dict[type, Callable[[Any, Sequence[Any], Tables], Any]] = {
    ListOf: lambda row, results, tables: _operands(row.items, results, tables),
    TupleOf: lambda row, results, tables: tuple(_operands(row.items, results, tables)),
    SliceOf: lambda row, results, tables: slice(*_operands(row.parts, results, tables)),
    DictOf: _dictionary,
}


def at(rows: Sequence[Any], index: int, what: str, loc: Loc) -> Any:
    """A row of a table.

    Raises:
        FormatError: There is none at that place.
    """
    if not 0 <= index < len(rows):
        raise FormatError(f"no {what} {index}", loc=loc)
    return rows[index]
