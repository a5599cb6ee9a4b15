"""The check of nodes that call code of classes: methods of script objects, autograd functions, constructors of tensors.

The last two are called by ``flat_apply``, which is no operator of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from archive.bounds import check_literal
from schema.errors import FormatError, Loc
from schema.graph import Graph, ProgramGraph, names_read, node_rows
from schema.literals import Entries, Items, Literal, OperatorName, Tuple
from schema.names import check_class, check_identifiers, is_method_name
from schema.operators import FLAT_APPLY

_CALLS_METHOD: Final = "higher_order::call_torchbind"
"""The operator that calls a method of a script object: the object, the method's name and its arguments."""

_FLAT_APPLY: Final = f"higher_order::{FLAT_APPLY}"


class _FlatCall(NamedTuple):
    """A ``flat_apply`` node.

    Attributes:
        name: Its name.
        reads: What its first two arguments read by name; empty of one that reads nothing.
        operands: Its arguments.
        keywords: Place of its keyword arguments.
    """

    name: str
    reads: list[str]
    operands: list[int]
    keywords: int


def check_methods(document: ProgramGraph, loc: Loc) -> None:
    """Refuse calls of methods that are not named; one calls them itself, or through an operator that is given the call.

    Raises:
        FormatError: With the first node that calls no method that a graph may call.
    """
    operators = [(place, row.name) for place, row in enumerate(document.arguments) if isinstance(row, OperatorName)]
    given = {place for place, name in operators if name == _CALLS_METHOD}
    if not given and _CALLS_METHOD not in document.targets:
        return
    named = {place for place, row in enumerate(document.arguments) if is_method_name(row)}
    for place, row in enumerate(document.keywords):
        if not given.isdisjoint(row.operands):
            raise FormatError("a call of a method by keyword", loc=(*loc, "keywords", place))
    for index, graph in enumerate(document.graphs):
        for name, target, operands, _ in node_rows(graph):
            methods = [operands[at + 2 : at + 3] for at, operand in enumerate(operands) if operand in given]
            if document.targets[target] == _CALLS_METHOD:
                methods.append(operands[1:2])
            if not all(method and method[0] in named for method in methods):
                raise FormatError("no method that a graph may call", loc=(*loc, "graphs", index, name[:80]))


def check_flat_calls(document: ProgramGraph, loc: Loc) -> None:
    """Refuse ``flat_apply`` nodes of which cannot be said, before the program runs, what they call.

    Raises:
        FormatError: With the first such node, or the first malformed row of what they use.
    """
    for place, graph in enumerate(document.graphs):
        where = (*loc, "graphs", place)
        if graph.callees or graph.skeletons or _FLAT_APPLY in document.targets:
            _check_rows(graph, where)
            _check_nodes(document, graph, where)


def autograd_functions(document: ProgramGraph) -> Iterator[tuple[str, str, Loc]]:
    """Module and name of the autograd functions that nodes of checked graphs call, and where."""
    if _FLAT_APPLY not in document.targets:
        return
    for place, graph in enumerate(document.graphs):
        named = {row.name for row in graph.callees if row.made is None}
        for call in _flat_calls(document, graph):
            if call.reads[0] in named:
                module, _, name = str(document.arguments[call.operands[2]]).rpartition(".")
                yield module, name, ("graph", "graphs", place, call.name)


def _flat_calls(document: ProgramGraph, graph: Graph) -> Iterator[_FlatCall]:
    """The ``flat_apply`` nodes of a graph, in order."""
    read: dict[int, str] = {}
    for at, (name, target, operands, keywords) in enumerate(node_rows(graph)):
        kind = document.targets[target]
        if kind == "node::get_attr" and len(operands) == 1 and operands[0] >= 0:
            read[at] = str(document.arguments[operands[0]])
        elif kind == _FLAT_APPLY:
            reads = [read.get(at + operand, "") if operand < 0 else "" for operand in operands[:2]]
            yield _FlatCall(name, reads, operands, keywords)


def _check_rows(graph: Graph, loc: Loc) -> None:
    names = names_read(graph)
    check_identifiers(names, loc)
    if len(set(names)) != len(names):
        raise FormatError("two attributes have one name", loc=loc)
    for callee in graph.callees:
        if callee.made is not None:
            check_class(*callee.made, (*loc, callee.name))
    for skeleton in graph.skeletons:
        where = (*loc, skeleton.name)
        check_literal(skeleton.tree, where)
        _leaves(skeleton.tree, where)
        match skeleton.tree:
            case Tuple([Tuple(), Entries()]):
                continue
        raise FormatError("not a tuple of positional and keyword arguments", loc=where)


def _leaves(tree: Literal, loc: Loc) -> int:
    """How many flat arguments belong into a tree of plain containers."""
    match tree:
        case None:
            return 1
        case Tuple(items) | Items(items):
            return sum(_leaves(item, loc) for item in items)
        case Entries(keys, values) if all(isinstance(key, str) for key in keys) and len(set(keys)) == len(values):
            return sum(_leaves(value, loc) for value in values)
    raise FormatError("not a tree of plain containers", loc=loc)


def _check_nodes(document: ProgramGraph, graph: Graph, loc: Loc) -> None:
    """What a node calls, and how its arguments are put together, is read by name right where it stands."""
    callees = {row.name: row for row in graph.callees}
    skeletons = {row.name: row for row in graph.skeletons}
    for call in _flat_calls(document, graph):
        where = (*loc, call.name[:80])
        if len(call.reads) < 2 or call.reads[0] not in callees or call.reads[1] not in skeletons:
            raise FormatError("does not say what it calls", loc=where)
        callee, tree = callees[call.reads[0]], skeletons[call.reads[1]].tree
        if document.keywords[call.keywords].names or len(call.operands) != 2 + _leaves(tree, where):
            raise FormatError("other arguments than what it calls is to get", loc=where)
        if callee.made is None:
            _check_names_function(document, tree, call.operands[2:], where)


def _check_names_function(document: ProgramGraph, tree: Literal, operands: list[int], loc: Loc) -> None:
    """The first argument is the name of a class, and stands in the file: no node makes it."""
    first = document.arguments[operands[0]] if operands and operands[0] >= 0 else None
    match tree:
        case Tuple([Tuple([None, *_]), Entries()]) if isinstance(first, str):
            module, _, name = first.rpartition(".")
            check_class(module, name, loc)
        case _:
            raise FormatError("does not name the autograd function that it calls", loc=loc)
