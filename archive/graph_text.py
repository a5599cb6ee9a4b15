"""A method's graph as text, without torch: the lines that torch's own printer would write, and subgraphs beneath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from archive.text import (
    at,
    clip,
    device_text,
    expression_texts,
    join,
    literal_text,
    printable,
    target_text,
    tensor_text,
    tuple_text,
)
from schema.constraints import Constraints
from schema.errors import FormatError
from schema.graph import (
    ABSENT,
    DictOf,
    ListOf,
    ListValue,
    LiteralValue,
    ProgramGraph,
    SliceOf,
    SparseValue,
    SubclassValue,
    Symbolic,
    TensorValue,
    TupleOf,
    TupleValue,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from archive.reading import ArchiveFile
    from schema.graph import Graph, Node, Operand, Size, Value

_INDENT: Final = "    "
_DEEPEST: Final = 20
"""Subgraphs within more subgraphs than this are not indented further."""

_GETITEM: Final = "python::operator.getitem"
_LOC: Final = ("graph",)


class _Tables(NamedTuple):
    """The tables of a section, as text."""

    targets: list[str]
    literals: list[str]
    values: list[str]


def graph_lines(file: ArchiveFile, method: str) -> Iterator[str]:
    """Lines of a method's graph.

    Args:
        file: The archive.
        method: Name of the method.

    Raises:
        UsageError: There is no such method.
        FormatError: The graph is malformed.
    """
    section = file.section(method, "graph", ProgramGraph)
    expressions = expression_texts(file.section(method, "constraints", Constraints))
    tables = _Tables(section.targets, [literal_text(each) for each in section.literals], _values(section, expressions))
    seen, stack = {0}, [(method, 0, 0)]
    while stack:
        name, place, depth = stack.pop()
        graph = at(section.graphs, place, _LOC)
        yield from (_INDENT * min(depth, _DEEPEST) + printable(line) for line in _graph(name, graph, tables))
        new = [each for each in graph.subgraphs if each.graph not in seen]
        seen.update(each.graph for each in new)
        stack.extend((each.name, each.graph, depth + 1) for each in reversed(new))


def _graph(name: str, graph: Graph, tables: _Tables) -> Iterator[str]:
    """Lines of one graph."""
    yield f"{name}("
    names: list[str] = []
    body = False
    for node in graph.nodes:
        target = at(tables.targets, node.target, _LOC)
        if target != "node::placeholder" and not body:
            body = True
            yield "):"
        try:
            yield _INDENT + _STATEMENTS.get(target, _call)(node, target, names, tables)
        except RecursionError as error:
            raise FormatError("arguments are nested too deeply", loc=(*_LOC, name, node.name)) from error
        names.append(node.name)


def _placeholder(node: Node, _target: str, _names: list[str], tables: _Tables) -> str:
    return f"{_annotated(node, tables)},"


def _attribute(node: Node, _target: str, _names: list[str], tables: _Tables) -> str:
    literal = at(tables.literals, _first(node), _LOC)
    return f"{node.name} = self.{literal[1:-1]}"


def _output(node: Node, _target: str, names: list[str], tables: _Tables) -> str:
    return f"return {', '.join(_operand(each, names, tables) for each in node.args)}"


def _getitem(node: Node, target: str, names: list[str], tables: _Tables) -> str:
    if len(node.args) != 2:
        return _call(node, target, names, tables)
    whole, key = (_operand(each, names, tables) for each in node.args)
    return f"{_annotated(node, tables)} = {whole}[{key}]"


def _call(node: Node, target: str, names: list[str], tables: _Tables) -> str:
    args = [_operand(each, names, tables) for each in node.args]
    kwargs = [f"{key}={_operand(each, names, tables)}" for key, each in node.kwargs.items()]
    return f"{_annotated(node, tables)} = {target_text(target)}({join(args + kwargs)})"


_STATEMENTS: Final[dict[str, Callable[[Node, str, list[str], _Tables], str]]] = {
    "node::placeholder": _placeholder,
    "node::get_attr": _attribute,
    "node::output": _output,
    _GETITEM: _getitem,
}


def _first(node: Node) -> int:
    """The place of the literal that is the node's only argument."""
    if len(node.args) != 1 or not isinstance(node.args[0], int):
        raise FormatError("one name is due", loc=(*_LOC, node.name))
    return node.args[0]


def _annotated(node: Node, tables: _Tables) -> str:
    if node.value == ABSENT:
        return node.name
    return f"{node.name}: {at(tables.values, node.value, _LOC)}"


def _operand(operand: Operand, names: list[str], tables: _Tables) -> str:
    """An argument; a number below zero counts back from the node among the names before it."""

    def each(operands: list[Operand] | tuple[Operand, ...]) -> list[str]:
        return [_operand(item, names, tables) for item in operands]

    match operand:
        case int():
            if operand < 0:
                return at(names, len(names) + operand, _LOC)
            return at(tables.literals, operand, _LOC)
        case ListOf(items):
            return f"[{join(each(items))}]"
        case TupleOf(items):
            return tuple_text(each(items))
        case DictOf(keys, values):
            pairs = zip((at(tables.literals, key, _LOC) for key in keys), each(values), strict=False)
            return "{" + join(f"{key}: {value}" for key, value in pairs) + "}"
        case SliceOf(parts):
            return ":".join("" if part == "None" else part for part in each(parts))


def _values(section: ProgramGraph, expressions: list[str]) -> list[str]:
    """The table of values; a row names only rows before it, so each is built from text that is there."""
    done: list[str] = []
    for value in section.values:
        done.append(clip(_value(value, done, section, expressions)))
    return done


def _value(value: Value, done: list[str], section: ProgramGraph, expressions: list[str]) -> str:
    match value:
        case TensorValue():
            shape = [_size(size, expressions) for size in value.shape]
            device = "" if value.device.kind == "cpu" else f" {device_text(value.device)}"
            return tensor_text(value.dtype, shape) + device
        case SparseValue():
            return f"{value.layout} {tensor_text(value.dtype, value.shape)}"
        case SubclassValue():
            return f"{value.qualname}({at(done, value.outer, _LOC)})"
        case Symbolic():
            return f"{value.kind}({_size(value, expressions)})"
        case LiteralValue(literal):
            return literal_text(at(section.literals, literal, _LOC))
        case ListValue(items):
            return f"[{join(at(done, item, _LOC) for item in items)}]"
        case TupleValue(items):
            return tuple_text([at(done, item, _LOC) for item in items])


def _size(size: Size, expressions: list[str]) -> str:
    return str(size) if isinstance(size, int) else at(expressions, size.expression, _LOC)
