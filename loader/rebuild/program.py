"""All parts of a method to an ``ExportedProgram``."""

from __future__ import annotations

from typing import Any

import torch

from loader.opening import OpenMethod
from loader.rebuild.fakes import LazyMode
from loader.rebuild.graph import build_graphs
from loader.rebuild.metadata import Metadata
from loader.rebuild.signature import build_signature
from loader.rebuild.stored import build_example, build_named
from loader.rebuild.symbols import SymbolBuilder
from loader.rebuild.tables import Tables
from loader.rebuild.trees import TreeBuilder, build_calls
from loader.rebuild.values import ValueBuilder
from loader.rebuild.verification import verify_graphs
from loader.torch_internals import exported_program, verify_borders
from schema.calls import Calls
from schema.constraints import Constraints
from schema.debug import Debug
from schema.errors import ArchiveError, FormatError
from schema.graph import ProgramGraph
from schema.names import check_plain_text
from schema.signature import Signature


def rebuild_program(opened: OpenMethod, *, debug: bool = False) -> torch.export.ExportedProgram:
    """The program of one method.

    Args:
        opened: The method.
        debug: Whether to give nodes their stack traces.

    Raises:
        FormatError: A section is malformed, or torch's verifier refuses the program.
        IntegrityError: A section is not the one that was written.
        OperatorError: An operator is forbidden, not admitted or unknown.
    """
    literals = opened.literals
    mode = LazyMode()
    symbols = SymbolBuilder(opened.section("constraints", Constraints), mode)
    tables = Tables(opened.section("graph", ProgramGraph), literals, opened.operators)
    verifier = verify_graphs(tables)
    values = ValueBuilder(tables, literals, symbols, mode, opened.classes)
    metadata = Metadata(tables, values, symbols, opened.section("debug", Debug) if debug else None)
    graph, root = build_graphs(tables, opened.tensors, metadata)
    symbols.guard()
    _check_strings(graph)
    calls = opened.section("calls", Calls)
    trees = TreeBuilder(calls.types, literals)
    program = _assemble(
        root=root,
        graph=graph,
        verifiers=[verifier],
        symbolic=bool(symbols.symbols),
        graph_signature=build_signature(opened.section("signature", Signature), literals),
        state_dict=build_named(opened, "state"),
        range_constraints=symbols.ranges(),
        module_call_graph=build_calls(calls, trees, literals),
        example_inputs=build_example(opened, calls, trees),
        constants=build_named(opened, "constants"),
    )
    custom = literals.build(tables.document.custom, ("graph", "custom"))
    if custom is not None:
        program.graph_module.meta["custom"] = custom
    return program


def _check_strings(graph: torch.fx.Graph) -> None:
    """Refuse strings that torch would write between quotes into the code that checks inputs."""
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if isinstance(value, str):
            check_plain_text(value, ("graph", node.name))


def _assemble(**parts: Any) -> torch.export.ExportedProgram:
    try:
        program = exported_program(**parts)
        verify_borders(program)
    except ArchiveError:
        raise
    except Exception as error:  # torch's verifier and graph linter raise many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"torch refuses the program: {reason}") from error
    return program
