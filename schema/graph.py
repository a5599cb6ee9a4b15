"""The ``graph`` section: nodes, and the tables that they share.

One method has one table of each kind, and a list of graphs of which the first is the program's and the others are
the subgraphs of its higher-order operators.

An *operand* is a whole number: ``-k`` is the result of the node ``k`` places before the one that uses it, in the same
graph; a number that is not negative is a place in the table of arguments.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final, Union

from msgspec import Struct

from schema.literals import Device, Literal, Row

ABSENT: Final = -1
"""Index that says that a node has no such metadata."""


class ListOf(Row, frozen=True, tag="list_of"):
    """A list of operands."""

    items: list[int]


class TupleOf(Row, frozen=True, tag="tuple_of"):
    """A tuple of operands."""

    items: list[int]


class DictOf(Row, frozen=True, tag="dict_of"):
    """A dictionary whose values are operands; ``keys`` are places of literals in the table of arguments."""

    keys: list[int]
    values: list[int]


class SliceOf(Row, frozen=True, tag="slice_of"):
    """A slice of operands: start, stop, step."""

    parts: tuple[int, int, int]


Container = ListOf | TupleOf | DictOf | SliceOf
"""An argument that holds results of nodes; where it holds none, it is a literal."""

Argument = Union[Literal, ListOf, TupleOf, DictOf, SliceOf]  # noqa: UP007
"""A row of the table of arguments: a literal, or a container whose operands stand before it in the table."""


class Keywords(Row, frozen=True):
    """Keyword arguments, in order: their names, and an operand for each."""

    names: list[str]
    operands: list[int]


class Symbolic(Row, frozen=True, tag="symbolic"):
    """A number that depends on symbols.

    Attributes:
        kind: ``int``, ``float`` or ``bool``.
        expression: Place in the table of expressions of the ``constraints`` section.
        hint: Its value in the example, None if unknown.
    """

    kind: str
    expression: int
    hint: int | float | bool | None


Size = Union[int, Symbolic]  # noqa: UP007


class TensorValue(Row, frozen=True, tag="tensor"):
    """What is known of a tensor before the program runs.

    Attributes:
        dtype: torch's name of the element type.
        shape: Size of each dimension, in elements.
        strides: Step of each dimension, in elements; empty where the layout has none.
        device: Where it was when the program was captured.
        layout: torch's name of the layout.
        requires_grad: Whether gradients flow to it.
    """

    dtype: str
    shape: list[Size]
    strides: list[Size]
    device: Device
    layout: str = "strided"
    requires_grad: bool = False


class SparseValue(Row, frozen=True, tag="sparse"):
    """What is known of a sparse tensor before the program runs; how many elements it stores is not.

    Attributes:
        layout: torch's name of the layout.
        dtype: torch's name of the element type.
        shape: Size of each dimension, in elements.
        dense: How many of its last dimensions are dense.
        block: Height and width of a block; empty where the layout has none.
        indices: torch's name of the type of its indices.
        coalesced: Of the coordinate layout, whether its indices are known to be distinct and in order.
        device: Where it was when the program was captured.
        requires_grad: Whether gradients flow to it.
    """

    layout: str
    dtype: str
    shape: list[int]
    dense: int
    block: list[int]
    indices: str
    coalesced: bool
    device: Device
    requires_grad: bool


class SubclassValue(Row, frozen=True, tag="subclass"):
    """What is known of a wrapper subclass before the program runs.

    Attributes:
        module: Module that defines the class.
        qualname: Name of the class in it.
        attributes: Names of its inner tensors.
        parts: Their places in the table of values.
        context: The other result of ``__tensor_flatten__``.
        outer: The tensor that it stands for: place in the table of values.
    """

    module: str
    qualname: str
    attributes: list[str]
    parts: list[int]
    context: Literal
    outer: int


class ObjectValue(Row, frozen=True, tag="object"):
    """A script object that the program is given.

    Attributes:
        name: Name of the placeholder.
        kind: Its class: ``torch.classes.NAMESPACE.NAME``.
        fake: The object whose fake stands for it in a trace: place in the manifest's table of objects, None if nothing
            does.
    """

    name: str
    kind: str
    fake: int | None


class LiteralValue(Row, frozen=True, tag="literal"):
    """A plain value, by its place in the table of arguments."""

    literal: int


class ListValue(Row, frozen=True, tag="list"):
    """A list of values, by their places in the table of values."""

    items: list[int]


class TupleValue(Row, frozen=True, tag="tuple"):
    """A tuple of values, by their places in the table of values."""

    items: list[int]


Value = Union[  # noqa: UP007
    TensorValue, SparseValue, SubclassValue, ObjectValue, Symbolic, LiteralValue, ListValue, TupleValue
]


class ModuleFrame(Row, frozen=True):
    """One level of an ``nn_module_stack``: the stack below it, and the call that it adds.

    Attributes:
        parent: Place of the level below in this table plus one, 0 for none.
        key: Key of the entry.
        path: FQN of the module.
        type: Qualified name of the module's class.
    """

    parent: int
    key: str
    path: str
    type: str


class KeyStep(Row, frozen=True):
    """One step from a node's value to an unbacked symbol in it.

    Attributes:
        kind: ``method``, ``index``, ``divide``, ``convert`` or ``attribute``.
        key: Name of the method or attribute, index or divisor; None for ``convert``.
    """

    kind: str
    key: int | str | None


class Binding(Row, frozen=True):
    """An unbacked symbol that a node brings into being, and the way to it from the node's value."""

    symbol: int
    path: list[KeyStep]


