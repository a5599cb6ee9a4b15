"""The ``calls`` section: the module call graph, and how nested inputs and outputs are flattened."""

from typing import Final, Union

from msgspec import Struct

from schema.literals import Literal, Row
from schema.signature import Argument

TREE_KINDS: Final = ("builtin", "namedtuple", "structseq", "mapping", "sequence", "object", "module")
"""``builtin`` is a container of Python or torch; the others say how values of a user's class behave.

A ``module`` is one that ``forward`` takes as an argument: a container of its parameters and buffers.
"""

DESCRIPTION: Final = "__archive_type__"


class Leaf(Row, frozen=True, tag="leaf"):
    """A value that is not taken apart."""


class Branch(Row, frozen=True, tag="branch"):
    """A container.

    Attributes:
        container: Place in the table of types.
        context: What its type must know to put it together again: the keys of a dictionary, for example, or the names
            that tensors have in a module.
        children: Its parts.
    """

    container: int
    context: Literal
    children: list["Tree"]


Tree = Union[Leaf, Branch]  # noqa: UP007


class TreeType(Struct, frozen=True, kw_only=True):
    """A type of container, described so that it can be replaced where its class is not known.

    A class that replaces another carries the description in its attribute :data:`DESCRIPTION`, so that a program
    that is saved again describes the original.

    Attributes:
        name: Qualified name, or the name it was registered under.
        kind: One of :data:`TREE_KINDS`.
        fields: Names of its fields, in order; also those that may be missing in a value.
        dumped: Whether contexts went through the type's own ``to_dumpable_context``.
    """

    name: str
    kind: str
    fields: list[str] = []
    dumped: bool = False


class CallSignature(Row, frozen=True):
    """How a module was called.

    Attributes:
        inputs: Flat inputs; empty for the program itself.
        outputs: Flat outputs; empty for the program itself.
        in_spec: Tree of (args, kwargs).
        out_spec: Tree of the result.
        argument_names: Names of the arguments of ``forward``, None if unknown.
    """

    inputs: list[Argument]
    outputs: list[Argument]
    in_spec: Tree
    out_spec: Tree
    argument_names: list[str] | None = None


class Call(Row, frozen=True):
    """A module of the captured hierarchy, and its signature if it was asked for."""

    fqn: str
    signature: CallSignature | None = None


class Calls(Struct, frozen=True, kw_only=True):
    """The whole section; the first entry is the program itself.

    Attributes:
        entries: The module call graph.
        types: Table of container types.
        example: Tree of the recorded example's (args, kwargs), None if there is none.
    """

    entries: list[Call]
    types: list[TreeType] = []
    example: Tree | None = None
