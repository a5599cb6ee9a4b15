"""Stage ``name``: placeholders are named after the arguments, parameters, buffers and constants that they carry.

Names of users' arguments win; nodes that would collide with them are renumbered. The rule is torch's, because node
names are what users of a program read and address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export.graph_signature import CustomObjArgument, InputKind, OutputKind

from exporter.capture.artifacts import Named, Wrapped
from exporter.capture.paths import identifier_of
from exporter.torch_internals import HigherOrderOperator, LazyGraphModule

PREFIXES = {
    InputKind.PARAMETER: "p_",
    InputKind.BUFFER: "b_",
    InputKind.CONSTANT_TENSOR: "c_",
    InputKind.CUSTOM_OBJ: "obj_",
    InputKind.TOKEN: "token",
}
"""How the name of a placeholder begins, by what it carries; inputs of the user are called as the user calls them."""

_BACK_TO_USER_INPUTS = (OutputKind.USER_INPUT_MUTATION, OutputKind.GRADIENT_TO_USER_INPUT)
"""Outputs that are aimed at a placeholder, by its name."""

_SELF = r"^(L__self___|self_)"
"""What torch takes for a mention of the root and drops. It also makes ``attn`` of ``self_attn``."""

_Subgraph = tuple[Any, Sequence[Any]]
"""The node of a subgraph, and the nodes whose values its placeholders take."""

_SUBGRAPHS: dict[str, Callable[..., list[_Subgraph]]] = {
    "cond": lambda predicate, yes, no, operands: [(yes, operands), (no, operands)],  # noqa: ARG005
    "wrap_with_set_grad_enabled": lambda enabled, body, *operands: [(body, operands)],  # noqa: ARG005
    "map_impl": lambda body, mapped, operands: [(body, (*mapped, *operands))],
}
"""The operators whose subgraphs take over the names of their operands. The others keep the names of their trace."""


def name(wrapped: Wrapped) -> Named:
    """Rename the nodes of the graph and of its subgraphs.

    Args:
        wrapped: The complete graph, with the names of the trace.

    Returns:
        The same graph, with the names that users know. Placeholders carry no origin any more.
    """
    graph_module, signature = wrapped.graph_module, wrapped.signature
    for node in _all_nodes(graph_module):
        if node.op in ("placeholder", "output"):
            node.meta.pop("nn_module_stack", None)
            node.meta.pop("stack_trace", None)
    names = Names()
    inherited = _custom_metadata(wrapped.symbolic.module)
    _name_inputs(wrapped, names, inherited)
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            node.name = node.target = names.given[node.name]
            if isinstance(node.meta["val"], CustomObjArgument):
                node.meta["val"].name = node.name
            if node.name in inherited:
                node.meta["custom"] = {**(node.meta.get("custom") or {}), **inherited[node.name]}
        else:
            node.name = names.claim(node.name, node.name)
    specs: list[Any] = [*signature.input_specs, *signature.output_specs]
    for spec in specs:
        spec.arg.name = names.given.get(spec.arg.name, spec.arg.name)
    for output in signature.output_specs:
        if output.kind in _BACK_TO_USER_INPUTS:
            output.target = names.given[str(output.target)]
    name_subgraphs(graph_module)
    _generate_code(graph_module)
    _keep_requires_grad(wrapped)
    return wrapped.become(Named)


class Names:
    """Hands out names, and numbers those that are taken."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self.used: set[str] = set()
        self.highest: dict[str, int] = {}

    def claim(self, old: str, wanted: str, *, whole: bool = False) -> str:
        """Give the node ``old`` the name it wants or the next number; ``whole``: digits at its end are no number."""
        if wanted in self.used:
            stem = wanted if whole else _stem(wanted)[0]
            wanted = f"{stem}_{self.highest.get(stem, 0) + 1}"
        self.keep(wanted)
        self.given[old] = wanted
        return wanted

    def keep(self, name: str) -> None:
        """Note a name that is used as it is."""
        self.used.add(name)
        stem, number = _stem(name)
        if number is not None:
            self.highest[stem] = max(self.highest.get(stem, 0), number)


def _stem(name: str) -> tuple[str, int | None]:
    found = re.match(r"(.*)_(\d+)", name)
    return (found[1], int(found[2])) if found else (name, None)


def _all_nodes(graph_module: torch.fx.GraphModule) -> list[torch.fx.Node]:
    modules = [m for m in graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    return [node for module in modules for node in module.graph.nodes]


def _custom_metadata(module: torch.nn.Module) -> dict[str, Any]:
    """Return what the nodes of a graph that is captured again were annotated with, by node name."""
    nodes = module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ()
    return {node.name: node.meta["custom"] for node in nodes if "custom" in node.meta}


def _name_inputs(wrapped: Wrapped, names: Names, inherited: dict[str, Any]) -> None:
    specs = wrapped.signature.input_specs
    of_user = [spec for spec in specs if spec.kind is InputKind.USER_INPUT]
    for spec, leaf in zip(of_user, wrapped.symbolic.bound.leaves, strict=True):
        names.claim(spec.arg.name, identifier_of(leaf.path), whole=True)
    for spec in specs:
        if spec.kind is not InputKind.USER_INPUT:
            word = re.sub(r"[^a-zA-Z0-9]", "_", re.sub(_SELF, "", spec.target or "").lower())
            given = names.claim(spec.arg.name, PREFIXES[spec.kind] + word, whole=True)
            if word in inherited:
                inherited[given] = inherited.pop(word)


def name_subgraphs(graph_module: torch.fx.GraphModule) -> None:
    """Name the placeholders of subgraphs after the operands that they take."""
    for call in graph_module.graph.nodes:
        if isinstance(call.target, HigherOrderOperator):
            subgraphs_of = _SUBGRAPHS.get(call.target._name)
            for body, operands in subgraphs_of(*call.args) if subgraphs_of else ():
                _name_subgraph(getattr(graph_module, body.target), operands)


def _name_subgraph(body: torch.fx.GraphModule, operands: Sequence[Any]) -> None:
    names = Names()
    for index, node in enumerate(body.graph.nodes):
        if index < len(operands):
            node.name = node.target = operands[index].name
            names.keep(node.name)
        else:
            node.name = names.claim(node.name, node.name)
    name_subgraphs(body)


def _generate_code(graph_module: torch.fx.GraphModule) -> None:
    """Generate the code of all subgraphs; the program does it for the outermost graph."""
    for key, body in list(graph_module.named_children()):
        if isinstance(body, torch.fx.GraphModule):
            _generate_code(body)
            if isinstance(body, LazyGraphModule):
                plain = torch.fx.GraphModule(body, body.graph)
                plain.meta.update(body.meta)
                setattr(graph_module, key, plain)
            else:
                body.recompile()


def _keep_requires_grad(wrapped: Wrapped) -> None:
    """Values of placeholders require a gradient where the tensors they stand for do."""
    symbolic, values = wrapped.symbolic, {}
    user_inputs = iter(symbolic.fakes)
    for spec in wrapped.signature.input_specs:
        by_name = symbolic.state.fake if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) else wrapped.constants
        is_user_input = spec.kind is InputKind.USER_INPUT
        values[spec.arg.name] = next(user_inputs) if is_user_input else by_name.get(spec.target or "")
    for node in wrapped.graph_module.graph.find_nodes(op="placeholder"):
        value = values[node.name]
        if isinstance(value, torch.Tensor) and (node.meta["val"].is_leaf or not value.requires_grad):
            node.meta["val"].requires_grad = value.requires_grad
