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
    Container,
    DictOf,
    ListOf,
    ListValue,
    LiteralValue,
    ObjectValue,
    ProgramGraph,
    SliceOf,
    SparseValue,
    SubclassValue,
    Symbolic,
    TensorValue,
    TupleOf,
    TupleValue,
    node_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from archive.reading import ArchiveFile
    from schema.graph import Graph, Keywords, Size, Value

_INDENT: Final = "    "
_DEEPEST: Final = 20
"""Subgraphs within more subgraphs than this are not indented further."""

_GETITEM: Final = "python::operator.getitem"
_LOC: Final = ("graph",)


class _Tables(NamedTuple):
    """The tables of a section, those of literals and values as text; a container has none until it is used."""

    targets: list[str]
    arguments: list[str | Container]
    keywords: list[Keywords]
    values: list[str]


class _Node(NamedTuple):
    """One node: its target, arguments and value as text."""

    name: str
    target: str
    args: list[str]
    kwargs: dict[str, str]
    value: str | None

    @property
    def annotated(self) -> str:
        """Its name, and what is known of its value."""
        return self.name if self.value is None else f"{self.name}: {self.value}"


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
    arguments = [each if isinstance(each, Container) else literal_text(each) for each in section.arguments]
    tables = _Tables(section.targets, arguments, section.keywords, _values(section, expressions))
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
    body = False
    for node in _nodes(graph, tables):
        if node.target != "node::placeholder" and not body:
            body = True
            yield "):"
        yield _INDENT + _STATEMENTS.get(node.target, _call)(node)


def _nodes(graph: Graph, tables: _Tables) -> Iterator[_Node]:
    """The nodes of one graph, in order."""
    names: list[str] = []
    for (name, target, operands, place), value in zip(node_rows(graph), graph.values, strict=True):
        keywords = at(tables.keywords, place, _LOC)
        kwargs = _operands(keywords.operands, names, tables)
        yield _Node(
            name=name,
            target=at(tables.targets, target, _LOC),
            args=_operands(operands, names, tables),
            kwargs=dict(zip(keywords.names, kwargs, strict=True)),
            value=None if value == ABSENT else at(tables.values, value, _LOC),
        )
        names.append(name)


def _placeholder(node: _Node) -> str:
    return f"{node.annotated},"


def _attribute(node: _Node) -> str:
    if len(node.args) != 1:
        raise FormatError("one name is due", loc=(*_LOC, node.name))
    return f"{node.name} = self.{node.args[0][1:-1]}"


def _output(node: _Node) -> str:
    return f"return {', '.join(node.args)}"


def _getitem(node: _Node) -> str:
    if len(node.args) != 2:
        return _call(node)
    return f"{node.annotated} = {node.args[0]}[{node.args[1]}]"


def _call(node: _Node) -> str:
    kwargs = [f"{key}={value}" for key, value in node.kwargs.items()]
    return f"{node.annotated} = {target_text(node.target)}({join(node.args + kwargs)})"


_STATEMENTS: Final[dict[str, Callable[[_Node], str]]] = {
    "node::placeholder": _placeholder,
    "node::get_attr": _attribute,
    "node::output": _output,
    _GETITEM: _getitem,
}


def _operands(operands: Iterable[int], names: list[str], tables: _Tables) -> list[str]:
    return [_operand(each, names, tables) for each in operands]


def _operand(operand: int, names: list[str], tables: _Tables) -> str:
    """An argument; a number below zero counts back from the node among the names before it."""
    if operand < 0:
        return at(names, len(names) + operand, _LOC)
    row = at(tables.arguments, operand, _LOC)
    match row:
        case str():
            return row
        case ListOf(items):
            return f"[{join(_operands(items, names, tables))}]"
        case TupleOf(items):
            return tuple_text(_operands(items, names, tables))
        case DictOf(keys, values):
            texts = (_operands(each, names, tables) for each in (keys, values))
            return "{" + join(f"{key}: {value}" for key, value in zip(*texts, strict=True)) + "}"
        case SliceOf(parts):
            return ":".join("" if part == "None" else part for part in _operands(parts, names, tables))


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
        case ObjectValue():
            return value.kind
        case SubclassValue():
            return f"{value.qualname}({at(done, value.outer, _LOC)})"
        case Symbolic():
            return f"{value.kind}({_size(value, expressions)})"
        case LiteralValue(literal):
            return _literal(section, literal)
        case ListValue(items):
            return f"[{join(at(done, item, _LOC) for item in items)}]"
        case TupleValue(items):
            return tuple_text([at(done, item, _LOC) for item in items])


def _literal(section: ProgramGraph, place: int) -> str:
    row = at(section.arguments, place, _LOC)
    if isinstance(row, Container):
        raise FormatError(f"argument {place} is no literal", loc=_LOC)
    return literal_text(row)


def _size(size: Size, expressions: list[str]) -> str:
    return str(size) if isinstance(size, int) else at(expressions, size.expression, _LOC)
