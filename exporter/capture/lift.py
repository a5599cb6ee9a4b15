"""Stage ``lift``: the graph gets a signature, and tensor constants become inputs like parameters and buffers."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
    TokenArgument,
)

from exporter.capture.artifacts import Enforced, Lifted, Output
from exporter.capture.places import place_of_node
from exporter.torch_internals import FakeTensor, FunctionalTensor, is_functorch_wrapped, pytree, unset_fake_temporarily
from schema.errors import CaptureError

_LIFTS = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default)
_DETACHES = (torch.ops.aten.detach.default, torch.ops.aten.detach_.default)

_ARGUMENTS: tuple[tuple[type, Any], ...] = (
    (torch.Tensor, TensorArgument),
    (torch.SymInt, SymIntArgument),
    (torch.SymFloat, SymFloatArgument),
    (torch.SymBool, SymBoolArgument),
)


def lift(enforced: Enforced) -> Lifted:
    """Write the signature and lift the constants.

    Args:
        enforced: The complete graph.

    Returns:
        The graph in which every tensor comes in through a placeholder, its signature, and the values of the
        constants and of the buffers that are not persistent.

    Raises:
        CaptureError: A tensor of the graph is no data but a by-product of the trace.
    """
    graph_module = enforced.graph_module
    _restore_values_of_inputs(enforced)
    signature = _signature(enforced)
    constants = _Lifter(enforced, signature).lift_all()
    for spec in signature.input_specs:
        if spec.kind is InputKind.BUFFER and not spec.persistent:
            assert spec.target is not None
            constants[spec.target] = enforced.symbolic.state.real[spec.target]
    return Lifted(enforced.symbolic, graph_module, enforced.out_spec, enforced.outputs, signature, constants)


def _restore_values_of_inputs(enforced: Enforced) -> None:
    """The trace notes numbers as symbols even where they are fixed."""
    for node, fake in zip(_user_inputs(enforced), enforced.symbolic.fakes, strict=True):
        if not isinstance(fake, torch.Tensor):
            node.meta["val"] = fake


def _tokens(enforced: Enforced) -> int:
    return sum(output.kind is OutputKind.TOKEN for output in enforced.outputs)


def _user_inputs(enforced: Enforced) -> list[torch.fx.Node]:
    placeholders = enforced.graph_module.graph.find_nodes(op="placeholder")
    return list(placeholders)[_tokens(enforced) + len(enforced.symbolic.state.fake) :]


def _signature(enforced: Enforced) -> ExportGraphSignature:
    graph, state = enforced.graph_module.graph, enforced.symbolic.state
    tokens = _tokens(enforced)
    placeholders = list(graph.find_nodes(op="placeholder"))
    specs = [InputSpec(InputKind.TOKEN, TokenArgument(node.name), None) for node in placeholders[:tokens]]
    names: list[str | None] = [*state.fake, *(None for _ in enforced.symbolic.fakes)]
    for node, name in zip(placeholders[tokens:], names, strict=True):
        if name is None:
            specs.append(InputSpec(InputKind.USER_INPUT, _argument(node), None))
        elif name in state.buffers:
            specs.append(InputSpec(InputKind.BUFFER, _argument(node), name, name not in state.volatile))
        else:
            specs.append(InputSpec(InputKind.PARAMETER, _argument(node), name))
    inputs = [node.name for node in _user_inputs(enforced)]
    outputs = pytree.tree_leaves(graph.output_node().args)
    return ExportGraphSignature(
        specs, [_output_spec(node, output, inputs) for node, output in zip(outputs, enforced.outputs, strict=True)]
    )


def _output_spec(node: Any, output: Output, inputs: list[str]) -> OutputSpec:
    if output.kind is OutputKind.TOKEN:
        return OutputSpec(output.kind, TokenArgument(node.name), None)
    target = inputs[output.target] if isinstance(output.target, int) else output.target
    return OutputSpec(output.kind, _argument(node), target)


def _argument(node: Any) -> Any:
    if not isinstance(node, torch.fx.Node):
        return ConstantArgument(name="", value=node)
    value = node.meta["val"]
    for kind, argument in _ARGUMENTS:
        if isinstance(value, kind):
            return argument(name=node.name)
    return ConstantArgument(name=node.name, value=value)


def constant_names(module: torch.nn.Module) -> dict[int, list[str]]:
    """Return the qualified names of tensors that are plain attributes of modules, by identity of the tensor."""
    owned = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    names: dict[int, list[str]] = {}
    for path, owner in _tree(module, ""):
        for key, value in vars(owner).items():
            if isinstance(value, torch.Tensor) and id(value) not in owned:
                names.setdefault(id(value), []).append(f"{path}{key}")
    return names


def _tree(module: torch.nn.Module, prefix: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """Walk the modules; one that a parent holds under two names counts for the first, as in torch."""
    yield prefix, module
    for name, child in module.named_children():
        yield from _tree(child, f"{prefix}{name}.")


class _Lifter:
    """Turns each tensor attribute of the graph module into a placeholder in front of the first user input."""

    def __init__(self, enforced: Enforced, signature: ExportGraphSignature) -> None:
        kinds = [spec.kind for spec in signature.input_specs]
        self.enforced = enforced
        self.graph = enforced.graph_module.graph
        self.signature = signature
        self.position = kinds.index(InputKind.USER_INPUT) if InputKind.USER_INPUT in kinds else 0
        self.anchor = list(self.graph.nodes)[self.position]
        self.taken = {spec.target for spec in signature.input_specs}
        self.names = constant_names(enforced.symbolic.bound.request.module)
        self.lifted: dict[int, torch.fx.Node] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.anonymous = 0

    def lift_all(self) -> dict[str, torch.Tensor]:
        for node in self.graph.find_nodes(op="get_attr"):
            value = operator.attrgetter(node.target)(self.enforced.graph_module)
            if not isinstance(value, torch.Tensor) or self._dropped(node):
                continue
            placeholder = self.lifted.get(id(value)) or self._lift(node, value)
            for spec in self.signature.output_specs:
                if spec.arg.name == node.name:
                    spec.arg.name = placeholder.name
            node.replace_all_uses_with(placeholder)
            self.graph.erase_node(node)
        return self.constants

    def _dropped(self, node: torch.fx.Node) -> bool:
        """Remove a constant whose copy nobody reads; ``torch.tensor`` leaves such ones."""
        chain = [node]
        for followers in (_LIFTS, _DETACHES):
            users = list(chain[-1].users)
            if len(users) == 1 and users[0].target in followers:
                chain.append(users[0])
        if chain[-1].users or (len(chain) == 1 and node.users):
            return False
        for unused in reversed(chain):
            self.graph.erase_node(unused)
        return True

    def _lift(self, node: torch.fx.Node, value: torch.Tensor) -> torch.fx.Node:
        _check_is_data(node, value)
        if isinstance(value, torch.nn.Parameter):
            with unset_fake_temporarily():
                value = value.data
        names = self.names.get(id(value)) or [self._name(node)]
        label = names[0].replace(".", "_") if id(value) in self.names else f"lifted_tensor_{self.anonymous - 1}"
        placeholder = self._placeholder(label, node, value)
        self.signature.input_specs.insert(
            self.position, InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(placeholder.name), names[0])
        )
        self.position += 1
        self.lifted[id(value)] = placeholder
        self.constants.update(dict.fromkeys(names, value))
        return placeholder

    def _name(self, node: torch.fx.Node) -> str:
        """Name a constant that is no attribute after the module that uses it."""
        stack = list(node.meta.get("nn_module_stack", {}).values())
        owner = f"{stack[-1][0]}." if stack and stack[-1][0] else ""
        while (name := f"{owner}lifted_tensor_{self.anonymous}") in self.taken:
            self.anonymous += 1
        self.anonymous += 1
        return name

    def _placeholder(self, label: str, node: torch.fx.Node, value: torch.Tensor) -> torch.fx.Node:
        with self.graph.inserting_before(self.anchor):
            placeholder = self.graph.placeholder(label)
        placeholder.target = placeholder.name
        placeholder.meta = {k: v for k, v in node.meta.items() if k not in ("nn_module_stack", "stack_trace")}
        fake: Any = self.enforced.symbolic.mode.from_tensor(value, static_shapes=True)
        fake.constant = value
        placeholder.meta["val"] = fake
        return placeholder


def _check_is_data(node: torch.fx.Node, value: torch.Tensor) -> None:
    if isinstance(value, FakeTensor | FunctionalTensor) or is_functorch_wrapped(value):
        raise CaptureError(
            "a tensor without data was met as a constant: torch cannot follow the call that made it",
            loc=place_of_node(node),
            remedy="compute it inside forward with plain operators, without torch.func.grad or a subclass's insides",
        )
