"""Calls of what is no operator: what names it, what puts its arguments together, and the nodes that call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.hostile.cases import MANIFEST_ONLY, Builder, Case, documents
from tests.rewriting import NodeRow, caller

_FUNCTION = "torch._dynamo._trace_wrapped_higher_order_op.ModIndex"
_UNNAMED = r"does not name the autograd function that it calls \(at (forward.)?graph.graphs.0.flat_apply"
_UNSAID = r"does not say what it calls \(at (forward.)?graph.graphs.0.flat_apply"
_TREE = ["tuple", [["tuple", [None, None, ["list", [None]]]], ["dict", [], []]]]


def _graph(change: Callable[[dict[str, Any]], Any]) -> Builder:
    return documents(lambda plain, _: change(plain["graph"]["graphs"][0]), "indexed")


def _node(change: Callable[[dict[str, Any], NodeRow], Any]) -> Builder:
    return documents(lambda plain, _: change(plain["graph"], caller(plain, "higher_order::flat_apply")), "indexed")


def _named(name: Any) -> Builder:
    """The node names something else."""
    return _node(lambda graph, _: graph["arguments"].__setitem__(graph["arguments"].index(_FUNCTION), name))


def _tree(tree: Any) -> Builder:
    return _graph(lambda graph: graph["skeletons"][0].__setitem__(1, tree))


def _operand(index: int, operand: int) -> Builder:
    return _node(lambda _, node: node.set_operand(index, operand))


def _shorter(graph: dict[str, Any], node: NodeRow) -> None:
    """The last argument is not there."""
    columns = graph["graphs"][0]
    del columns["operands"][sum(columns["arities"][: node.place + 1]) - 1]
    node["arities"] -= 1


def _by_keyword(graph: dict[str, Any], node: NodeRow) -> None:
    graph["keywords"].append([["checked_output"], [0]])
    node["keywords"] = len(graph["keywords"]) - 1


def _handed_on(graph: dict[str, Any], node: NodeRow) -> None:
    graph["arguments"].append(["operator", "higher_order::flat_apply"])
    node.set_operand(4, len(graph["arguments"]) - 1)


def _renamed(name: str) -> Builder:
    """The graph has what it calls under another name, and reads it by that."""

    def change(graph: dict[str, Any], _: NodeRow) -> None:
        row = graph["graphs"][0]["callees"][0]
        graph["arguments"][graph["arguments"].index(row[0])] = name
        row[0] = name

    return _node(change)


def _nested(levels: int) -> Any:
    return ["list", [_nested(levels - 1)]] if levels else None


def _case(name: str, build: Builder, says: str) -> Case:
    return Case(name, build, says, MANIFEST_ONLY)


CASES = [
    _case("a function that nobody admits", _named("os.path.Popen"), r"autograd function os.path.Popen \(at"),
    _case("a function of the interpreter", _named("builtins.eval"), r"autograd function builtins.eval \(at"),
    _case("a function that is code", _named("a;b.c()"), r"name no class \(at"),
    _case("a function without a module", _named("eval"), r"name no class \(at"),
    _case("a function that is no text", _named(7), _UNNAMED),
    _case("a function that a node names", _operand(2, -1), _UNNAMED),
    _case("a function that is read from nowhere", _operand(0, -4), _UNSAID),
    _case("a function that is a literal", _operand(0, 0), _UNSAID),
    _case("arguments put together by nothing", _operand(1, -1), _UNSAID),
    _case("a function and its arguments in one", _operand(0, -2), _UNSAID),
    _case("functions that are not there", _graph(lambda graph: graph.pop("callees")), _UNSAID),
    _case("two functions of one name", _graph(lambda graph: graph["callees"].append(graph["callees"][0])), "one name"),
    _case(
        "a class of tensors that nobody admits",
        _graph(lambda graph: graph["callees"][0].__setitem__(1, ["os", "Popen"])),
        r"class of wrapper tensors os.Popen \(at",
    ),
    _case(
        "a class of tensors that is code",
        _graph(lambda graph: graph["callees"][0].__setitem__(1, ["os", "a()"])),
        r"name no class \(at",
    ),
    _case("fewer arguments than it is to get", _node(_shorter), r"other arguments than .*\(at"),
    _case("arguments by keyword", _node(_by_keyword), r"other arguments than .*\(at"),
    _case("a call that is handed on", _node(_handed_on), r"flat_apply among the arguments of a node \(at graph.arg"),
    _case("a function under the name of a method", _renamed("recompile"), r"tree spec of this name \(at .*recompile"),
    _case("a function under a name of every graph", _renamed("meta"), r"tree spec of this name \(at .*meta"),
    _case("a function under a name that is code", _renamed("a, b"), r"not an identifier \(at"),
    _case("a tree of more arguments", _tree([_TREE[0], [*_TREE[1], None]]), r"positional and keyword"),
    _case("a tree that is a leaf", _tree(None), r"positional and keyword"),
    _case("a tree of numbers", _tree(["tuple", [["tuple", [1]], ["dict", [], []]]]), r"plain containers \(at"),
    _case("a tree with a function in it", _tree(["tuple", [["operator", "aten::add.Tensor"]]]), r"plain containers"),
    _case(
        "a tree in which the function is in a list",
        _tree(["tuple", [["tuple", [["list", [None]], None, None]], ["dict", [], []]]]),
        _UNNAMED,
    ),
    _case(
        "a tree in which the function comes by keyword",
        _tree(["tuple", [["tuple", []], ["dict", ["function_cls_name", "x", "indices"], [None, None, None]]]]),
        _UNNAMED,
    ),
    _case(
        "a tree with a key twice",
        _tree(["tuple", [["tuple", [None]], ["dict", ["a", "a"], [None, None]]]]),
        r"plain containers",
    ),
    _case("a tree with a key that is no text", _tree(["dict", [["list", []]], [None]]), r"plain containers"),
    _case("a tree that is nested too deep", _tree(_nested(70)), r"too deep \(at"),
]
