"""Are two exported programs the same, in everything that a user can see?"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Set as AbstractSet
from typing import Any

import torch
from torch._library.fake_class_registry import FakeScriptObject
from torch.fx.traceback import NodeSource
from torch.utils import _pytree as pytree

import loader
from exporter.emit.debug import qualified_name
from exporter.torch_internals import module_tensors

_GENERATED_FILE = re.compile(r"<eval_with_key>(\.\d+)?")
"""The "file" of generated code; torch numbers them through a whole process."""

_PLACE_IN_MEMORY = re.compile(r" at 0x[0-9a-f]+")
"""Where an object is, as its ``repr`` may tell."""

_ADDRESS = re.compile(r"\d{12,}")
"""A Python object, by its address; no two captures agree on it."""

Facts = Iterator[tuple[str, Any]]
"""What a program says, each with where it stands."""

_COUNTED = {"creation_timestamp", "seq_nr"}
"""Metadata that is counted through a whole process, or a time: two captures of one module differ in it."""


def assert_equal_programs(
    actual: torch.export.ExportedProgram,
    expected: torch.export.ExportedProgram,
    *,
    stack_traces: bool = True,
    same_tensors: bool = False,
) -> None:
    """Compare everything that two programs say, and name the first thing in which they differ.

    Args:
        actual: The program under test.
        expected: The program that it should equal.
        stack_traces: Compare where nodes come from in the source, too.
        same_tensors: Ask for the identical tensor objects in ``state_dict``, not only for the same values.

    Raises:
        AssertionError: They differ. The message says where, and shows both.
    """
    _assert_same(*(facts(program, stack_traces=stack_traces) for program in (actual, expected)))
    if same_tensors:
        for key, tensor in expected.state_dict.items():
            assert actual.state_dict[key] is tensor, f"state_dict[{key!r}] is another tensor object"


_SAYS_VAL_AGAIN = {"eager_input_vals", "example_value", "tensor_meta"}
_TELLS_OF_EARLIER_GRAPHS = {
    "creation_timestamp",
    "desc",
    "from_node",
    "is_functional_regenerated",
    "original_aten",
    "seq_nr",
}
NOT_STORED = frozenset(_SAYS_VAL_AGAIN | _TELLS_OF_EARLIER_GRAPHS)
"""Metadata of nodes that an archive leaves out."""


def assert_loaded_equal(loaded: torch.export.ExportedProgram, saved: torch.export.ExportedProgram) -> None:
    """Compare a program that came back from a file, with its stack traces, with the one that was saved.

    Left out are what :data:`NOT_STORED` names, notes that capture leaves on graph modules, and of values without
    memory their storage offset and whether they are parameters.

    Raises:
        AssertionError: They differ. The message says where, and shows both.
    """
    _assert_same(facts(loaded, stored=True), facts(saved, stored=True))


def _assert_same(actual: Facts, expected: Facts) -> None:
    for (_, left), (where, right) in zip(actual, expected, strict=True):
        if not same(left, right):
            raise AssertionError(f"programs differ in {where}\n{_difference(left, right)}")


def same(left: Any, right: Any) -> bool:
    """Equal in type and value; tensors bit by bit, NaN equal to NaN, symbols by their expressions."""
    match left:
        case torch.Tensor():
            return isinstance(right, torch.Tensor) and _same_tensor(left, right)
        case torch.SymInt() | torch.SymFloat() | torch.SymBool():
            return type(left) is type(right) and str(left) == str(right)
        case str():
            return type(right) is type(left) and normal(left) == normal(right)
        case float():
            return type(right) is float and repr(left) == repr(right)  # which tells zeros apart, but no NaNs
        case complex():
            return type(right) is complex and same((left.real, left.imag), (right.real, right.imag))
        case slice():
            parts = [(each.start, each.stop, each.step) for each in (left, right) if isinstance(each, slice)]
            return len(parts) == 2 and same(*parts)
        case dict():
            return isinstance(right, dict) and same(list(left.items()), list(right.items()))
        case list() | tuple():
            same_kind = type(left) is type(right) and len(left) == len(right)
            return same_kind and all(same(a, b) for a, b in zip(left, right, strict=True))
        case torch.fx.Node():
            return isinstance(right, torch.fx.Node) and left.name == right.name
        case torch.ScriptObject():
            if not isinstance(right, torch.ScriptObject):
                return False
            is_one = hash(left) == hash(right)  # Python may have two values for one object
            return is_one or same(left.__getstate__(), right.__getstate__())
        case FakeScriptObject():
            fakes = isinstance(right, FakeScriptObject) and left.script_class_name == right.script_class_name
            return fakes and same(left.real_obj, right.real_obj)
        case torch.fx.GraphModule():
            return isinstance(right, torch.fx.GraphModule)  # subgraphs are compared node by node elsewhere
        case NodeSource():  # names the graph by its address
            parts = ("name", "target", "pass_name", "action", "from_node")
            return isinstance(right, NodeSource) and all(same(getattr(left, p), getattr(right, p)) for p in parts)
        case pytree.TreeSpec():
            return isinstance(right, pytree.TreeSpec) and plain_spec(left) == plain_spec(right)
        case torch._ops.OperatorBase():  # metadata holds copies of operators
            return type(left) is type(right) and left.name() == right.name()
        case _ if dataclasses.is_dataclass(left) and not isinstance(left, type) and type(left) is type(right):
            return all(
                same(getattr(left, f.name), getattr(right, f.name)) for f in dataclasses.fields(left) if f.compare
            )
        case _:
            return type(left) is type(right) and bool(left == right)


def normal(text: str) -> str:
    """A text without what no two processes agree on."""
    return _PLACE_IN_MEMORY.sub("", _GENERATED_FILE.sub("", text))


def describe_tensor(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Everything about a tensor but its values; sizes as text, because symbols compare by environment."""
    layout = tensor.layout
    strided = layout is torch.strided
    return (
        type(tensor).__name__,
        str(tuple(tensor.shape)),
        str(tensor.stride()) if strided else None,
        str(tensor.storage_offset()) if strided else None,
        str(tensor.dtype),
        str(tensor.device),
        str(layout),
        tensor.requires_grad,
    )


