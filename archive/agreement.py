"""Whether the manifest, which people read, says what the sections, which are run, say."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from schema.errors import FormatError, Loc
from schema.graph import ProgramGraph, SparseValue, SubclassValue, TensorValue
from schema.operators import NODE_KINDS
from schema.signature import USER_OUTPUT_KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schema.graph import Value
    from schema.manifest import Method, Port
    from schema.signature import Argument, Signature


def check_agreement(method: Method, graph: ProgramGraph, signature: Signature) -> None:
    """Refuse a manifest that misleads about a method.

    Args:
        method: What the manifest says.
        graph: The method's ``graph`` section.
        signature: The method's ``signature`` section.

    Raises:
        FormatError: Operators, nodes, inputs or outputs are not those of the sections.
    """
    loc: Loc = ("manifest", "methods", method.name)
    counts = Counter(graph.targets[target] for each in graph.graphs for target in each.targets)
    called = {target: count for target, count in counts.items() if target not in NODE_KINDS}
    if called != {use.name: use.count for use in method.operators if use.count}:
        raise FormatError("the operators are not those that the graph calls", loc=(*loc, "operators"))
    if method.nodes != counts.total():
        raise FormatError(f"{method.nodes} nodes, and the graph has {counts.total()}", loc=(*loc, "nodes"))
    inputs = [row.argument for row in signature.inputs if row.kind == "user_input"]
    outputs = [row.argument for row in signature.outputs if row.kind in USER_OUTPUT_KINDS]
    _check_ports(method.inputs, inputs, graph, (*loc, "inputs"))
    _check_ports(method.outputs, outputs, graph, (*loc, "outputs"))


def _check_ports(ports: Sequence[Port], arguments: Sequence[Argument], graph: ProgramGraph, loc: Loc) -> None:
    if len(ports) != len(arguments):
        raise FormatError(f"{len(ports)}, and the signature has {len(arguments)}", loc=loc)
    values = dict(zip(graph.graphs[0].names, graph.graphs[0].values, strict=True))
    for port, argument in zip(ports, arguments, strict=True):
        place = values.get(argument.name, -1)
        value = graph.values[place] if 0 <= place < len(graph.values) else None
        value = graph.values[value.outer] if isinstance(value, SubclassValue) else value
        if not _agrees(port, value):
            raise FormatError("not the type or shape that the graph has", loc=(*loc, port.name[:80]))


def _agrees(port: Port, value: Value | None) -> bool:
    """Whether a port describes a value; sizes that may vary are only compared in being so."""
    if not isinstance(value, (TensorValue, SparseValue)):
        return port.kind != "tensor"
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    shown = [size if isinstance(size, int) else None for size in port.shape]
    return (port.kind, port.dtype, shown) == ("tensor", value.dtype, sizes)
