"""Graph signatures."""

from __future__ import annotations

from typing import Any

from torch.export import graph_signature as torch_signature

from loader.rebuild.literals import LiteralBuilder
from schema import signature as documents
from schema.errors import FormatError, Loc
from schema.names import check_fqn, check_identifier

_NAMED: dict[str, Any] = {
    "tensor": torch_signature.TensorArgument,
    "symint": torch_signature.SymIntArgument,
    "symfloat": torch_signature.SymFloatArgument,
    "symbool": torch_signature.SymBoolArgument,
    "token": torch_signature.TokenArgument,
}


def build_argument(row: documents.Argument, literals: LiteralBuilder, loc: Loc) -> Any:
    """A value at the border of a graph.

    Raises:
        FormatError: Its kind is unknown, or its name could not be that of a node.
    """
    if row.name:
        check_identifier(row.name, loc)
    if row.kind == "constant":
        return torch_signature.ConstantArgument(name=row.name, value=literals.build(row.value, loc))
    if row.kind not in _NAMED:
        raise FormatError(f"an argument of kind {row.kind[:80]!r}", loc=loc)
    return _NAMED[row.kind](name=row.name)


def build_signature(document: documents.Signature, literals: LiteralBuilder) -> torch_signature.ExportGraphSignature:
    """The whole signature.

    Raises:
        FormatError: A kind is unknown, or a target is no qualified name.
    """
    inputs = [_input(row, literals, ("signature", "inputs", index)) for index, row in enumerate(document.inputs)]
    outputs = [_output(row, literals, ("signature", "outputs", index)) for index, row in enumerate(document.outputs)]
    return torch_signature.ExportGraphSignature(input_specs=inputs, output_specs=outputs)


def _input(row: documents.Input, literals: LiteralBuilder, loc: Loc) -> torch_signature.InputSpec:
    if row.persistent is None and row.kind == "buffer":
        raise FormatError("a buffer has to be persistent or not", loc=loc)
    if row.persistent is not None and row.kind not in ("buffer", "constant_tensor"):
        raise FormatError(f"an input of the kind {row.kind[:80]!r} is neither persistent nor not", loc=loc)
    return torch_signature.InputSpec(
        kind=_kind(torch_signature.InputKind, row.kind, documents.INPUT_KINDS, loc),
        arg=build_argument(row.argument, literals, loc),
        target=row.target if row.target is None else check_fqn(row.target, loc),
        persistent=row.persistent,
    )


def _output(row: documents.Output, literals: LiteralBuilder, loc: Loc) -> torch_signature.OutputSpec:
    return torch_signature.OutputSpec(
        kind=_kind(torch_signature.OutputKind, row.kind, documents.OUTPUT_KINDS, loc),
        arg=build_argument(row.argument, literals, loc),
        target=row.target if row.target is None else check_fqn(row.target, loc),
    )


def _kind(kinds: Any, name: str, known: tuple[str, ...], loc: Loc) -> Any:
    found = getattr(kinds, name.upper(), None) if name in known else None
    if found is None:
        raise FormatError(f"a value of kind {name[:80]!r}", loc=loc)
    return found
