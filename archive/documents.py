"""The check of a section's own structure, before anything is built of it: places that exist, sizes that are bounded.

Tables refer to each other by place. Rows may refer to one row many times, so a small table can stand for something
enormous; what each row stands for is therefore bounded here, in one pass and without recursion over what is shared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from archive.header import MAX_DIMENSIONS
from schema import calls, constraints, debug, graph, literals
from schema.dtypes import INDEX_DTYPES, SPARSE_LAYOUTS
from schema.errors import FormatError, Loc
from schema.names import check_class, check_identifier, check_plain_text

MAX_DEPTH: Final = 64
"""How deep containers, trees and operands may be nested; Python's parser allows about 90 in code."""

MAX_EXPRESSION_SIZE: Final = 5_000
"""How many functions, numbers and symbols an expression may have when it is written out."""

MAX_EXPRESSION_BITS: Final = 4_096
"""How many bits the value of an expression may have, if every symbol in it has 64."""

MAX_STACK_DEPTH: Final = 256
"""How many modules may be inside each other."""

MAX_PARTS: Final = 10_000_000
"""How many values, counted where they are used, the tables of one section may stand for."""

MAX_STACK_TEXT: Final = 1_000_000
"""How many characters one stack trace may have."""

MAX_STACKS_TEXT: Final = 256_000_000
"""How many characters all distinct stack traces may have."""

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

_SYMBOL_BITS: Final = 64
_MAX_EXPONENT: Final = 64
_POWERS: Final = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})


def check_document(document: msgspec.Struct, loc: Loc) -> None:
    """Refuse a document whose rows refer to what is not there, or stand for too much.

    Raises:
        FormatError: The first thing that is wrong.
    """
    if check := _CHECKS.get(type(document)):
        check(document, loc)


def _check_place(place: int, rows: Sequence[Any] | int, what: str, loc: Loc) -> None:
    count = rows if isinstance(rows, int) else len(rows)
    if not 0 <= place < count:
        raise FormatError(f"{what} {place} of {count}", loc=loc)


def _check_constraints(document: constraints.Constraints, loc: Loc) -> None:
    _check_expressions(document, (*loc, "expressions"))
    expressions = document.expressions
    intervals = [
        *((symbol.interval, ("symbols", index)) for index, symbol in enumerate(document.symbols)),
        *((row.interval, ("ranges", index)) for index, row in enumerate(document.ranges)),
    ]
    for interval, where in intervals:
        if interval is not None:
            for bound in (interval.lower, interval.upper):
                _check_place(bound, expressions, "expression", (*loc, *where))
    for index, row in enumerate(document.ranges):
        _check_place(row.expression, expressions, "expression", (*loc, "ranges", index))
    for index, guard in enumerate(document.guards):
        _check_place(guard.condition, expressions, "expression", (*loc, "guards", index))


def _check_expressions(document: constraints.Constraints, loc: Loc) -> None:
    """Sizes, depths and bits of all expressions, each from those of its operands."""
    sizes: list[int] = []
    depths: list[int] = []
    bits: list[int] = []
    for place, row in enumerate(document.expressions):
        where = (*loc, place)
        operands: list[int] = []
        if isinstance(row, constraints.Apply):
            operands = row.operands
            for operand in operands:
                _check_place(operand, place, "expression", where)
            if row.function not in constraints.FUNCTIONS:
                raise FormatError(f"unknown function {row.function[:80]!r}", loc=where)
        elif isinstance(row, constraints.SymbolReference):
            _check_place(row.symbol, document.symbols, "symbol", where)
        elif isinstance(row, constraints.Rational) and row.denominator <= 0:
            raise FormatError(f"a fraction over {row.denominator}", loc=where)
        sizes.append(1 + sum(sizes[operand] for operand in operands))
        depths.append(1 + max((depths[operand] for operand in operands), default=0))
        bits.append(_bits(row, document.expressions, bits, where))
        if sizes[-1] > MAX_EXPRESSION_SIZE or depths[-1] > MAX_DEPTH or bits[-1] > MAX_EXPRESSION_BITS:
            raise FormatError("an expression that is too large", loc=where)


