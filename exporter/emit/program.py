"""Programs to an archive's documents and blobs."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import torch
from msgspec.structs import replace

from archive.documents import check_document
from archive.writing import Blob, bytes_blob
from exporter.capture.module_inputs import modules_as_containers
from exporter.emit.debug import emit_debug
from exporter.emit.graph import GraphEmitter
from exporter.emit.guards import Guards, read_guards
from exporter.emit.literals import emit_literal
from exporter.emit.objects import ObjectTable
from exporter.emit.operators import emit_operator
from exporter.emit.ports import emit_ports
from exporter.emit.providers import find_provider
from exporter.emit.shape_environment import find_shape_env
from exporter.emit.signature import emit_signature
from exporter.emit.symbols import SymbolTable
from exporter.emit.tensors import Stored, TensorTable, constant_name
from exporter.emit.texts import check_fqns
from exporter.emit.trees import CallEmitter
from exporter.torch_internals import OpOverload, pytree
from schema import manifest as documents
from schema.codec import compress, decode, encode, most_decoded
from schema.errors import FormatError, Loc, UnsupportedError
from schema.graph import ObjectValue, ProgramGraph, SparseValue, SubclassValue
from schema.names import example_name, section_name
from schema.operators import LISTED_NAMESPACES, listed_operators
from schema.version import ABSENT_STORAGES, FORMAT_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.export.graph_signature import CustomObjArgument

    from schema.calls import Calls

_PRODUCER: Final = documents.Producer(
    name="program-archive",
    version=importlib.metadata.version("program-archive"),  # once: it reads a file, and a save opens none but its own
    torch=str(torch.__version__),
)


class Emitted(NamedTuple):
    """All that an archive is written from.

    Attributes:
        manifest: The manifest, but for the digests of tensors.
        blobs: What is stored.
    """

    manifest: documents.Manifest
    blobs: list[Blob]

    def describe(self, digests: Mapping[str, bytes]) -> bytes:
        """The encoded manifest with the BLAKE3 of each stored tensor, by name."""
        storages = [row if row.absent else replace(row, blake3=digests[row.name]) for row in self.manifest.storages]
        return encode(replace(self.manifest, storages=storages))


def emit_programs(
    programs: Mapping[str, torch.export.ExportedProgram],
    *,
    expected: Mapping[str, Sequence[Any]] | None = None,
    keep_paths: bool = False,
    examples: bool = True,
    weights: bool = True,
) -> Emitted:
    """Documents and blobs of some programs that share their tensors.

    Args:
        programs: Programs by the name of their method.
        expected: Flat outputs for the example inputs, by method.
        keep_paths: Whether to keep absolute paths of source files.
        examples: Whether to keep example inputs.
        weights: Whether to keep parameters and persistent buffers.

    Raises:
        UnsupportedError: A program holds something that the format cannot carry.
    """
    tensors = TensorTable(weights=weights)
    objects = ObjectTable(tensors)
    constants: dict[str, torch.Tensor] = {}
    methods, sections = [], []
    features: set[str] = set()
    for name, program in programs.items():
        emitter = _MethodEmitter(name, program, tensors, objects, constants)
        method, blobs = emitter.emit((expected or {}).get(name), keep_paths=keep_paths, examples=examples)
        methods.append(method)
        sections += blobs
        features |= emitter.features
    stored = tensors.finish()
    manifest = documents.Manifest(
        format=FORMAT_VERSION,
        producer=_PRODUCER,
        methods=methods,
        storages=stored.storages,
        tensors=stored.tensors,
        features=sorted(features | _shared_features(stored, objects.rows)),
        objects=objects.rows,
    )
    return Emitted(manifest, [*stored.blobs, *sections])


def _guards(program: torch.export.ExportedProgram) -> Guards:
    """The guards of a program, with a warning of those that cannot be stored."""
    guards = read_guards(program)
    for text in guards.dropped:
        warnings.warn(f"the guard {text} is only text, in which no condition can be read: it is dropped", stacklevel=2)
    return guards


def _shared_features(stored: Stored, objects: Sequence[documents.Object]) -> set[str]:
    """What a reader must understand to make the right tensors and objects."""
    needed = {
        "conjugate": any(row.conjugate or row.negative for row in stored.tensors),
        "objects": bool(objects),
        "sparse": any(row.sparse is not None for row in stored.tensors),
        "subclass": any(row.subclass is not None for row in stored.tensors),
        ABSENT_STORAGES: any(row.absent for row in stored.storages),
    }
    return {name for name, is_needed in needed.items() if is_needed}


def _graph_features(graph: ProgramGraph) -> set[str]:
    """What a reader must understand to make the right graphs."""
    kinds = set(map(type, graph.values))
    needed = {
        "attributes": any(each.attributes for each in graph.graphs),
        "functions": any(each.callees for each in graph.graphs),
        "objects": ObjectValue in kinds,
        "sparse": SparseValue in kinds,
        "subclass": SubclassValue in kinds,
    }
    return {name for name, is_needed in needed.items() if is_needed}


class _MethodEmitter:
    """Emits one program."""

    def __init__(
        self,
        name: str,
        program: torch.export.ExportedProgram,
        tensors: TensorTable,
        objects: ObjectTable,
        constants: dict[str, torch.Tensor],
    ) -> None:
        self._name = name
        self._program = program
        self._tensors = tensors
        self._objects = objects
        self._constants = constants
        self.features: set[str] = set()

    def emit(
        self, expected: Sequence[Any] | None, *, keep_paths: bool, examples: bool
    ) -> tuple[documents.Method, list[Blob]]:
        program = self._program
        signature = emit_signature(program.graph_signature)
        symbols = SymbolTable(find_shape_env(program.graph_module), _guards(program))
        # Before what graphs read: where they share memory, it is stored under the name that a parameter has.
        state, constants, objects = self._state(), self._constant_tensors(), self._constant_objects()
        graphs = GraphEmitter(symbols, self._place_constant, self._place_fake)
        graph = graphs.document(program)
        self.features = _graph_features(graph)
        example = program.example_inputs if examples else None
        with modules_as_containers(example):
            flat = None if example is None else pytree.tree_leaves(example)
            calls = CallEmitter().document(program.module_call_graph, example)
        parts: dict[str, msgspec.Struct] = {
            "graph": graph,
            "signature": signature,
            "constraints": symbols.document(program),
            "calls": calls,
            "debug": emit_debug(graphs.modules, keep_paths=keep_paths),
        }
        sections, blobs = _pack(self._name, parts)
        inputs, outputs = emit_ports(program)
        method = documents.Method(
            name=self._name,
            sections=sections,
            inputs=inputs,
            outputs=outputs,
            operators=_operators(graphs.modules, graphs.passed),
            nodes=sum(len(each.names) for each in graph.graphs),
            types=_types(calls),
            state=state,
            constants=constants,
            example=None if flat is None else self._values(flat, 0),
            expected=None if flat is None or expected is None else self._values(expected, len(flat)),
            objects=objects,
        )
        return method, blobs

    def _state(self) -> list[documents.NamedTensor]:
        state = self._program.state_dict
        check_fqns(list(state), (self._name, "state"))
        return [documents.NamedTensor(key=key, tensor=self._tensors.place(key, state[key])) for key in state]

    def _constant_tensors(self) -> list[documents.NamedTensor]:
        return [
            documents.NamedTensor(key=fqn, tensor=self._place_constant(fqn, value))
            for fqn, value in self._program.constants.items()
            if isinstance(value, torch.Tensor)
        ]

    def _constant_objects(self) -> list[documents.NamedObject]:
        return [
            documents.NamedObject(key=fqn, object=self._objects.place(value, (fqn,)), at=place)
            for place, (fqn, value) in enumerate(self._program.constants.items())
            if not isinstance(value, torch.Tensor)
        ]

    def _place_fake(self, argument: CustomObjArgument) -> int | None:
        """The place of the object whose fake stands for an input of the graph."""
        if argument.fake_val is None:
            return None
        constants, lifted = self._program.constants, self._program.graph_signature.inputs_to_lifted_custom_objs
        # torch files an object that the user gives under the name of its input, where no object of the module has it.
        fqn = lifted.get(argument.name, argument.name if argument.name not in lifted.values() else "")
        return self._objects.place(constants.get(fqn, argument.fake_val), (argument.name,))

    def _place_constant(self, fqn: str, value: torch.Tensor) -> int:
        name = constant_name(self._name, fqn, self._constants, value)
        self._constants.setdefault(fqn, value)
        return self._tensors.place(name, value, reserved=True)

    def _values(self, values: Sequence[Any], first: int) -> list[documents.ExampleValue]:
        return [self._example_value(value, first + index) for index, value in enumerate(values)]

    def _example_value(self, value: Any, index: int) -> documents.ExampleValue:
        loc: Loc = (self._name, "example", index)
        if isinstance(value, torch.ScriptObject):
            return documents.ExampleValue(object=self._objects.place(value, loc))
        if not isinstance(value, torch.Tensor):
            return documents.ExampleValue(value=emit_literal(value, loc))
        name = example_name(self._name, index)
        return documents.ExampleValue(tensor=self._tensors.place(name, value, reserved=True))


def _pack(method: str, parts: Mapping[str, msgspec.Struct]) -> tuple[list[documents.Section], list[Blob]]:
    contents = {name: encode(part) for name, part in parts.items()}
    frames = {name: compress(content) for name, content in contents.items()}
    for name, part in parts.items():
        _check_readable(type(part), contents[name], len(frames[name]), (method, name))
    sections = [
        documents.Section(
            name=name, nbytes=len(frame), decoded_nbytes=len(contents[name]), sha256=sha256(frame).digest()
        )
        for name, frame in frames.items()
    ]
    return sections, [bytes_blob(section_name(method, name), frame) for name, frame in frames.items()]


def _check_readable(kind: type[msgspec.Struct], content: bytes, stored_nbytes: int, loc: Loc) -> None:
    """Refuse to write what a reader refuses to read unless it is told otherwise."""
    if len(content) > most_decoded(stored_nbytes):
        raise UnsupportedError(f"a section of {len(content)} bytes is too large", loc=loc, remedy="split the program")
    try:
        check_document(decode(content, kind, loc), loc[1:])
    except FormatError as error:
        raise UnsupportedError(f"no reader would take this: {error.message}", loc=error.loc) from error


def _operators(modules: list[torch.fx.GraphModule], passed: set[OpOverload]) -> list[documents.OperatorUse]:
    """The operators that nodes call, and those that are arguments of nodes."""
    nodes = [node for module in modules for node in module.graph.nodes]
    counts: Counter[Any] = Counter(node.target for node in nodes if node.op == "call_function")
    uses = sorted((_operator_use(target, counts[target]) for target in {*counts, *passed}), key=lambda use: use.name)
    _warn_of_unlisted([use.name for use in uses])
    return uses


def _warn_of_unlisted(names: list[str]) -> None:
    """Say which of torch's own operators readers do not admit by themselves: a later torch's, or internals."""
    own = [name for name in names if name.partition("::")[0] in LISTED_NAMESPACES]
    if unlisted := [name for name in own if name not in listed_operators()]:
        admitted = ", ".join(f'"{name}"' for name in unlisted)
        warnings.warn(f"readers admit these operators only with allow_ops=[{admitted}]", stacklevel=2)


def _operator_use(target: Any, count: int) -> documents.OperatorUse:
    name = emit_operator(target, ())
    if not isinstance(target, OpOverload):
        return documents.OperatorUse(name=name, count=count)
    return documents.OperatorUse(name=name, count=count, schema=str(target._schema), provider=find_provider(target))


def _types(calls: Calls) -> list[str]:
    return sorted(kind.name for kind in calls.types if kind.kind != "builtin")
