"""A program as a module that is called, and nothing more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from msgspec import Struct

from archive.collector import collector_paused
from loader.code import Code
from loader.contract import Contract, flat_inputs
from loader.devices import Target
from loader.opening import OpenMethod, Verify, open_method
from loader.rebuild.stored import build_constants, build_example, build_named
from loader.rebuild.tables import Tables
from loader.rebuild.trees import TreeBuilder, build_own_call
from loader.rebuild.verification import verify_graphs
from loader.torch_internals import TreeSpec, pytree
from schema.calls import Calls
from schema.constraints import Constraints
from schema.errors import FormatError, Loc
from schema.graph import ListOf, ProgramGraph, TupleOf
from schema.limits import DEFAULT_LIMITS, Limits
from schema.signature import USER_OUTPUT_KINDS, Input, Signature

if TYPE_CHECKING:
    from loader.given import Weights

_GIVEN = ("user_input", "token")
_WRITTEN_BACK = ("buffer_mutation", "parameter_mutation", "user_input_mutation")


def load_module(
    path: str | os.PathLike[str],
    *,
    method: str = "forward",
    device: Target = None,
    weights: Weights | None = None,
    mmap: bool = True,
    allow_ops: Iterable[str] = (),
    allow_classes: Iterable[str] = (),
    verify: Verify = "sections",
    limits: Limits = DEFAULT_LIMITS,
) -> ProgramModule:
    """The program of an archive as a module to call: the fast way to run it.

    Calls check their arguments against what the program was captured for, and raise
    :class:`~schema.errors.InputError` in one line where one does not fit. The graph is the captured one: ``train()``
    and ``eval()`` change nothing in it, and devices are chosen here, by ``device``.

    The arguments are those of :func:`loader.load`, and so are the errors.
    """
    opening = open_method(
        path,
        method=method,
        device=device,
        weights=weights,
        mmap=mmap,
        allow_ops=allow_ops,
        allow_classes=allow_classes,
        verify=verify,
        limits=limits,
    )
    with collector_paused(), opening as opened:
        return build_module(opened)


class _Program(Struct, frozen=True):
    """What a module runs.

    Attributes:
        code: The graph as a function of all its inputs.
        contract: What calls must be.
        out_spec: Tree of the result.
        owners: The modules that have inputs, and those on the way: the place among them of the one above, where the
            whole is the first, and the name in that.
        inputs: Of each input of the graph, the place of its owner and its name; None where it is the user's.
        returned: Places of the outputs of the graph that the user gets.
        written: Places of other outputs, and of the inputs that they are written back to.
    """

    code: Code
    contract: Contract
    out_spec: TreeSpec
    owners: list[tuple[int, str]]
    inputs: list[tuple[int, str] | None]
    returned: list[int]
    written: list[tuple[int, int]]


class ProgramModule(torch.nn.Module):
    """A loaded program. Its parameters and buffers have the names that they had in the captured module.

    Attributes:
        example_inputs: The recorded example as (args, kwargs), None if there is none.
    """

    _program: _Program
    _token = None
    """Stands for the tokens that order effects: code that runs in its order needs none."""

    example_inputs: tuple[tuple[Any, ...], dict[str, Any]] | None

    def __init__(self, program: _Program, example_inputs: tuple[tuple[Any, ...], dict[str, Any]] | None) -> None:
        super().__init__()
        self._program = program
        self.example_inputs = example_inputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program.

        Raises:
            InputError: An argument is not what the program was captured for.
        """
        program = self._program
        user = iter(program.contract.flatten(args, kwargs))
        owners: list[torch.nn.Module] = [self]
        for place, name in program.owners:
            owners.append(owners[place]._modules[name])  # type: ignore[arg-type]
        inputs = [next(user) if each is None else _get(owners[each[0]], each[1]) for each in program.inputs]
        outputs = program.code.run(*inputs)
        for place, source in program.written:
            with torch.no_grad():
                inputs[source].copy_(outputs[place])
        return pytree.tree_unflatten([outputs[place] for place in program.returned], program.out_spec)