def _same_tensor(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left is right:
        return True
    if describe_tensor(left) != describe_tensor(right):
        return False
    if has_no_data(left) or has_no_data(right):
        return _is_fake(left) == _is_fake(right)
    if hasattr(left, "__tensor_flatten__"):
        inner, context = left.__tensor_flatten__()
        others, other_context = right.__tensor_flatten__()
        parts = [(getattr(left, name), getattr(right, name)) for name in inner]
        return inner == others and same(context, other_context) and all(same(a, b) for a, b in parts)
    return torch.equal(bits(left), bits(right))


def _is_fake(tensor: torch.Tensor) -> bool:
    """Has no data to compare: fake, or a wrapper of torch.func, which can only have been met in a trace."""
    fake = isinstance(tensor, torch._subclasses.fake_tensor.FakeTensor)
    return fake or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def has_no_data(tensor: torch.Tensor) -> bool:
    """Has a tensor only a description?"""
    return tensor.is_meta or _is_fake(tensor)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a tensor, as bytes."""
    dense = tensor.detach().resolve_conj().resolve_neg()
    dense = dense.to_dense() if dense.layout is not torch.strided else dense
    return dense.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def facts(program: torch.export.ExportedProgram, *, stored: bool = False, stack_traces: bool = True) -> Facts:
    """Everything that a program says; in step with that of another one up to the first thing in which they differ.

    Args:
        program: The program.
        stored: Only what an archive keeps, see :func:`assert_loaded_equal`.
        stack_traces: Also where nodes come from in the source.

    Yields:
        Each fact, with where it stands.
    """
    omitted = {*(NOT_STORED if stored else ()), *(() if stack_traces else ("stack_trace",))}
    for where, read in _WHOLE.items():
        yield where, read(program)
    graphs = dict(_graphs(program.graph_module))
    yield "the names of the subgraphs", list(graphs)
    for path, module in graphs.items():
        yield from _graph_facts(path, module.graph, omitted, stored=stored)
        if not stored:
            yield f"{path}: the metadata of the graph module", _meta(module)
        # torch leaves some programs with code that is older than their graph: a file holds the graph.
        yield f"{path}: the generated code", module.graph.python_code("self").src if stored else module.code
    yield "state_dict", program.state_dict
    yield "constants", program.constants
    yield "the example inputs", _flat(program.example_inputs)


_WHOLE: dict[str, Callable[[torch.export.ExportedProgram], Any]] = {
    "the text of the graph": lambda p: p.graph_module.print_readable(print_output=False),
    "the inputs of the signature": lambda p: list(p.graph_signature.input_specs),
    "the outputs of the signature": lambda p: list(p.graph_signature.output_specs),
    "the range constraints": lambda p: [(str(s), str(r)) for s, r in p.range_constraints.items()],
    "the module call graph": lambda p: list(p.module_call_graph),
    "the guards": lambda p: list(p._guards_code),
    "the keys of state_dict": lambda p: list(p.state_dict),
    "the keys of constants": lambda p: list(p.constants),
    "the dialect": lambda p: (p.dialect, [v.__name__ for v in p.verifiers]),
}


def _graphs(module: torch.fx.GraphModule) -> Iterator[tuple[str, torch.fx.GraphModule]]:
    for path, child in module.named_modules():
        if isinstance(child, torch.fx.GraphModule):
            yield path or "graph", child


def _graph_facts(path: str, graph: torch.fx.Graph, omitted: AbstractSet[str], *, stored: bool) -> Facts:
    yield f"{path}: the nodes", [node.format_node() for node in graph.nodes]
    for node in graph.nodes:
        where = f"{path}, node {node.name}"
        yield f"{where}: operator", (node.op, str(node.target))
        yield f"{where}: arguments", (node.args, node.kwargs)
        meta = {key: value for key, value in node.meta.items() if key not in omitted}
        meta = _as_loaded(meta) if stored else meta
        yield f"{where}: which metadata it has", sorted(meta)
        for key in sorted(meta.keys() - _COUNTED):
            yield f"{where}: {key}", _plain(meta[key])


def _as_loaded(meta: dict[str, Any]) -> dict[str, Any]:
    """A node's metadata as a file gives it back."""
    if "source_fn_stack" in meta:  # functions come back as names, which nothing resolves
        named = [(name, qualified_name(function)) for name, function in meta["source_fn_stack"]]
        meta = {**meta, "source_fn_stack": named}
    return pytree.tree_map_only(torch.Tensor, lambda t: _described(t), meta)


def _described(tensor: torch.Tensor) -> str:
    _kind, shape, strides, _offset, *rest = describe_tensor(tensor)
    return " ".join(map(str, (_is_fake(tensor), shape, strides, *rest)))


def _meta(module: torch.fx.GraphModule) -> Any:
    return {key: _plain(value) for key, value in sorted(module.meta.items())}


def _plain(value: Any) -> Any:
    """Make symbols of two environments comparable."""
    if isinstance(value, dict):
        return {_without_address(place, k): _plain(v) for place, (k, v) in enumerate(value.items())}
    if isinstance(value, list | tuple):
        return type(value)(_plain(v) for v in value) if type(value) in (list, tuple) else [_plain(v) for v in value]
    if type(value).__module__.startswith(("sympy", "torch.utils._sympy")):
        return str(value)
    return value


def _without_address(place: int, key: Any) -> Any:
    """A key of metadata; Dynamo tells the modules of a stack apart by their addresses."""
    return _ADDRESS.sub(f"#{place}", key) if isinstance(key, str) else _plain(key)


def _flat(inputs: Any) -> Any:
    leaves, spec = pytree.tree_flatten(pytree.tree_map(_plain_module, inputs, is_leaf=_is_module))
    return leaves, spec


def _is_module(value: Any) -> bool:
    """Is it a module, or what stands for one that came from a file?"""
    return isinstance(value, torch.nn.Module) or _stands_for_module(type(value))


def _stands_for_module(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, loader.StandIn) and kind.__archive_type__.kind == "module"


def _plain_module(value: Any) -> Any:
    """A module as a dictionary of its tensors; anything else as it is."""
    if not _is_module(value):
        return value
    is_real = isinstance(value, torch.nn.Module)
    tensors = dict(value.named_parameters()) | dict(value.named_buffers()) if is_real else dict(value.items())
    return {"a module of class": qualified_name(type(value))} | tensors


def plain_spec(spec: pytree.TreeSpec) -> pytree.TreeSpec:
    """A tree spec with dictionaries in place of modules: torch's have a context that names an object."""
    names = spec.context if _stands_for_module(spec.type) else module_tensors(spec)
    children = [plain_spec(child) for child in spec.children()]
    if names is None:
        return spec if spec.is_leaf() else pytree.TreeSpec(spec.type, spec.context, children)
    return pytree.TreeSpec(dict, [qualified_name(spec.type), *names], children)


def _difference(actual: Any, expected: Any) -> str:
    """Show two values, of long texts and lists only where they part."""
    if isinstance(actual, str) and isinstance(expected, str):
        actual, expected = actual.splitlines(), expected.splitlines()
    place = ""
    if isinstance(actual, list) and isinstance(expected, list):
        at = next((i for i, (a, b) in enumerate(zip(actual, expected, strict=False)) if not same(a, b)), None)
        at = min(len(actual), len(expected)) if at is None else at
        place, actual, expected = f" [{at}]", actual[at : at + 1], expected[at : at + 1]
    return f"  actual{place}:   {_show(actual)}\n  expected{place}: {_show(expected)}"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 2000 else f"{text[:2000]} ... ({len(text)} characters)"
