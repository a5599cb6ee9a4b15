"""Stage ``lift``: the graph gets a signature, and tensor constants become inputs like parameters and buffers."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch.export.graph_signature import (
    ConstantArgument,
    CustomObjArgument,
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
from exporter.capture.objects import attributes_of, identity, is_constant_object, is_object, object_argument
from exporter.capture.paths import identifier_of
from exporter.capture.places import place_of_node
from exporter.torch_internals import (
    FakeScriptObject,
    FakeTensor,
    FunctionalTensor,
    fake_script_object,
    is_functorch_wrapped,
    is_torchbind_object,
    pytree,
    unset_fake_temporarily,
)
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
    """Write the signature and lift the constants, tensors and objects.

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
    _describe_objects(graph_module)
    signature = _signature(enforced)
    constants = _Lifter(enforced, signature).lift_all()
    for leaf in enforced.symbolic.bound.leaves:
        if is_torchbind_object(leaf.value):
            constants.setdefault(identifier_of(leaf.path), leaf.value)
    for spec in signature.input_specs:
        if spec.kind is InputKind.BUFFER and not spec.persistent:
            assert spec.target is not None
            constants[spec.target] = enforced.symbolic.state.real[spec.target]
    return enforced.become(Lifted, signature=signature, constants=constants)


def _restore_values_of_inputs(enforced: Enforced) -> None:
    """The trace notes numbers as symbols even where they are fixed."""
    for node, fake in zip(_user_inputs(enforced), enforced.symbolic.fakes, strict=True):
        if not isinstance(fake, torch.Tensor):
            node.meta["val"] = fake


def _describe_objects(graph_module: torch.fx.GraphModule) -> None:
    """A program holds no fakes of objects but descriptions; tensors are their own."""
    for node in graph_module.graph.nodes:
        is_held = node.op == "get_attr" and "val" not in node.meta  # as it is where the graph returns it
        value = operator.attrgetter(node.target)(graph_module) if is_held else node.meta.get("val")
        if isinstance(value, torch.ScriptObject | FakeScriptObject):
            node.meta["val"] = object_argument(node.name, value)


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
            specs.append(InputSpec(InputKind.USER_INPUT, argument_of(node), None))
        elif name in state.buffers:
            specs.append(InputSpec(InputKind.BUFFER, argument_of(node), name, name not in state.volatile))
        else:
            specs.append(InputSpec(InputKind.PARAMETER, argument_of(node), name))
    inputs = [node.name for node in _user_inputs(enforced)]
    outputs = pytree.tree_leaves(graph.output_node().args)
    return ExportGraphSignature(
        specs, [_output_spec(node, output, inputs) for node, output in zip(outputs, enforced.outputs, strict=True)]
    )


def _output_spec(node: Any, output: Output, inputs: list[str]) -> OutputSpec:
    if output.kind is OutputKind.TOKEN:
        return OutputSpec(output.kind, TokenArgument(node.name), None)
    target = inputs[output.target] if isinstance(output.target, int) else output.target
    return OutputSpec(output.kind, argument_of(node), target)


def argument_of(node: Any) -> Any:
    """Return how a signature refers to a node, or to a value that is none."""
    if not isinstance(node, torch.fx.Node):
        return ConstantArgument(name="", value=node)
    value = node.meta["val"]
    for kind, argument in _ARGUMENTS:
        if isinstance(value, kind):
            return argument(name=node.name)
    if isinstance(value, CustomObjArgument):
        return replace(value, name=node.name)
    if is_object(value):
        return object_argument(node.name, value)
    return ConstantArgument(name=node.name, value=value)


def constant_names(module: torch.nn.Module) -> dict[int, list[str]]:
    """Return the qualified names of tensors and script objects that are plain attributes of modules, by identity."""
    owned = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    names: dict[int, list[str]] = {}
    for name, value in (*attributes_of(module, torch.Tensor), *attributes_of(module, torch.ScriptObject)):
        if id(value) not in owned:
            names.setdefault(identity(value), []).append(name)
    return names