def build_module(opened: OpenMethod) -> ProgramModule:
    """The program of an open method as a module.

    Raises:
        FormatError: A section is malformed.
    """
    name, literals = opened.method.name, opened.literals
    tables = Tables(opened.section("graph", ProgramGraph), literals, opened.operators, opened.classes)
    verify_graphs(tables)
    signature = opened.section("signature", Signature)
    calls = opened.section("calls", Calls)
    trees = TreeBuilder(calls.types, literals)
    call = build_own_call(calls, trees, literals)
    _check_borders(tables, signature, call.out_spec, (name, "signature"))
    owners, inputs = _sources(signature.inputs)
    program = _Program(
        code=Code(tables, _subgraphs(tables, opened)),
        contract=_contract(opened, tables, signature, _arguments(call)),
        out_spec=call.out_spec,
        owners=owners,
        inputs=inputs,
        returned=[place for place, row in enumerate(signature.outputs) if row.kind in USER_OUTPUT_KINDS],
        written=_written(signature, (name, "signature")),
    )
    module = ProgramModule(program, build_example(opened, calls, trees))
    _register(module, opened, signature)
    return module


def _subgraphs(tables: Tables, opened: OpenMethod) -> torch.nn.Module:
    """The module whose attributes the program's graph reads."""
    if len(tables.document.graphs) == 1 and not tables.specs[0]:
        return torch.nn.Module()
    from loader.rebuild.graph import build_root, build_subgraphs  # which most programs do without

    return build_root(tables, opened.tensors, 0, build_subgraphs(tables, opened.tensors, None))


def _contract(
    opened: OpenMethod, tables: Tables, signature: Signature, arguments: list[tuple[str, TreeSpec]]
) -> Contract:
    users = [row.argument.name for row in signature.inputs if row.kind == "user_input"]
    paths = [port.name for port in opened.method.inputs]
    if not len(users) == len(paths) == sum(spec.num_leaves for _, spec in arguments):
        raise FormatError("the inputs do not fit the signature", loc=(opened.method.name, "signature"))
    inputs = flat_inputs(tables, users, paths, opened.literals, opened.objects.classes)
    return Contract(arguments, inputs, opened.section("constraints", Constraints))


def _check_borders(tables: Tables, signature: Signature, out_spec: TreeSpec, loc: Loc) -> None:
    """The signature speaks of the graph's placeholders and outputs, in their order."""
    graph = tables.document.graphs[0]
    kinds = [tables.targets[target] for target in graph.targets]
    placeholders = [name for name, kind in zip(graph.names, kinds, strict=True) if kind == "placeholder"]
    if placeholders != [row.argument.name for row in signature.inputs]:
        raise FormatError("the inputs are not the placeholders of the graph", loc=loc)
    results = _results(tables)
    if len(results) != len(signature.outputs):
        raise FormatError("the outputs are not those of the graph", loc=loc)
    for row, result in zip(signature.outputs, results, strict=True):
        place = len(graph.names) - 1 + result
        if place < 0 or (result < 0 and graph.names[place] != row.argument.name):
            raise FormatError(f"the output {row.argument.name[:80]} is another node's result", loc=loc)
    if out_spec.num_leaves != sum(row.kind in USER_OUTPUT_KINDS for row in signature.outputs):
        raise FormatError("the outputs do not fit their tree", loc=loc)


def _results(tables: Tables) -> Sequence[int]:
    """The operands that the graph returns."""
    graph = tables.document.graphs[0]
    if graph.arities[-1:] == [1]:
        place = graph.operands[-1]
        row = tables.containers.get(place)
        if isinstance(row, (ListOf, TupleOf)):
            return row.items
        if place >= 0 and isinstance(values := tables.arguments[place], (list, tuple)):
            return [place] * len(values)
    raise FormatError("the program's graph must end in an output of a list or tuple", loc=("graph",))