def _bits(row: constraints.Expression, rows: Sequence[Any], bits: Sequence[int], loc: Loc) -> int:
    """How many bits the value of an expression may have."""
    if isinstance(row, constraints.Integer):
        return row.value.bit_length()
    if not isinstance(row, constraints.Apply) or not row.operands:
        return _SYMBOL_BITS
    of_operands = [bits[operand] for operand in row.operands]
    if row.function in _POWERS:
        return of_operands[0] * _exponent(row, rows, loc)
    if row.function == "Mul":
        return sum(of_operands)
    return max(of_operands) + len(of_operands).bit_length()


def _exponent(row: constraints.Apply, rows: Sequence[Any], loc: Loc) -> int:
    """The largest exponent of a power; one that is a symbol is as good as any other small one until it is known."""
    numbers = [abs(rows[place].value) for place in row.operands[1:] if isinstance(rows[place], constraints.Integer)]
    if any(number > _MAX_EXPONENT for number in numbers):
        raise FormatError(f"an exponent over {_MAX_EXPONENT}", loc=loc)
    return max(numbers, default=1) + 1


def _check_graph(document: graph.ProgramGraph, loc: Loc) -> None:
    parts = [check_literal(literal, (*loc, "literals", place)) for place, literal in enumerate(document.literals)]
    check_literal(document.custom, (*loc, "custom"))
    _check_values(document, loc)
    _check_frames(document, (*loc, "frames"))
    for names in document.functions:
        for name in names:
            check_plain_text(name, (*loc, "functions"))
    used = 0
    for place, each in enumerate(document.graphs):
        for node in each.nodes:
            where = (*loc, "graphs", place, node.name[:80])
            _check_place(node.target, document.targets, "target", where)
            for operand in (*node.args, *node.kwargs.values()):
                used += _count_operand(operand, parts, where, 0)
            if node.custom >= 0:
                _check_place(node.custom, parts, "literal", where)
                used += parts[node.custom]
        _check_levels(document, each, (*loc, "graphs", place))
    if used > MAX_PARTS:
        raise FormatError(f"the arguments of the nodes have {used} parts", loc=loc)


def _check_levels(document: graph.ProgramGraph, each: graph.Graph, loc: Loc) -> None:
    """A graph leaves every level of a transform that it enters, and no other."""
    depths: Counter[str] = Counter()
    for node in each.nodes:
        level, step = _LEVELS.get(document.targets[node.target], ("", 0))
        depths[level] += step
        if depths[level] < 0:
            raise FormatError(f"leaves a {level} level that it did not enter", loc=(*loc, node.name[:80]))
    if open_levels := +depths:
        raise FormatError(f"enters {', '.join(open_levels)} levels that it does not leave", loc=loc)


def _check_values(document: graph.ProgramGraph, loc: Loc) -> None:
    sizes: list[int] = []
    depths: list[int] = []
    for place, row in enumerate(document.values):
        where = (*loc, "values", place)
        parts: list[int] = []
        match row:
            case graph.LiteralValue(literal):
                _check_place(literal, document.literals, "literal", where)
            case graph.ListValue(items) | graph.TupleValue(items):
                parts = items
                for part in parts:
                    _check_place(part, place, "value", where)
            case graph.TensorValue():
                if len(row.shape) > MAX_DIMENSIONS or len(row.strides) != len(row.shape):
                    raise FormatError(f"{len(row.shape)} dimensions with {len(row.strides)} strides", loc=where)
            case graph.SparseValue():
                _check_sparse_value(row, where)
            case graph.SubclassValue():
                _check_subclass_value(row, document, place, where)
                parts = [row.outer, *row.parts]
        sizes.append(1 + sum(sizes[part] for part in parts))
        depths.append(1 + max((depths[part] for part in parts), default=0))
        if sizes[-1] > MAX_PARTS or depths[-1] > MAX_DEPTH:
            raise FormatError("a value of too many parts", loc=where)
    used = sum(sizes[node.value] for each in document.graphs for node in each.nodes if 0 <= node.value < len(sizes))
    if used > MAX_PARTS:
        raise FormatError(f"the values of the nodes have {used} parts", loc=loc)


def _check_sparse_value(row: graph.SparseValue, loc: Loc) -> None:
    blocks = 2 if row.layout in ("sparse_bsr", "sparse_bsc") else 0
    known = row.layout in SPARSE_LAYOUTS and row.indices in INDEX_DTYPES
    if not known or len(row.shape) > MAX_DIMENSIONS or len(row.block) != blocks:
        raise FormatError(f"a malformed sparse value of layout {row.layout[:40]!r}", loc=loc)
    if not 0 <= row.dense <= len(row.shape) or min((*row.shape, 0)) < 0 or min((*row.block, 1)) < 1:
        raise FormatError("a size is out of range", loc=loc)


