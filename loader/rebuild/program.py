"""All parts of a method to an ``ExportedProgram``."""

from __future__ import annotations

import os
from typing import Any

import torch

from loader.opening import OpenMethod
from loader.rebuild.fakes import LazyMode
from loader.rebuild.graph import build_graphs
from loader.rebuild.metadata import Metadata
from loader.rebuild.objects import build_inputs
from loader.rebuild.signature import build_signature
from loader.rebuild.stored import build_constants, build_example, build_named
from loader.rebuild.symbols import SymbolBuilder
from loader.rebuild.tables import Tables
from loader.rebuild.trees import TreeBuilder, build_calls
from loader.rebuild.values import ValueBuilder
from loader.rebuild.verification import verify_graphs
from loader.torch_internals import exported_program, state_restored, verify_borders
from schema.calls import Calls
from schema.constraints import Constraints
from schema.debug import Debug
from schema.errors import ArchiveError, FormatError, UsageError
from schema.graph import LiteralValue, ProgramGraph
from schema.names import check_plain_text
from schema.signature import USER_OUTPUT_KINDS, Signature


@state_restored()
def rebuild_program(opened: OpenMethod, *, debug: bool = False) -> torch.export.ExportedProgram:
    """The program of one method.

    Args:
        opened: The method.
        debug: Whether to give nodes their stack traces.

    Raises:
        FormatError: A section is malformed, or torch's verifier refuses the program.
        IntegrityError: A section is not the one that was written.
        OperatorError: An operator is forbidden, not admitted or unknown.
        UsageError: torch would write metadata of the file into code.
    """
    if os.environ.get("FX_GRAPH_SHOW_META", "0") == "1":
        message = "FX_GRAPH_SHOW_META is set: torch would write more of the file into code than what has been checked"
        raise UsageError(message, remedy="unset it, or call loader.load_module")
    literals = opened.literals
    mode = LazyMode()
    symbols = SymbolBuilder(opened.section("constraints", Constraints), mode)
    tables = Tables(opened.section("graph", ProgramGraph), literals, opened.operators, opened.classes)
    verifier = verify_graphs(tables)
    _check_strings(tables)
    inputs = build_inputs(tables.document.values, opened.objects, mode)
    values = ValueBuilder(tables, opened.contexts, symbols, mode, opened.classes, inputs)
    metadata = Metadata(tables, values, symbols, opened.section("debug", Debug) if debug else None)
    graph, root = build_graphs(tables, opened.tensors, metadata)
    symbols.guard()
    signature, calls = opened.section("signature", Signature), opened.section("calls", Calls)
    trees = TreeBuilder(calls.types, literals)
    entries = build_calls(calls, trees, literals)
    _check_trees(signature, entries[0].signature)
    program = _assemble(
        root=root,
        graph=graph,
        verifiers=[verifier],
        guarded=symbols.guarded,
        graph_signature=build_signature(signature, literals, inputs),
        state_dict=build_named(opened, "state"),
        range_constraints=symbols.ranges(),
        module_call_graph=entries,
        example_inputs=build_example(opened, calls, trees),
        constants=build_constants(opened),
    )
    custom = literals.build(tables.document.custom, ("graph", "custom"))
    if custom is not None:
        program.graph_module.meta["custom"] = custom
    return program


def _check_trees(signature: Signature, call: Any) -> None:
    """The trees of the program's own call have the inputs and outputs of its signature."""
    inputs = sum(row.kind == "user_input" for row in signature.inputs)
    outputs = sum(row.kind in USER_OUTPUT_KINDS for row in signature.outputs)
    for what, tree, count in (("inputs", call.in_spec, inputs), ("outputs", call.out_spec, outputs)):
        if tree.num_leaves != count:
            raise FormatError(f"the {what} do not fit their tree", loc=("calls",))


def _check_strings(tables: Tables) -> None:
    """Refuse strings that torch would write between quotes into the code that checks inputs."""
    document = tables.document
    graph = document.graphs[0]
    texts = {
        place: text
        for place, row in enumerate(document.values)
        if isinstance(row, LiteralValue) and isinstance(text := tables.arguments[row.literal], str)
    }
    if texts:
        for name, target, value in zip(graph.names, graph.targets, graph.values, strict=True):
            if value in texts and tables.targets[target] == "placeholder":
                check_plain_text(texts[value], ("graph", name))


def _assemble(**parts: Any) -> torch.export.ExportedProgram:
    try:
        program = exported_program(**parts)
        verify_borders(program)
    except ArchiveError:
        raise
    except Exception as error:  # torch's verifier and graph linter raise many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"torch refuses the program: {reason[:400]}") from error
    return program
