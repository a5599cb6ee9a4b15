"""All parts of a method to an ``ExportedProgram``."""

from __future__ import annotations

from typing import Any

import torch

from archive.reading import ArchiveFile
from loader.devices import Devices
from loader.operators import Operators
from loader.rebuild.graph import Metadata, Tables, build_graphs
from loader.rebuild.literals import LiteralBuilder
from loader.rebuild.signature import build_signature
from loader.rebuild.symbols import SymbolBuilder
from loader.rebuild.tensors import TensorBuilder
from loader.rebuild.trees import TreeBuilder, build_calls
from loader.rebuild.values import ValueBuilder
from loader.torch_internals import exported_program, fake_mode, load_verifier, pytree
from schema.calls import Calls
from schema.constraints import Constraints
from schema.debug import Debug
from schema.errors import ArchiveError, FormatError, Loc
from schema.graph import ProgramGraph
from schema.manifest import ExampleValue, Method, NamedTensor
from schema.names import check_fqn
from schema.signature import Signature


def rebuild_program(
    archive: ArchiveFile,
    method: Method,
    tensors: TensorBuilder,
    devices: Devices,
    operators: Operators,
    *,
    debug: bool = False,
) -> torch.export.ExportedProgram:
    """The program of one method.

    Args:
        archive: The archive.
        method: The method.
        tensors: Builds the archive's tensors.
        devices: Where recorded devices are put.
        operators: Resolves targets.
        debug: Whether to give nodes their stack traces.

    Raises:
        FormatError: A section is malformed, or torch's verifier refuses the program.
        IntegrityError: A section is not the one that was written.
        OperatorError: An operator is forbidden, not admitted or unknown.
    """
    name = method.name
    literals = LiteralBuilder(devices, operators)
    mode = fake_mode()
    symbols = SymbolBuilder(archive.section(name, "constraints", Constraints), mode.shape_env)
    tables = Tables(archive.section(name, "graph", ProgramGraph), literals, operators)
    values = ValueBuilder(tables.document.values, tables.literals, literals, symbols, mode)
    metadata = Metadata(tables, values, symbols, archive.section(name, "debug", Debug) if debug else None)
    graph, root = build_graphs(tables, metadata)
    calls = archive.section(name, "calls", Calls)
    trees = TreeBuilder(calls.types, literals)
    ranges = symbols.ranges()
    symbols.guard()
    _check_strings(graph)
    verifier = load_verifier(tables.document.dialect)
    if verifier is None:
        raise FormatError(f"torch {torch.__version__} has no dialect {tables.document.dialect[:80]!r}", loc=("graph",))
    parts = {
        "graph_signature": build_signature(archive.section(name, "signature", Signature), literals),
        "state_dict": build_named(method.state, tensors, (name, "state")),
        "constants": build_named(method.constants, tensors, (name, "constants")),
        "module_call_graph": build_calls(calls, trees, literals),
        "example_inputs": build_example(method, calls, trees, tensors, literals),
    }
    program = _assemble(root=root, graph=graph, range_constraints=ranges, verifiers=[verifier], **parts)
    custom = literals.build(tables.document.custom, ("graph", "custom"))
    if custom is not None:
        program.graph_module.meta["custom"] = custom
    return program


def build_named(rows: list[NamedTensor], tensors: TensorBuilder, loc: Loc) -> dict[str, torch.Tensor]:
    """Tensors by FQN.

    Raises:
        FormatError: A key is no FQN.
    """
    return {check_fqn(row.key, loc): tensors.build(row.tensor) for row in rows}


def build_values(rows: list[ExampleValue], tensors: TensorBuilder, literals: LiteralBuilder) -> list[Any]:
    """Recorded flat values."""
    return [
        literals.build(row.value, ("example", index)) if row.tensor is None else tensors.build(row.tensor)
        for index, row in enumerate(rows)
    ]


def build_example(
    method: Method, calls: Calls, trees: TreeBuilder, tensors: TensorBuilder, literals: LiteralBuilder
) -> Any:
    """The recorded example inputs as (args, kwargs), None if there are none.

    Raises:
        FormatError: They do not fit their tree.
    """
    if method.example is None or calls.example is None:
        return None
    spec = trees.build(calls.example, ("calls", "example"))
    flat = build_values(method.example, tensors, literals)
    if len(flat) != spec.num_leaves:
        raise FormatError("the example does not fit its tree", loc=("calls", "example"))
    return pytree.tree_unflatten(flat, spec)


def _check_strings(graph: torch.fx.Graph) -> None:
    """Refuse strings that torch would write between quotes into the code that checks inputs."""
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if isinstance(value, str) and (not value.isprintable() or set(value) & set("'\\")):
            raise FormatError("a string input holds a quote or control character", loc=("graph", node.name))


def _assemble(**parts: Any) -> torch.export.ExportedProgram:
    try:
        return exported_program(**parts)
    except ArchiveError:
        raise
    except Exception as error:  # torch's verifier and graph linter raise many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"torch refuses the program: {reason}") from error