def _check_subclass_value(row: graph.SubclassValue, document: graph.ProgramGraph, place: int, loc: Loc) -> None:
    check_class(row.module, row.qualname, loc)
    _check_place(row.context, document.literals, "literal", loc)
    for part in (row.outer, *row.parts):
        _check_place(part, place, "value", loc)
    names = {check_identifier(name, loc) for name in row.attributes}
    if not isinstance(document.values[row.outer], graph.TensorValue) or not len(names) == len(row.parts) > 0:
        raise FormatError("a malformed wrapper subclass", loc=loc)


def _check_frames(document: graph.ProgramGraph, loc: Loc) -> None:
    depths = [0]
    for place, frame in enumerate(document.frames):
        _check_place(frame.parent, depths, "module frame", (*loc, place))
        depths.append(1 + depths[frame.parent])
        if depths[-1] > MAX_STACK_DEPTH:
            raise FormatError(f"{depths[-1]} modules inside each other", loc=(*loc, place))
        for text in (frame.key, frame.path, frame.type):
            check_plain_text(text, (*loc, place))


def _count_operand(operand: graph.Operand, parts: Sequence[int], loc: Loc, depth: int) -> int:
    """How many parts an operand has; places of nodes are checked where the nodes are known."""
    if depth > MAX_DEPTH:
        raise FormatError("operands nested too deep", loc=loc)
    inner: Iterable[graph.Operand]
    match operand:
        case int():
            if operand >= 0:
                _check_place(operand, parts, "literal", loc)
            return parts[operand] if operand >= 0 else 1
        case graph.ListOf(items) | graph.TupleOf(items):
            inner = items
        case graph.DictOf(keys, values):
            inner = (*keys, *values)
        case graph.SliceOf(three):
            inner = three
    return 1 + sum(_count_operand(item, parts, loc, depth + 1) for item in inner)


def check_literal(literal: literals.Literal, loc: Loc, depth: int = 0) -> int:
    """How many parts a literal has.

    Raises:
        FormatError: It is nested too deep.
    """
    if depth > MAX_DEPTH:
        raise FormatError("a value nested too deep", loc=loc)
    inner: Iterable[literals.Literal] = ()
    match literal:
        case literals.Items(items) | literals.Tuple(items):
            inner = items
        case literals.Entries(keys, values):
            inner = (*keys, *values)
        case literals.Slice(start, stop, step):
            inner = (start, stop, step)
    return 1 + sum(check_literal(item, loc, depth + 1) for item in inner)


def _check_calls(document: calls.Calls, loc: Loc) -> None:
    for entry in document.entries:
        if entry.signature is not None:
            for tree in (entry.signature.in_spec, entry.signature.out_spec):
                _check_tree(tree, document.types, (*loc, entry.fqn[:80]), 0)
    if document.example is not None:
        _check_tree(document.example, document.types, (*loc, "example"), 0)


def _check_tree(tree: calls.Tree, types: Sequence[calls.TreeType], loc: Loc, depth: int) -> None:
    if isinstance(tree, calls.Branch):
        if depth > MAX_DEPTH:
            raise FormatError("a tree nested too deep", loc=loc)
        _check_place(tree.container, types, "type", loc)
        check_literal(tree.context, loc)
        for child in tree.children:
            _check_tree(child, types, loc, depth + 1)


def _check_debug(document: debug.Debug, loc: Loc) -> None:
    lengths = [len(frame) for frame in document.frames]
    total = 0
    for place, stack in enumerate(document.stacks):
        for frame in stack:
            _check_place(frame, lengths, "frame", (*loc, "stacks", place))
        length = sum(lengths[frame] for frame in stack)
        total += length
        if length > MAX_STACK_TEXT or total > MAX_STACKS_TEXT:
            raise FormatError("a stack trace that is too long", loc=(*loc, "stacks", place))


_CHECKS: Final[dict[type, Callable[[Any, Loc], None]]] = {
    constraints.Constraints: _check_constraints,
    graph.ProgramGraph: _check_graph,
    calls.Calls: _check_calls,
    debug.Debug: _check_debug,
}