class _Lifter:
    """Turns each tensor and each object that the graph refers to into a placeholder before the first user input."""

    def __init__(self, enforced: Enforced, signature: ExportGraphSignature) -> None:
        kinds = [spec.kind for spec in signature.input_specs]
        self.enforced = enforced
        self.among_fakes = any(isinstance(leaf.value, FakeTensor) for leaf in enforced.symbolic.bound.leaves)
        self.graph = enforced.graph_module.graph
        self.signature = signature
        self.position = kinds.index(InputKind.USER_INPUT) if InputKind.USER_INPUT in kinds else 0
        self.anchor = list(self.graph.nodes)[self.position]
        self.names = constant_names(enforced.symbolic.bound.request.module)
        self.real: dict[int, Any] = {}
        for real, fake in enforced.symbolic.objects.values():
            self.names[identity(fake)] = self.names[identity(real)]
            self.real[identity(fake)] = real
        self.taken = {spec.target for spec in signature.input_specs}.union(*self.names.values())
        self.lifted: dict[int, torch.fx.Node] = {}
        self.constants: dict[str, Any] = {}
        self.anonymous: Counter[str] = Counter()

    def lift_all(self) -> dict[str, Any]:
        for node in self.graph.find_nodes(op="get_attr"):
            value = operator.attrgetter(node.target)(self.enforced.graph_module)
            is_tensor = isinstance(value, torch.Tensor)
            if not (is_tensor or is_constant_object(value)) or self._dropped(node):
                continue
            lift = self._lift_tensor if is_tensor else self._lift_object
            placeholder = self.lifted.get(identity(value)) or lift(node, value)
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

    def _lift_tensor(self, node: torch.fx.Node, value: torch.Tensor) -> torch.fx.Node:
        if not self.among_fakes:
            _check_is_data(node, value)
        if isinstance(value, torch.nn.Parameter):
            with unset_fake_temporarily():
                value = value.data
        fake: Any = self.enforced.symbolic.mode.from_tensor(value, static_shapes=True)
        fake.constant = value
        return self._lift(node, value, fake, InputKind.CONSTANT_TENSOR, "lifted_tensor")

    def _lift_object(self, node: torch.fx.Node, value: Any) -> torch.fx.Node:
        script = isinstance(value, torch.ScriptObject | FakeScriptObject)
        fake = value if script else fake_script_object(self.enforced.symbolic.mode, value)
        return self._lift(node, value, object_argument(node.name, fake), InputKind.CUSTOM_OBJ, "lifted_custom")

    def _lift(self, node: torch.fx.Node, value: Any, stand_in: Any, kind: InputKind, word: str) -> torch.fx.Node:
        key = identity(value)
        names = self.names.get(key) or [self._name(node, word)]
        label = names[0].replace(".", "_") if key in self.names else f"{word}_{self.anonymous[word] - 1}"
        placeholder = self._placeholder(label, node, stand_in)
        self.signature.input_specs.insert(self.position, InputSpec(kind, argument_of(placeholder), names[0]))
        self.position += 1
        self.lifted[key] = placeholder
        self.constants.update(dict.fromkeys(names, self.real.get(key, value)))
        return placeholder

    def _name(self, node: torch.fx.Node, word: str) -> str:
        """Name a constant that is no attribute after the module that uses it."""
        stack = list(node.meta.get("nn_module_stack", {}).values())
        owner = f"{stack[-1][0]}." if stack and stack[-1][0] else ""
        while (name := f"{owner}{word}_{self.anonymous[word]}") in self.taken:
            self.anonymous[word] += 1
        self.anonymous[word] += 1
        return name

    def _placeholder(self, label: str, node: torch.fx.Node, stand_in: Any) -> torch.fx.Node:
        with self.graph.inserting_before(self.anchor):
            placeholder = self.graph.placeholder(label)
        placeholder.target = placeholder.name
        placeholder.meta = {k: v for k, v in node.meta.items() if k not in ("nn_module_stack", "stack_trace")}
        placeholder.meta["val"] = stand_in
        return placeholder


def _check_is_data(node: torch.fx.Node, value: torch.Tensor) -> None:
    if isinstance(value, FakeTensor | FunctionalTensor) or is_functorch_wrapped(value):
        raise CaptureError(
            "a tensor without data was met as a constant: torch cannot follow the call that made it",
            loc=place_of_node(node),
            remedy="compute it inside forward with plain operators, without torch.func.grad or a subclass's insides",
        )