class Subgraph(Row, frozen=True):
    """A graph under the name by which ``get_attr`` nodes reach it; ``graph`` is its place in the list of graphs."""

    name: str
    graph: int


class Attribute(Row, frozen=True):
    """A tensor under the name by which ``get_attr`` nodes reach it; ``tensor`` is its place in the manifest's table."""

    name: str
    tensor: int


class Callee(Row, frozen=True):
    """What ``flat_apply`` calls, under the name by which ``get_attr`` nodes reach it.

    Attributes:
        name: The name.
        made: Module and name of a class of wrapper tensors, which is called to make one; None for the autograd
            function of which the node that calls gives the name, before all that the function is called with.
    """

    name: str
    made: tuple[str, str] | None = None


class Skeleton(Row, frozen=True):
    """How ``flat_apply`` puts its flat arguments together, under the name by which ``get_attr`` nodes reach it.

    Attributes:
        name: The name.
        tree: Positional and keyword arguments in plain containers: a tuple of a tuple and a dictionary, in which None
            stands wherever a flat argument belongs.
    """

    name: str
    tree: Literal


class Graph(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Nodes in execution order, and what they reach by name.

    Nodes are columns: the first entry of each belongs to the first node, and so on.

    Attributes:
        names: Their names, which are unique in the graph.
        targets: Places in the table of targets.
        arities: How many positional arguments each has. A ``get_attr`` node has one: the name of a subgraph or tensor.
        operands: Positional arguments, those of one node after those of the node before it.
        keywords: Places in the table of keyword arguments.
        values: Places in the table of values, or :data:`ABSENT`.
        modules: ``nn_module_stack``: places in the table of frames plus one, 0 for an empty stack, or :data:`ABSENT`.
        functions: ``torch_fn``: places in the table of functions, or :data:`ABSENT`.
        custom: User metadata of the nodes that have any: place in the table of arguments, by place of the node.
        bindings: Unbacked symbols that nodes bring into being: place in the table of bindings, by place of the node.
        subgraphs: Subgraphs by name.
        attributes: Tensors by name.
        callees: What ``flat_apply`` calls, by name.
        skeletons: How it puts arguments together, by name.
    """

    names: list[str]
    targets: list[int]
    arities: list[int]
    operands: list[int]
    keywords: list[int]
    values: list[int]
    modules: list[int]
    functions: list[int]
    custom: dict[int, int] = {}
    bindings: dict[int, int] = {}
    subgraphs: list[Subgraph] = []
    attributes: list[Attribute] = []
    callees: list[Callee] = []
    skeletons: list[Skeleton] = []


def node_rows(graph: Graph) -> Iterator[tuple[str, int, list[int], int]]:
    """Of each node, in order: its name, place of its target, operands and place of its keyword arguments."""
    operands = iter(graph.operands)
    for name, target, arity, keywords in zip(graph.names, graph.targets, graph.arities, graph.keywords, strict=True):
        yield name, target, list(islice(operands, arity)), keywords


def names_read(graph: Graph) -> list[str]:
    """The names by which ``get_attr`` nodes of a graph may read."""
    tables = (graph.subgraphs, graph.attributes, graph.callees, graph.skeletons)
    return [row.name for table in tables for row in table]


class ProgramGraph(Struct, frozen=True, kw_only=True):
    """The whole section.

    Attributes:
        dialect: Which operators may stand in it, as torch's verifiers name it: ``TRAINING``, ``ATEN``, ….
        graphs: The program's graph, then subgraphs; a subgraph stands after every graph that reaches it.
        targets: Table of targets, see :mod:`schema.operators`.
        arguments: Table of arguments.
        keywords: Table of keyword arguments.
        values: Table of values.
        frames: Table of module-stack levels.
        functions: Table of ``torch_fn`` pairs.
        bindings: Table of lists of unbacked symbols.
        custom: User metadata of the whole program.
    """

    dialect: str
    graphs: list[Graph]
    targets: list[str]
    arguments: list[Argument]
    keywords: list[Keywords]
    values: list[Value]
    frames: list[ModuleFrame] = []
    functions: list[tuple[str, str]] = []
    bindings: list[list[Binding]] = []
    custom: Literal = None
