"""The check of a ``graph`` section: columns of one length, places that exist, arguments and values that are bounded.

Columns are judged whole, by their smallest and largest entry, and looked through only to say which node is wrong. That
what a node uses stands before it is seen by whatever follows its operands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from archive.bounds import MAX_DEPTH, MAX_PARTS, MAX_STACK_DEPTH, check_literal, check_place
from archive.class_calls import check_flat_calls, check_methods
from archive.header import MAX_DIMENSIONS
from schema import graph as documents
from schema.dtypes import INDEX_DTYPES, SPARSE_LAYOUTS
from schema.errors import FormatError, Loc
from schema.graph import ABSENT, Container, DictOf, Graph, ProgramGraph, SliceOf
from schema.names import (
    check_class,
    check_identifier,
    check_identifiers,
    check_plain_texts,
    check_script_class,
    check_stack_texts,
)

_LEVELS: Final = {
    f"python::predispatch.{name}": (level, step)
    for level, enter, leave in (
        ("vmap", "_vmap_increment_nesting", "_vmap_decrement_nesting"),
        ("jvp", "_jvp_increment_nesting", "_jvp_decrement_nesting"),
        ("dual", "_enter_dual_level", "_exit_dual_level"),
    )
    for name, step in ((enter, 1), (leave, -1))
}
"""Functions that enter and leave a level of torch's transforms; one that is not left would outlive the program."""


def check_graph(document: ProgramGraph, loc: Loc) -> None:
    """Refuse a section whose rows refer to what is not there, or stand for too much.

    Raises:
        FormatError: The first thing that is wrong.
    """
    check_literal(document.custom, (*loc, "custom"))
    arguments = _argument_sizes(document, loc)
    keywords = _keyword_sizes(document, arguments, (*loc, "keywords"))
    values = _value_sizes(document, (*loc, "values"))
    _check_frames(document, (*loc, "frames"))
    check_plain_texts([name for names in document.functions for name in names], (*loc, "functions"))
    for place, graph in enumerate(document.graphs):
        where = (*loc, "graphs", place)
        _check_names(graph, where)
        _check_columns(document, graph, where)
        _check_levels(document, graph, where)
    check_methods(document, loc)
    check_flat_calls(document, loc)
    for what, columns, sizes in (
        ("arguments", [graph.operands for graph in document.graphs], arguments),
        ("arguments", [graph.keywords for graph in document.graphs], keywords),
        ("values", [graph.values for graph in document.graphs], values),
        ("metadata", [graph.custom.values() for graph in document.graphs], arguments),
    ):
        _check_parts(columns, sizes, what, loc)


def _check_parts(columns: Sequence[Collection[int]], sizes: Sequence[int], what: str, loc: Loc) -> None:
    """The rows that columns name stand for no more than there may be, each counted where it is named."""
    largest = max(sizes, default=0)
    if largest * sum(map(len, columns)) > MAX_PARTS:
        used = sum(sizes[place] for column in columns for place in column if place >= 0)
        if used > MAX_PARTS:
            raise FormatError(f"the {what} of the nodes have {used} parts", loc=loc)


def _check_names(graph: Graph, loc: Loc) -> None:
    check_identifiers(graph.names, loc)
    if len(set(graph.names)) != len(graph.names):
        (name, _), *_ = Counter(graph.names).most_common(1)
        raise FormatError("two nodes have this name", loc=(*loc, name[:80]))
    if "self" in graph.names:
        raise FormatError("not the name of a node: code has another use for it", loc=(*loc, "self"))


def _check_columns(document: ProgramGraph, graph: Graph, loc: Loc) -> None:
    columns = (
        ("target", graph.targets, 0, len(document.targets)),
        ("number of arguments", graph.arities, 0, len(graph.operands) + 1),
        ("keywords", graph.keywords, 0, len(document.keywords)),
        ("value", graph.values, ABSENT, len(document.values)),
        ("module frame", graph.modules, ABSENT, len(document.frames) + 1),
        ("function", graph.functions, ABSENT, len(document.functions)),
    )
    for what, column, first, count in columns:
        if len(column) != len(graph.names):
            raise FormatError(f"{len(column)} entries for {len(graph.names)} nodes", loc=(*loc, what))
        if column and not (min(column) >= first and max(column) < count):
            place = next(place for place, entry in enumerate(column) if not first <= entry < count)
            raise FormatError(f"{what} {column[place]} of {count}", loc=(*loc, graph.names[place][:80]))
    if sum(graph.arities) != len(graph.operands):
        raise FormatError(f"{len(graph.operands)} operands for {sum(graph.arities)} arguments", loc=loc)
    if graph.operands:
        check_place(max(0, *graph.operands), document.arguments, "argument", loc)
    for what, column_of, count in (
        ("custom", graph.custom, len(document.arguments)),
        ("bindings", graph.bindings, len(document.bindings)),
    ):
        for node, place in column_of.items():
            check_place(node, graph.names, "node", (*loc, what))
            check_place(place, count, what, (*loc, graph.names[node][:80]))
    for place in graph.custom.values():
        _check_literal_place(place, document, (*loc, "custom"))


def _check_literal_place(place: int, document: ProgramGraph, loc: Loc) -> None:
    check_place(place, document.arguments, "literal", loc)
    if isinstance(document.arguments[place], Container):
        raise FormatError(f"argument {place} is no literal", loc=loc)


def _operands(row: Container | documents.Keywords) -> Sequence[int]:
    if isinstance(row, SliceOf):
        return row.parts
    if isinstance(row, DictOf):
        return row.values
    return row.operands if isinstance(row, documents.Keywords) else row.items


