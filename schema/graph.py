"""The ``graph`` section: nodes, and the tables that they share.

One method has one table of each kind, and a list of graphs of which the first is the program's and the others are
the subgraphs of its higher-order operators.
"""

from __future__ import annotations

from typing import Final, Union

from msgspec import Struct

from schema.literals import Device, Literal, Row

ABSENT: Final = -1
"""Index that says that a node has no such metadata."""


class ListOf(Row, frozen=True, tag="list"):
    """A list that holds results of nodes."""

    items: list[Operand]


class TupleOf(Row, frozen=True, tag="tuple"):
    """A tuple that holds results of nodes."""

    items: list[Operand]


class DictOf(Row, frozen=True, tag="dict"):
    """A dictionary whose values hold results of nodes; ``keys`` are places in the table of literals."""

    keys: list[int]
    values: list[Operand]


class SliceOf(Row, frozen=True, tag="slice"):
    """A slice that holds results of nodes: start, stop, step."""

    parts: tuple[Operand, Operand, Operand]


Operand = Union[int, ListOf, TupleOf, DictOf, SliceOf]  # noqa: UP007
"""An argument of a node.

A whole number that is not negative is a place in the table of literals; ``-k`` is the result of the node ``k`` places
before this one in the same graph. A container stands here only if it holds a node's result; other containers are
literals.
"""


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
        context: The other result of ``__tensor_flatten__``: place in the table of literals.
        outer: The tensor that it stands for: place in the table of values.
    """

    module: str
    qualname: str
    attributes: list[str]
    parts: list[int]
    context: int
    outer: int


class LiteralValue(Row, frozen=True, tag="literal"):
    """A plain value, by its place in the table of literals."""

    literal: int


class ListValue(Row, frozen=True, tag="list"):
    """A list of values, by their places in the table of values."""

    items: list[int]


class TupleValue(Row, frozen=True, tag="tuple"):
    """A tuple of values, by their places in the table of values."""

    items: list[int]


Value = Union[TensorValue, SparseValue, SubclassValue, Symbolic, LiteralValue, ListValue, TupleValue]  # noqa: UP007


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


class Node(Row, frozen=True):
    """One node.

    Attributes:
        target: Place in the table of targets.
        name: Its name, unique in its graph.
        args: Positional arguments. A ``get_attr`` node has one: the name of a subgraph or attribute.
        kwargs: Keyword arguments, in order.
        value: Place in the table of values, or :data:`ABSENT`.
        modules: ``nn_module_stack``: place in the table of frames plus one, 0 for an empty stack, or :data:`ABSENT`.
        function: ``torch_fn``: place in the table of functions, or :data:`ABSENT`.
        custom: User metadata: place in the table of literals, or :data:`ABSENT`.
        bindings: Unbacked symbols: place in the table of bindings, or :data:`ABSENT`.
    """

    target: int
    name: str
    args: list[Operand]
    kwargs: dict[str, Operand] = {}
    value: int = ABSENT
    modules: int = ABSENT
    function: int = ABSENT
    custom: int = ABSENT
    bindings: int = ABSENT


class Subgraph(Row, frozen=True):
    """A graph under the name by which ``get_attr`` nodes reach it; ``graph`` is its place in the list of graphs."""

    name: str
    graph: int


class Attribute(Row, frozen=True):
    """A tensor under the name by which ``get_attr`` nodes reach it; ``tensor`` is its place in the manifest's table."""

    name: str
    tensor: int


class Graph(Row, frozen=True):
    """Nodes in execution order, and the subgraphs and tensors that they reach by name."""

    nodes: list[Node]
    subgraphs: list[Subgraph] = []
    attributes: list[Attribute] = []


class ProgramGraph(Struct, frozen=True, kw_only=True):
    """The whole section.

    Attributes:
        dialect: Which operators may stand in it, as torch's verifiers name it: ``TRAINING``, ``ATEN``, ….
        graphs: The program's graph, then subgraphs; a subgraph stands after every graph that reaches it.
        targets: Table of targets, see :mod:`schema.operators`.
        literals: Table of literals.
        values: Table of values.
        frames: Table of module-stack levels.
        functions: Table of ``torch_fn`` pairs.
        bindings: Table of lists of unbacked symbols.
        custom: User metadata of the whole program.
    """

    dialect: str
    graphs: list[Graph]
    targets: list[str]
    literals: list[Literal]
    values: list[Value]
    frames: list[ModuleFrame] = []
    functions: list[tuple[str, str]] = []
    bindings: list[list[Binding]] = []
    custom: Literal = None
