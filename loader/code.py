"""The program's graph as a Python function, written from its tables.

Nothing that a file says stands in the code but whole numbers: results are called after the places of their nodes, and
operators, literals and keyword arguments are handed to the code by place. What it calls has come through the operator
list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from loader.rebuild.tables import Tables
from schema.errors import FormatError
from schema.graph import Container, DictOf, ListOf, SliceOf, TupleOf, node_rows

_WRITTEN = frozenset({int, bool, type(None)})
"""Types of literals that are written into the code, instead of handed to it."""


class Code:
    """The program's graph, compiled.

    Args:
        tables: The tables of the program.
        root: The module whose attributes the graph reads.

    Attributes:
        source: The code.
        run: The graph as a function of its inputs, in the order of its placeholders.

    Raises:
        FormatError: A node uses what does not stand before it.
    """

    source: str
    run: Callable[..., Any]

    def __init__(self, tables: Tables, root: torch.nn.Module) -> None:
        self._parts = tables, root
        writer = _Writer(tables, root)
        self.source = "\n".join(writer.lines())
        exec(compile(self.source, "<program>", "exec"), writer.names)
        self.run = writer.names["run"]

    def __reduce__(self) -> tuple[Any, ...]:
        return Code, self._parts


class _Writer:
    """Writes the code of the program's own graph.

    Attributes:
        names: What the code calls by name.
    """

    def __init__(self, tables: Tables, root: torch.nn.Module) -> None:
        self._tables = tables
        self._columns = tables.document.graphs[0]
        self._root = root
        self._last_use: dict[int, int] = {}
        self._literals = [
            repr(value) if type(value) in _WRITTEN else f"c{place}" for place, value in enumerate(tables.arguments)
        ]
        self.names: dict[str, Any] = {
            **{f"f{place}": target for place, target in enumerate(tables.targets)},
            **{f"c{place}": value for place, value in enumerate(tables.arguments)},
            **{f"k{place}": dict(value) for place, value in tables.keywords.items()},
            **{f"n{place}": row.names for place, row in enumerate(tables.document.keywords)},
        }

    def lines(self) -> Iterator[str]:
        """The code."""
        statements = [
            self._statement(place, target, operands, keywords)
            for place, (_, target, operands, keywords) in enumerate(node_rows(self._columns))
        ]
        kinds = [self._tables.targets[target] for target in self._columns.targets]
        yield f"def run({', '.join(f'v{place}' for place, kind in enumerate(kinds) if kind == 'placeholder')}):"
        done: dict[int, list[int]] = {}
        for place, last in self._last_use.items():
            done.setdefault(last, []).append(place)
        for place, statement in enumerate(statements):
            if kinds[place] == "placeholder":
                continue
            is_used = place in self._last_use and kinds[place] != "output"
            yield f" v{place} = {statement}" if is_used else f" {statement}"
            if place in done and kinds[place] != "output":
                # What is not needed any more is let go of, as by the code that torch generates.
                yield f" del {', '.join(f'v{each}' for each in done[place])}"

    def _statement(self, place: int, target: int, operands: list[int], keywords: int) -> str:
        """What stands on the right of a node's name."""
        kind = self._tables.targets[target]
        args = self._operands(operands, place)
        if not isinstance(kind, str):
            return f"f{target}({', '.join([*args, *self._keyword_arguments(keywords, place)])})"
        if kind == "get_attr":
            self.names[f"a{place}"] = getattr(self._root, str(self._tables.arguments[operands[0]]))
            return f"a{place}"
        return f"return {args[0]}" if kind == "output" else ""

    def _keyword_arguments(self, keywords: int, place: int) -> list[str]:
        row = self._tables.document.keywords[keywords]
        if keywords in self._tables.keywords:
            return [f"**k{keywords}"] if row.names else []
        return [f"**dict(zip(n{keywords}, ({', '.join(self._operands(row.operands, place))},)))"]

    def _operands(self, operands: Sequence[int], place: int) -> list[str]:
        return [self._operand(each, place) for each in operands]

    def _operand(self, operand: int, place: int) -> str:
        if operand < 0:
            if operand < -place:
                loc = ("graph", self._columns.names[place][:80])
                raise FormatError("an argument that no node before it gives", loc=loc)
            self._last_use[place + operand] = place
            return f"v{place + operand}"
        row = self._tables.containers.get(operand)
        return self._literals[operand] if row is None else self._container(row, place)

    def _container(self, row: Container, place: int) -> str:
        match row:
            case ListOf(items):
                return f"[{', '.join(self._operands(items, place))}]"
            case TupleOf(items):
                return f"({''.join(f'{each}, ' for each in self._operands(items, place))})"
            case SliceOf(parts):
                return f"slice({', '.join(self._operands(parts, place))})"
            case DictOf(keys, values):
                pairs = zip(self._operands(keys, place), self._operands(values, place), strict=True)
                return "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
