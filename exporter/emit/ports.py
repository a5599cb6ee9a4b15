"""Inputs and outputs as people read them, for the manifest."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch.export.graph_signature import CustomObjArgument

from exporter.emit.literals import emit_literal, torch_name
from exporter.emit.objects import emit_class_name
from exporter.emit.shape_environment import find_shape_env, user_labels
from exporter.torch_internals import TreeSpec, module_tensors, pytree
from schema.errors import UnsupportedError
from schema.manifest import Dimension, Port
from schema.names import is_identifier
from schema.signature import USER_OUTPUT_KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

_MAPPINGS = (dict, OrderedDict, defaultdict)


def emit_ports(program: torch.export.ExportedProgram) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs, in the order in which they are flattened."""
    signature = program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}
    call = program.module_call_graph[0].signature
    inputs = [spec.arg for spec in signature.input_specs if spec.kind.name == "USER_INPUT"]
    outputs = [spec.arg for spec in signature.output_specs if spec.kind.name.lower() in USER_OUTPUT_KINDS]
    in_names = _input_names(call, len(inputs))
    out_names = _names(call.out_spec, len(outputs), "output") if call else []
    dimensions = _Dimensions(program)
    return (
        [_port(name, argument, nodes, dimensions) for name, argument in zip(in_names, inputs, strict=True)],
        [_port(name, argument, nodes, dimensions) for name, argument in zip(out_names, outputs, strict=True)],
    )


def _input_names(call: Any, count: int) -> list[str]:
    """Paths of flat inputs, which begin with the names of arguments."""
    if call is None:
        return [f"input[{index}]" for index in range(count)]
    args, kwargs = call.in_spec.children()
    keys = list(kwargs.context)
    arguments = [*args.children(), *kwargs.children()]
    known = call.forward_arg_names or []
    names = [known[i] if i < len(known) else f"args[{i}]" for i in range(len(args.children()))] + keys
    return [
        path for name, spec in zip(names, arguments, strict=True) for path in _names(spec, spec.num_leaves, str(name))
    ]


def _names(spec: Any, count: int, root: str) -> list[str]:
    suffixes = _suffixes(spec)
    try:
        value = pytree.tree_unflatten([0] * len(suffixes), _without_modules(spec))
        paths = [_path(value, path) for path, _ in pytree.tree_flatten_with_path(value)[0]]
    except Exception:  # a user's class may refuse plain numbers, in whatever way; names are for people only
        paths = []
    if len(paths) != len(suffixes):
        return [f"{root}[{index}]" for index in range(count)]
    return [root + path + suffix for path, inner in zip(paths, suffixes, strict=True) for suffix in inner]


def _without_modules(spec: Any) -> Any:
    """A tree spec with a leaf for each module, which cannot be put together of numbers."""
    if spec.is_leaf() or module_tensors(spec) is not None:
        return pytree.treespec_leaf()
    return TreeSpec(spec.type, spec.context, [_without_modules(child) for child in spec.children()])


def _suffixes(spec: Any) -> list[list[str]]:
    """For each leaf of a tree spec without modules, how the names of its inputs end."""
    if spec.is_leaf():
        return [[""]]
    if (names := module_tensors(spec)) is not None:
        return [[f".{name}" if is_identifier(name) else f"[{name!r}]" for name in names]]
    return [suffix for child in spec.children() for suffix in _suffixes(child)]


def _path(value: Any, path: Sequence[Any]) -> str:
    """A path into a value; fields of its classes are attributes, however a class that is there says it."""
    text = ""
    for entry in path:
        named = isinstance(entry, pytree.MappingKey) and type(value) not in _MAPPINGS and is_identifier(str(entry.key))
        text += f".{entry.key}" if named else str(entry)
        value = entry.get(value)
    return text


def _port(name: str, argument: Any, nodes: dict[str, fx.Node], dimensions: _Dimensions) -> Port:
    node = nodes.get(argument.name)
    value = node.meta.get("val") if node is not None else getattr(argument, "value", None)
    if isinstance(value, torch.Tensor):
        shape = [dimensions.describe(size) for size in value.shape]
        return Port(name=name, kind="tensor", dtype=torch_name(value.dtype), shape=shape)
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return Port(
            name=name, kind=type(value).__name__.removeprefix("Sym").lower(), shape=[dimensions.describe(value)]
        )
    if isinstance(value, CustomObjArgument):
        return Port(name=name, kind=emit_class_name(value.class_fqn, (name,)))
    try:
        return Port(name=name, kind=type(value).__name__, value=emit_literal(value, ()))
    except UnsupportedError:
        return Port(name=name, kind=type(value).__name__)


class _Dimensions:
    """Describes sizes with the names that the user gave them, and their ranges."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        shape_env = find_shape_env(program.graph_module)
        labels = user_labels(shape_env) if shape_env else {}
        self._names = {symbol: sympy.Symbol(label) for symbol, label in labels.items()}
        self._ranges = program.range_constraints

    def describe(self, size: Any) -> int | Dimension:
        if not isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return int(size)
        expression = size.node.expr
        if expression.is_Integer:
            return int(expression)
        interval = self._ranges.get(expression)
        lower, upper = (_finite(interval.lower), _finite(interval.upper)) if interval else (None, None)
        return Dimension(symbol=str(expression.xreplace(self._names)), lower=lower, upper=upper)


def _finite(bound: Any) -> int | None:
    return int(bound) if getattr(bound, "is_Integer", False) else None
