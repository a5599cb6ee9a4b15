"""All parts of a method to an ``ExportedProgram``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch

from loader.opening import OpenMethod
from loader.rebuild.fakes import LazyMode
from loader.rebuild.graph import build_graphs
from loader.rebuild.metadata import Metadata
from loader.rebuild.signature import build_signature
from loader.rebuild.symbols import SymbolBuilder
from loader.rebuild.tables import Tables
from loader.rebuild.trees import TreeBuilder, build_calls
from loader.rebuild.values import ValueBuilder
from loader.rebuild.verification import verify_graphs
from loader.torch_internals import TreeSpec, exported_program, pytree, verify_borders
from schema.calls import Calls
from schema.constraints import Constraints
from schema.debug import Debug
from schema.errors import ArchiveError, FormatError
from schema.graph import ProgramGraph
from schema.manifest import ExampleValue, NamedTensor
from schema.names import check_fqn, check_plain_text
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


def build_named(opened: OpenMethod, table: Literal["state", "constants"]) -> dict[str, torch.Tensor]:
    """The tensors of a method's state dictionary or constants, by FQN.

    Raises:
        FormatError: A key is no FQN.
    """
    rows: list[NamedTensor] = getattr(opened.method, table)
    loc = (opened.method.name, table)
    return {check_fqn(row.key, loc): opened.tensors.build(row.tensor) for row in rows}


def build_values(opened: OpenMethod, rows: list[ExampleValue]) -> list[Any]:
    """Recorded flat values."""
    return [
        opened.literals.build(row.value, ("example", index)) if row.tensor is None else opened.tensors.build(row.tensor)
        for index, row in enumerate(rows)
    ]


def build_example(opened: OpenMethod, calls: Calls, trees: TreeBuilder) -> Any:
    """The recorded example inputs as (args, kwargs), None if there are none.

    Raises:
        FormatError: They do not fit their tree.
    """
    if opened.method.example is None or calls.example is None:
        return None
    spec = trees.build(calls.example, ("calls", "example"), inputs=True)
    flat = build_values(opened, opened.method.example)
    if len(flat) != spec.num_leaves:
        raise FormatError("the example does not fit its tree", loc=("calls", "example"))
    try:
        return _unflatten(iter(flat), spec)
    except Exception as error:  # a user's class may refuse in whatever way
        raise FormatError(f"the example does not fit its classes: {error}", loc=("calls", "example")) from error


def _unflatten(leaves: Iterator[Any], spec: TreeSpec) -> Any:
    """Put a value together as torch does, but for ``torch.Size``, of which torch makes a tuple."""
    if spec.is_leaf():
        return next(leaves)
    parts = [_unflatten(leaves, child) for child in spec.children()]
    if spec.type is torch.Size:
        return torch.Size(parts)
    return pytree.tree_unflatten(parts, TreeSpec(spec.type, spec.context, [pytree.treespec_leaf()] * len(parts)))


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
