"""Every graph is checked before it becomes a program, and each check can fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from exporter.capture import capture, package
from exporter.capture.verify import verify
from schema.errors import CaptureError


class Model(torch.nn.Module):
    """Has a parameter, a buffer, a constant and a region of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.register_buffer("scale", torch.ones(2))
        self.shift = torch.ones(2)

    def forward(self, x):
        x = self.linear(x) * self.scale
        with torch.no_grad():
            x = x + 1
        return x + self.shift


@pytest.fixture
def named(monkeypatch):
    """What the stage ``package`` gets."""
    seen: list[Any] = []
    monkeypatch.setattr(package, "verify", seen.append)
    capture(Model(), (torch.ones(2),))
    return seen[0]


def find(named: Any, name: str, path: str = "") -> torch.fx.Node:
    graph_module = named.graph_module.get_submodule(path)
    return next(node for node in graph_module.graph.nodes if node.name == name)


def give(node: torch.fx.Node, **meta: Any) -> None:
    node.meta = {**node.meta, **meta}  # regions share theirs with the node that calls them


def rename(node: torch.fx.Node, name: str) -> None:
    node.name = name


BREAKS: dict[str, tuple[Any, str, str]] = {
    "a call without a module stack": (lambda n: find(n, "linear").meta.pop("nn_module_stack"), "linear", "no nn_mod"),
    "a module stack of another form": (
        lambda n: give(find(n, "mul"), nn_module_stack={"L__self__": "linear"}), "mul", "no dict of pairs"),
    "a module stack of another form in a region": (
        lambda n: give(find(n, "add", "submod_1"), nn_module_stack=[]), "submod_1.add", "no dict of pairs"),
    "a stack trace that is no text": (
        lambda n: give(find(n, "mul"), stack_trace=["line"]), "mul", "stack_trace of type list"),
    "a stack trace that is no text in a region": (
        lambda n: give(find(n, "add", "submod_1"), stack_trace=3), "submod_1.add", "stack_trace of type int"),
    "an input that comes from a line": (lambda n: give(find(n, "x"), stack_trace="line"), "x", "only calls can"),
    "an output that comes from a module": (
        lambda n: give(find(n, "output", "submod_1"), nn_module_stack={"a": ("a", "b")}),
        "submod_1.output", "only calls can"),
    "a parameter under another name": (lambda n: rename(find(n, "p_linear_weight"), "weight"), "weight", "is called"),
    "a buffer without its prefix": (
        lambda n: (rename(find(n, "b_scale"), "scale"), setattr(n.signature.input_specs[2].arg, "name", "scale")),
        "scale", "begin with 'b_'"),
}  # fmt: skip


def test_a_graph_that_was_captured_passes(named):
    verify(named)


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_promise_is_told_with_its_node(named, what):
    make, node, words = BREAKS[what]
    make(named)
    with pytest.raises(CaptureError) as caught:
        verify(named)
    assert caught.value.loc == (node,)
    assert words in caught.value.message
    assert "defect of the capture" in caught.value.remedy