def _argument_sizes(document: ProgramGraph, loc: Loc) -> list[int]:
    """How many parts each argument has."""
    sizes: list[int] = []
    depths: list[int] = []
    for place, row in enumerate(document.arguments):
        where = (*loc, "arguments", place)
        if not isinstance(row, Container):
            sizes.append(check_literal(row, where))
            depths.append(0)
            continue
        items = [item for item in _operands(row) if item >= 0]
        for item in items:
            check_place(item, place, "argument", where)
        if isinstance(row, DictOf):
            _check_keys(row, document, place, where)
        sizes.append(1 + len(_operands(row)) + sum(sizes[item] for item in items))
        depths.append(1 + max((depths[item] for item in items), default=0))
        if sizes[-1] > MAX_PARTS or depths[-1] > MAX_DEPTH:
            raise FormatError("arguments nested too deep, or of too many parts", loc=where)
    return sizes


def _check_keys(row: DictOf, document: ProgramGraph, place: int, loc: Loc) -> None:
    if len(row.keys) != len(row.values):
        raise FormatError(f"{len(row.keys)} keys for {len(row.values)} values", loc=loc)
    for key in row.keys:
        check_place(key, place, "argument", loc)
        if not isinstance(document.arguments[key], (str, int)):
            raise FormatError("a key that is neither text nor a number", loc=loc)


def _keyword_sizes(document: ProgramGraph, arguments: Sequence[int], loc: Loc) -> list[int]:
    """How many parts each row of keyword arguments has."""
    sizes = []
    for place, row in enumerate(document.keywords):
        where = (*loc, place)
        check_identifiers(row.names, where)
        if len(row.names) != len(row.operands) or len(set(row.names)) != len(row.names):
            raise FormatError("not one name for each argument", loc=where)
        items = [item for item in row.operands if item >= 0]
        for item in items:
            check_place(item, arguments, "argument", where)
        sizes.append(1 + len(row.operands) + sum(arguments[item] for item in items))
    return sizes


def _check_levels(document: ProgramGraph, graph: Graph, loc: Loc) -> None:
    """A graph leaves every level of a transform that it enters, and no other."""
    if _LEVELS.keys().isdisjoint(document.targets):
        return
    depths: Counter[str] = Counter()
    for name, target in zip(graph.names, graph.targets, strict=True):
        level, step = _LEVELS.get(document.targets[target], ("", 0))
        depths[level] += step
        if depths[level] < 0:
            raise FormatError(f"leaves a {level} level that it did not enter", loc=(*loc, name[:80]))
    if open_levels := +depths:
        raise FormatError(f"enters {', '.join(open_levels)} levels that it does not leave", loc=loc)


def _value_sizes(document: ProgramGraph, loc: Loc) -> list[int]:
    """How many parts each value has."""
    sizes: list[int] = []
    depths: list[int] = []
    for place, row in enumerate(document.values):
        where = (*loc, place)
        own = 1
        parts: list[int] = []
        match row:
            case documents.LiteralValue(literal):
                _check_literal_place(literal, document, where)
            case documents.ListValue(items) | documents.TupleValue(items):
                parts = items
                for part in parts:
                    check_place(part, place, "value", where)
            case documents.TensorValue():
                if len(row.shape) > MAX_DIMENSIONS or len(row.strides) != len(row.shape):
                    raise FormatError(f"{len(row.shape)} dimensions with {len(row.strides)} strides", loc=where)
            case documents.SparseValue():
                _check_sparse_value(row, where)
            case documents.ObjectValue():
                check_identifier(row.name, where)
                check_script_class(row.kind, where)
            case documents.SubclassValue():
                _check_subclass_value(row, document, place, where)
                parts = [row.outer, *row.parts]
                own += check_literal(row.context, where)
        sizes.append(own + sum(sizes[part] for part in parts))
        depths.append(1 + max((depths[part] for part in parts), default=0))
        if sizes[-1] > MAX_PARTS or depths[-1] > MAX_DEPTH:
            raise FormatError("a value of too many parts", loc=where)
    return sizes


def _check_sparse_value(row: documents.SparseValue, loc: Loc) -> None:
    blocks = 2 if row.layout in ("sparse_bsr", "sparse_bsc") else 0
    known = row.layout in SPARSE_LAYOUTS and row.indices in INDEX_DTYPES
    if not known or len(row.shape) > MAX_DIMENSIONS or len(row.block) != blocks:
        raise FormatError(f"a malformed sparse value of layout {row.layout[:40]!r}", loc=loc)
    if not 0 <= row.dense <= len(row.shape) or min((*row.shape, 0)) < 0 or min((*row.block, 1)) < 1:
        raise FormatError("a size is out of range", loc=loc)


def _check_subclass_value(row: documents.SubclassValue, document: ProgramGraph, place: int, loc: Loc) -> None:
    check_class(row.module, row.qualname, loc)
    for part in (row.outer, *row.parts):
        check_place(part, place, "value", loc)
    names = {check_identifier(name, loc) for name in row.attributes}
    if not isinstance(document.values[row.outer], documents.TensorValue) or not len(names) == len(row.parts) > 0:
        raise FormatError("a malformed wrapper subclass", loc=loc)


def _check_frames(document: ProgramGraph, loc: Loc) -> None:
    depths = [0]
    for place, frame in enumerate(document.frames):
        if not 0 <= frame.parent <= place:
            raise FormatError(f"module frame {frame.parent} of {place + 1}", loc=(*loc, place))
        depths.append(1 + depths[frame.parent])
        if depths[-1] > MAX_STACK_DEPTH:
            raise FormatError(f"{depths[-1]} modules inside each other", loc=(*loc, place))
    texts = [text for frame in document.frames for text in (frame.key, frame.path, frame.type)]
    check_stack_texts(texts, loc)
