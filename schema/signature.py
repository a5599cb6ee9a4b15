"""The ``signature`` section: what each input and output of the graph is to the program."""

from typing import Final

from msgspec import Struct

from schema.literals import Literal, Row

ARGUMENT_KINDS: Final = ("tensor", "symint", "symfloat", "symbool", "constant", "object", "token")
INPUT_KINDS: Final = ("user_input", "parameter", "buffer", "constant_tensor", "custom_obj", "token")
OUTPUT_KINDS: Final = (
    "user_output",
    "loss_output",
    "buffer_mutation",
    "parameter_mutation",
    "gradient_to_parameter",
    "gradient_to_user_input",
    "user_input_mutation",
    "token",
)
USER_OUTPUT_KINDS: Final = ("user_output", "loss_output")
"""Outputs that the caller gets; the others are written back."""


class Argument(Row, frozen=True):
    """A value at the border of a graph.

    Attributes:
        kind: One of :data:`ARGUMENT_KINDS`.
        name: Name of the node that is or makes it; empty for a constant without one.
        value: The constant, or the class of a script object: ``torch.classes.NAMESPACE.NAME``.
    """

    kind: str
    name: str
    value: Literal = None


class Input(Row, frozen=True):
    """An input of the graph.

    Attributes:
        kind: One of :data:`INPUT_KINDS`.
        argument: The placeholder.
        target: FQN of the parameter, buffer or constant.
        persistent: Of a buffer, whether it is in the state dictionary; of a constant, whether torch took it for one.
    """

    kind: str
    argument: Argument
    target: str | None = None
    persistent: bool | None = None


class Output(Row, frozen=True):
    """An output of the graph.

    Attributes:
        kind: One of :data:`OUTPUT_KINDS`.
        argument: The value.
        target: What it is written back to: FQN of a parameter or buffer, or name of a user input.
    """

    kind: str
    argument: Argument
    target: str | None = None


class Signature(Struct, frozen=True, kw_only=True):
    """The whole section: one entry per placeholder and per output of the graph, in their order."""

    inputs: list[Input]
    outputs: list[Output]