def _written(signature: Signature, loc: Loc) -> list[tuple[int, int]]:
    """Places of the outputs that are written back, and of the inputs that they are written to."""
    users = {row.argument.name: place for place, row in enumerate(signature.inputs) if row.kind == "user_input"}
    states = {row.target: place for place, row in enumerate(signature.inputs) if row.kind != "user_input"}
    pairs = []
    for place, row in enumerate(signature.outputs):
        if row.kind in _WRITTEN_BACK:
            source = (users if row.kind == "user_input_mutation" else states).get(row.target or "")
            if source is None:
                raise FormatError(f"an output is written to {str(row.target)[:80]!r}, which is no input", loc=loc)
            pairs.append((place, source))
    return pairs


def _arguments(call: Any) -> list[tuple[str, TreeSpec]]:
    """Name and tree of each argument: positional ones, then keyword ones as they were given at capture."""
    args, kwargs = call.in_spec.children()
    known = call.forward_arg_names or []
    positional = args.children()
    names = [known[index] if index < len(known) else f"args_{index}" for index in range(len(positional))]
    return list(zip([*names, *kwargs.context], [*positional, *kwargs.children()], strict=True))


def _register(module: ProgramModule, opened: OpenMethod, signature: Signature) -> None:
    state = build_named(opened, "state")
    values = {**build_constants(opened), **state}
    for index, row in enumerate(signature.inputs):
        if row.kind not in _GIVEN and row.target not in values:
            raise FormatError("an input without a tensor", loc=(opened.method.name, "signature", "inputs", index))
    read = {row.target for row in signature.inputs}
    modules: dict[str, torch.nn.Module] = {"": module}
    # The whole state dictionary, not only what the graph reads: it is the user's.
    for fqn, value in values.items():
        path, _, name = fqn.rpartition(".")
        try:
            owner = _module_at(path, modules)
            if isinstance(value, torch.nn.Parameter):
                owner.register_parameter(name, value)
            elif isinstance(value, torch.Tensor):
                owner.register_buffer(name, value, persistent=fqn in state)
            elif fqn in read:  # of objects that the user gives, the program keeps the example's
                _set_object(owner, name, value)
        except (AttributeError, KeyError) as error:
            raise FormatError(f"no module can hold a tensor of this name: {error}", loc=(fqn,)) from error


def _set_object(owner: torch.nn.Module, name: str, value: Any) -> None:
    if hasattr(owner, name):
        raise KeyError(f"attribute '{name}' already exists")
    setattr(owner, name, value)


def _module_at(path: str, modules: dict[str, torch.nn.Module]) -> torch.nn.Module:
    """The module at a path, made with those on the way to it if it is not there."""
    if path not in modules:
        parent, _, name = path.rpartition(".")
        modules[path] = torch.nn.Module()
        _module_at(parent, modules).add_module(name, modules[path])
    return modules[path]


def _sources(rows: Sequence[Input]) -> tuple[list[tuple[int, str]], list[tuple[int, str] | None]]:
    """Where the inputs of the graph come from: owners and inputs of a :class:`_Program`."""
    places: dict[tuple[int, str], int] = {}
    inputs: list[tuple[int, str] | None] = []
    for row in rows:
        if row.kind == "user_input":
            inputs.append(None)
            continue
        *path, name = ("_token" if row.kind == "token" else row.target or "").split(".")
        owner = 0
        for step in path:
            owner = places.setdefault((owner, step), len(places) + 1)
        inputs.append((owner, name))
    return list(places), inputs


def _get(owner: torch.nn.Module, name: str) -> Any:
    found: torch.Tensor | None = owner._parameters.get(name)
    if found is None:
        found = owner._buffers.get(name)
    return getattr(owner, name) if found is None else found  # getattr takes ten times as long
