"""The graph: names that would be code, nodes and tables that do not fit, operators that no archive may call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schema.graph import Graph
from tests.hostile.cases import MANIFEST_ONLY, Case, documents
from tests.rewriting import NodeRow, caller

_WITHOUT_VALUES = MANIFEST_ONLY | {"load_module"}
"""Ways to open an archive that do not build what is known of values."""


_COLUMNS = ("names", "targets", "arities", "keywords", "values", "modules", "functions")


def _case(name: str, change: Callable[[dict[str, Any]], Any], says: str, blind: frozenset[str] = MANIFEST_ONLY) -> Case:
    return Case(name, documents(lambda plain, _: change(plain["graph"])), says, blind)


def _nodes(graph: dict[str, Any]) -> dict[str, Any]:
    return graph["graphs"][0]


def _addition(graph: dict[str, Any]) -> NodeRow:
    return caller({"graph": graph}, "aten::add.Tensor")


def _rename(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda graph: NodeRow(_nodes(graph), "x").__setitem__("names", name)


def _call(name: str, says: str) -> Case:
    """A program that calls something else, and says so."""

    def change(plain: dict[str, Any], manifest: dict[str, Any]) -> None:
        plain["graph"]["targets"][plain["graph"]["targets"].index("aten::add.Tensor")] = name
        next(use for use in manifest["methods"][0]["operators"] if use["name"] == "aten::add.Tensor")["name"] = name

    return Case(f"a call of {name}", documents(change), says, MANIFEST_ONLY)


def _keywords(names: list[str], operands: list[int]) -> Callable[[dict[str, Any]], None]:
    def change(graph: dict[str, Any]) -> None:
        graph["keywords"].append([names, operands])
        _addition(graph)["keywords"] = len(graph["keywords"]) - 1

    return change


def _argument(row: Any) -> Callable[[dict[str, Any]], None]:
    """Pass something else to a node."""

    def change(graph: dict[str, Any]) -> None:
        graph["arguments"].append(row)
        _addition(graph).set_operand(1, len(graph["arguments"]) - 1)

    return change


def _doubling(table: str, row: Callable[[int], Any]) -> Callable[[dict[str, Any]], None]:
    """Rows each of which holds the one before it twice."""

    def change(graph: dict[str, Any]) -> None:
        first = len(graph[table])
        graph[table].extend(row(place - 1) for place in range(first, first + 40))

    return change


def _arity(more: int) -> Callable[[dict[str, Any]], None]:
    """Call an operator with more arguments, or fewer."""

    def change(graph: dict[str, Any]) -> None:
        columns, addition = _nodes(graph), _addition(graph)
        last = sum(columns["arities"][: addition.place + 1])
        columns["operands"][last + min(more, 0) : last] = [-1] * max(more, 0)
        addition["arities"] += more

    return change


def _lost_metadata(graph: dict[str, Any]) -> None:
    first = _nodes(graph) | {"custom": {999: 0}}
    graph["graphs"][0] = {field: first[field] for field in Graph.__struct_fields__ if field in first}


def _lost_outputs(graph: dict[str, Any]) -> None:
    outputs = graph["arguments"][_nodes(graph)["operands"][-1]]
    outputs[1] = [-999] * len(outputs[1])


def _nested(depth: int) -> Any:
    literal: Any = 1
    for _ in range(depth):
        literal = ["list", [literal]]
    return literal


def _tensor_value(graph: dict[str, Any]) -> list[Any]:
    return next(row for row in graph["values"] if row[0] == "tensor")


def _of_subgraphs(change: Callable[[dict[str, Any], list[Any]], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda graph: change(graph, next(each for each in graph["graphs"] if each.get("subgraphs"))["subgraphs"])


def _repeat_names(graph: dict[str, Any]) -> None:
    _nodes(graph)["names"] = ["x"] * len(_nodes(graph)["names"])


CASES = [
    _case(
        "an argument too few",
        _arity(-1),
        r"aten::add.Tensor.* cannot be called with 1 arguments \(at graph.graphs.0.add\)",
    ),
    _case(
        "two arguments too many",
        _arity(2),
        r"aten::add.Tensor.* cannot be called with 4 arguments \(at graph.graphs.0.add\)",
    ),
    _case(
        "an argument that the operator does not have",
        _keywords(["beta"], [0]),
        r"cannot be called with .*, beta \(at graph",
    ),
    _case("an argument that is given twice", _keywords(["other"], [0]), r"cannot be called with .*, other \(at graph"),
    _case("a name that is code", _rename("x=print(1)"), r"'x=print\(1\)' is not an identifier \(at graph"),
    _case("a name that is a keyword", _rename("class"), r"'class' is not an identifier \(at graph"),
    _case("a name that is self", _rename("self"), r"code has another use for it \(at graph.graphs.0.self\)"),
    _case("a name of another alphabet", _rename("x\u02b0"), r"is not an identifier \(at graph"),
    _case("a name of a million letters", _rename("x" * 10**6), r"\(at |refuses the program"),
    _case("no name", _rename(""), r"'' is not an identifier \(at graph"),
    _case("two nodes of one name", _rename("y"), r"two nodes have this name \(at graph.graphs.0.y\)"),
    _case("all nodes of one name", _repeat_names, r"two nodes have this name \(at graph.graphs.0.x\)"),
    _case("an argument's name that is code", _keywords(["a=0, b"], [0]), r"'a=0, b' is not an identifier \(at graph"),
    _case(
        "an argument's name that is there twice", _keywords(["a", "a"], [0, 0]), r"not one name for each .*\(at graph"
    ),
    _case("fewer values than arguments' names", _keywords(["a", "b"], [0]), r"not one name for each .*\(at graph"),
    _case(
        "an argument that is not there",
        lambda graph: _addition(graph).set_operand(1, 999),
        r"argument 999 of.*\(at graph",
    ),
    _case(
        "a result that is used before it is there",
        lambda graph: _addition(graph).set_operand(0, -999),
        r"no node before it",
    ),
    _case("an output of a node that is not there", _lost_outputs, r"no node before it|another node's result"),
    _case(
        "a value that is not there",
        lambda graph: _addition(graph).__setitem__("values", 999),
        r"value 999 of.*graph.graphs.0.add",
    ),
    _case(
        "a target that is not there",
        lambda graph: _addition(graph).__setitem__("targets", 999),
        r"target 999 of.*graph.graphs.0.add",
    ),
    _case(
        "a module that is not there",
        lambda graph: _addition(graph).__setitem__("modules", 999),
        r"module frame 999 of.*graph.graphs.0.add",
    ),
    _case(
        "a place below zero",
        lambda graph: _addition(graph).__setitem__("targets", -5),
        r"target -5 of.*graph.graphs.0.add",
    ),
    _case("a place over 2^63", lambda graph: _addition(graph).__setitem__("values", 2**63), r"\(at (forward\.)?graph"),
    _case(
        "columns of different lengths",
        lambda graph: _nodes(graph)["values"].pop(),
        r"entries for .* nodes \(at graph.graphs.0.value\)",
    ),
    _case(
        "more arguments than operands",
        lambda graph: _addition(graph).__setitem__("arities", 4),
        r"operands for .*\(at graph",
    ),
    _case("a billion arguments", lambda graph: _addition(graph).__setitem__("arities", 10**9), r"\(at graph"),
    _case(
        "an argument that holds itself",
        lambda graph: graph["arguments"].append(["list_of", [len(graph["arguments"]), -1]]),
        r"argument \d+ of \d+ \(at graph.arguments",
    ),
    _case(
        "an argument that doubles",
        _doubling("arguments", lambda place: ["list_of", [place, place, -1]]),
        r"too many parts \(at graph.arguments",
    ),
    _case(
        "a literal 200 deep",
        lambda graph: graph["arguments"].append(_nested(200)),
        r"nested too deep \(at graph.arguments",
    ),
    _case(
        "a dictionary whose key is a list",
        lambda graph: graph["arguments"].append(["dict_of", [len(graph["arguments"]) - 1], [-1]]),
        r"\(at graph.arguments",
    ),
    _case(
        "metadata of a node that is not there",
        _lost_metadata,
        r"node 999 of .*\(at graph.graphs.0.custom",
    ),
    _case(
        "a value that doubles",
        _doubling("values", lambda place: ["list", [place, place]]),
        r"too many parts \(at graph.values",
    ),
    _case(
        "a value that holds itself",
        lambda graph: graph["values"].append(["list", [len(graph["values"])]]),
        r"value \d+ of \d+ \(at graph.values",
    ),
    _case(
        "a value of 100 dimensions",
        lambda graph: _tensor_value(graph).__setitem__(slice(2, 4), [[1] * 100, [1] * 100]),
        r"100 dimensions .*\(at graph.values",
    ),
    _case(
        "a value whose strides do not fit",
        lambda graph: _tensor_value(graph).__setitem__(3, []),
        r"dimensions with 0 strides \(at graph.values",
    ),
    _case(
        "a value of 2^120 elements",
        lambda graph: _tensor_value(graph).__setitem__(slice(2, 4), [[2**60, 2**60], [2**60, 1]]),
        r"\(at graph",
        _WITHOUT_VALUES,
    ),
    _case(
        "a value of an unknown type",
        lambda graph: _tensor_value(graph).__setitem__(1, "load"),
        r"no 'load'.*\(at graph",
        _WITHOUT_VALUES,
    ),
    _case(
        "a value on an unknown device",
        lambda graph: _tensor_value(graph).__setitem__(4, ["device", "toaster", None]),
        r"no such device|\(at graph",
        _WITHOUT_VALUES,
    ),
    _case(
        "a module path that is code",
        lambda graph: graph["frames"][0].__setitem__(2, 'x", 0) or ("'),
        r"holds a double quote.*\(at graph.frames",
    ),
    _case(
        "modules in each other without end",
        lambda graph: graph["frames"].extend([place, "k", "p", "t"] for place in range(1, 1000)),
        r"\(at graph.frames",
    ),
    _case(
        "a module in itself",
        lambda graph: graph["frames"].append([len(graph["frames"]) + 1, "k", "p", "t"]),
        r"module frame \d+ of .*\(at graph.frames",
    ),
    _case(
        "a function's name that is code",
        lambda graph: graph["functions"].append(('x"', "y")),
        r"holds a quote.*\(at graph.functions",
    ),
    _case(
        "a dialect that is not there",
        lambda graph: graph.update(dialect="X"),
        r"no dialect 'X' \(at graph\)",
        _WITHOUT_VALUES,
    ),
    _case("no graph", lambda graph: graph.update(graphs=[]), r"no graph \(at graph\)|the operators are not"),
    _case(
        "no nodes",
        lambda graph: _nodes(graph).update({name: [] for name in (*_COLUMNS, "operands")}),
        r"\(at (manifest|graph|signature|forward)",
    ),
    _case("a node behind the output", lambda graph: _swap_last(graph), r"\(at (graph|manifest)"),
    _case(
        "a subgraph that is not there",
        _of_subgraphs(lambda _, subgraphs: subgraphs[0].__setitem__(1, 999)),
        r"subgraph 999|\(at graph",
    ),
    _case(
        "a subgraph that holds itself",
        _of_subgraphs(lambda _, subgraphs: subgraphs[0].__setitem__(1, 0)),
        r"\(at graph",
    ),
    _case(
        "a subgraph whose name is code",
        _of_subgraphs(lambda _, subgraphs: subgraphs[0].__setitem__(0, "x; y")),
        r"'x; y' is not an identifier \(at graph",
    ),
    _case(
        "a tensor of a graph that is not there",
        lambda graph: _nodes(graph).update(attributes=[["a", 999]]),
        r"\(at graph.graphs.0.attributes",
    ),
    _call("python::predispatch._vmap_increment_nesting", r"enters vmap levels .*\(at graph.graphs.0"),
    _call("aten::from_file.default", r"from_file.default is forbidden .*\(at (graph|forward)"),
    _call("aten::save.default", r"save.default is forbidden .*\(at (graph|forward)"),
    _call("aten::seed.default", r"forbidden .*\(at (graph|forward)"),
    _call("profiler::_record_function_enter.default", r"allow_ops=\[\"profiler\"\]"),
    _call("c10d::send.default", r"allow_ops=\[\"c10d\"\]"),
    _call("aten::append.t", r"not on the list .*\(at (graph|forward)"),
    _call("prim::Print.default", r"\(at (graph|forward)"),
    _call("aten::_reshape_alias.default", r"forbidden .*\(at (graph|forward)"),
    _call("aten::fbgemm_linear_fp16_weight.default", r"not on the list .*\(at (graph|forward)"),
    _call("aten::no_such.default", r"knows no operator aten::no_such.default \(at (graph|forward)"),
    _call("aten::__class__.__init__", r"knows no operator .*\(at (graph|forward)"),
    _call("__class__::mro.default", r"\(at (graph|forward)"),
    _call("torchvision::nms.default", r"allow_ops=\[\"torchvision\"\]"),
    _call("python::torch.load", r"no function .*\(at (graph|forward)"),
    _call("python::torch.os.system", r"no function .*\(at (graph|forward)"),
    _call("python::builtins.eval", r"no function .*\(at (graph|forward)"),
    _call("higher_order::triton_kernel_wrapper_functional", r"no higher-order operator .*\(at (graph|forward)"),
    _call("node::call_module", r"\(at (graph|forward)"),
    _case(
        "an argument that is a function",
        _argument(["operator", "python::builtins.exec"]),
        r"no function|\(at (forward.)?graph",
    ),
    _case("an argument that is a device without name", _argument(["device", "", None]), r"no such device|\(at graph"),
]


def _swap_last(graph: dict[str, Any]) -> None:
    for name in _COLUMNS:
        column = _nodes(graph)[name]
        column[-1], column[-2] = column[-2], column[-1]
