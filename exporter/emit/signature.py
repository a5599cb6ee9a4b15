"""Graph signatures: the ``signature`` section."""

from __future__ import annotations

from typing import Any

from torch.export.graph_signature import (
    ConstantArgument,
    CustomObjArgument,
    ExportGraphSignature,
    InputSpec,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
    TokenArgument,
)

from exporter.emit.literals import emit_literal
from exporter.emit.objects import emit_class_name
from exporter.emit.texts import check_fqns, check_text
from schema import signature as documents
from schema.errors import Loc
from schema.literals import Literal

_KINDS: dict[type, str] = {
    TensorArgument: "tensor",
    SymIntArgument: "symint",
    SymFloatArgument: "symfloat",
    SymBoolArgument: "symbool",
    ConstantArgument: "constant",
    TokenArgument: "token",
    CustomObjArgument: "object",
}


def emit_argument(argument: Any, loc: Loc) -> documents.Argument:
    """A value at the border of a graph.

    Raises:
        UnsupportedError: It is an opaque object, or a constant that is no plain value.
    """
    value: Literal = None
    if isinstance(argument, ConstantArgument):
        value = emit_literal(argument.value, (*loc, argument.name))
    if isinstance(argument, CustomObjArgument):
        value = emit_class_name(argument.class_fqn, (*loc, argument.name))
    return documents.Argument(_KINDS[type(argument)], argument.name, value)


def emit_signature(signature: ExportGraphSignature) -> documents.Signature:
    """The whole section."""
    check_fqns([spec.target for spec in signature.input_specs if spec.target is not None], ("inputs",))
    inputs = [_emit_input(spec, ("inputs", index)) for index, spec in enumerate(signature.input_specs)]
    outputs = [
        documents.Output(spec.kind.name.lower(), emit_argument(spec.arg, ("outputs", index)), spec.target)
        for index, spec in enumerate(signature.output_specs)
    ]
    return documents.Signature(inputs=inputs, outputs=outputs)


def _emit_input(spec: InputSpec, loc: Loc) -> documents.Input:
    value = getattr(spec.arg, "value", None)
    if isinstance(value, str):
        check_text(value, (*loc, spec.arg.name))
    return documents.Input(spec.kind.name.lower(), emit_argument(spec.arg, loc), spec.target, spec.persistent)
