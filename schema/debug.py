"""The ``debug`` section: where in the user's source each node comes from. Read only when asked for."""

from msgspec import Struct

from schema.literals import Row


class SourceName(Row, frozen=True):
    """One entry of a ``source_fn_stack``: a name, and the function or class, by qualified name."""

    name: str
    function: str


class NodesDebug(Row, frozen=True):
    """What is recorded of the nodes of one graph, as columns.

    Attributes:
        stacks: ``stack_trace``: places in the table of stacks plus one, 0 for none.
        sources: ``source_fn_stack``: places in the table of sources plus one, 0 for none.
    """

    stacks: list[int]
    sources: list[int]


class Debug(Struct, frozen=True, kw_only=True):
    """The whole section.

    Attributes:
        frames: Table of stack-trace lines, two to a frame as Python prints them.
        stacks: Table of stack traces: places of frames, outermost first; one without frames is None.
        sources: Table of ``source_fn_stack`` values.
        nodes: For each graph of the ``graph`` section, what is recorded of its nodes.
    """

    frames: list[str] = []
    stacks: list[list[int]] = []
    sources: list[list[SourceName]] = []
    nodes: list[NodesDebug] = []
