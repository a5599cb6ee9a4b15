"""Graph signatures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch.export import graph_signature as torch_signature

from loader.rebuild.literals import LiteralBuilder
from loader.torch_internals import qualified_class_name
from schema import signature as documents
from schema.errors import FormatError, Loc
from schema.names import check_fqns, check_identifiers

_NAMED: dict[str, Any] = {
    "tensor": torch_signature.TensorArgument,
    "symint": torch_signature.SymIntArgument,
    "symfloat": torch_signature.SymFloatArgument,
    "symbool": torch_signature.SymBoolArgument,
    "token": torch_signature.TokenArgument,
}


def _kinds(kinds: Any, names: Sequence[str]) -> dict[str, Any]:
    """Those of torch's kinds that this torch has, by our name."""
    return {name: kind for name in names if (kind := getattr(kinds, name.upper(), None))}


_INPUTS = _kinds(torch_signature.InputKind, documents.INPUT_KINDS)
_OUTPUTS = _kinds(torch_signature.OutputKind, documents.OUTPUT_KINDS)

Objects = Mapping[str, torch_signature.CustomObjArgument]
"""The script objects among the inputs of a program, by name."""

_NO_OBJECTS: Objects = MappingProxyType({})


def build_arguments(
    rows: Sequence[documents.Argument], literals: LiteralBuilder, loc: Loc, objects: Objects = _NO_OBJECTS
) -> list[Any]:
    """Values at the border of a graph.

    Raises:
        FormatError: The kind of one is unknown, its name could not be that of a node, or there is no such object.
    """
    check_identifiers([row.name for row in rows if row.name], loc)
    return [
        _NAMED[row.kind](row.name) if row.kind in _NAMED else _unnamed(row, literals, objects, (*loc, index))
        for index, row in enumerate(rows)
    ]


def _unnamed(row: documents.Argument, literals: LiteralBuilder, objects: Objects, loc: Loc) -> Any:
    """An argument that is more than its name."""
    if row.kind == "object":
        if row.name not in objects or objects[row.name].class_fqn != qualified_class_name(str(row.value)):
            raise FormatError(f"{row.name[:80]!r} is no object of that class", loc=loc)
        return replace(objects[row.name])
    if row.kind != "constant":
        raise FormatError(f"an argument of kind {row.kind[:80]!r}", loc=loc)
    return torch_signature.ConstantArgument(row.name, literals.build(row.value, loc))


def build_signature(
    document: documents.Signature, literals: LiteralBuilder, objects: Objects
) -> torch_signature.ExportGraphSignature:
    """The whole signature.

    Args:
        document: The section.
        literals: Builds constants.
        objects: The script objects among the inputs.

    Raises:
        FormatError: A kind is unknown, or a target is no qualified name.
    """
    for index, row in enumerate(document.inputs):
        if row.persistent is None and row.kind == "buffer":
            raise FormatError("a buffer has to be persistent or not", loc=("signature", "inputs", index))
        if row.persistent is not None and row.kind not in ("buffer", "constant_tensor"):
            message = f"an input of the kind {row.kind[:80]!r} is neither persistent nor not"
            raise FormatError(message, loc=("signature", "inputs", index))
    inputs = _borders(document.inputs, _INPUTS, literals, objects, ("signature", "inputs"))
    outputs = _borders(document.outputs, _OUTPUTS, literals, objects, ("signature", "outputs"))
    persistent = [row.persistent for row in document.inputs]
    return torch_signature.ExportGraphSignature(
        [torch_signature.InputSpec(*border, kept) for border, kept in zip(inputs, persistent, strict=True)],
        [torch_signature.OutputSpec(*border) for border in outputs],
    )


def _borders(
    rows: Sequence[documents.Input | documents.Output],
    kinds: dict[str, Any],
    literals: LiteralBuilder,
    objects: Objects,
    loc: Loc,
) -> Iterator[tuple[Any, Any, str | None]]:
    """Kind, argument and target of each input or output."""
    for index, row in enumerate(rows):
        if row.kind not in kinds:
            raise FormatError(f"a value of kind {row.kind[:80]!r}", loc=(*loc, index))
    check_fqns([row.target for row in rows if row.target is not None], loc)
    arguments = build_arguments([row.argument for row in rows], literals, loc, objects)
    return zip([kinds[row.kind] for row in rows], arguments, [row.target for row in rows], strict=True)
