"""Script objects: their table, what names them, what stands for them in graphs, and the calls of their methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.hostile.cases import MANIFEST_ONLY, Builder, Case, documents, manifest
from tests.rewriting import caller

_CLASS = "torch.classes.hostile.Thing"


def _holding(*constants: dict[str, Any], **fields: Any) -> Builder:
    """A program with one object, which is some of its constants."""

    def change(taken: dict[str, Any]) -> None:
        taken["objects"] = [{"name": _CLASS, "state": None, **fields}]
        taken["methods"][0]["objects"] = [{"key": "thing", "object": 0, "at": 0, **each} for each in constants]

    return manifest(change)


def _value(*row: Any) -> Builder:
    """The value of an input is an object."""

    def change(plain: dict[str, Any], _: dict[str, Any]) -> None:
        graph = plain["graph"]
        graph["values"].append(["object", *row])
        graph["graphs"][0]["values"][graph["graphs"][0]["names"].index("x")] = len(graph["values"]) - 1

    return documents(change)


def _example(place: int) -> Builder:
    def change(taken: dict[str, Any]) -> None:
        taken["methods"][0]["example"][0] = {"object": place}

    return manifest(change)


def _deep(levels: int) -> Any:
    return ["list", [_deep(levels - 1)]] if levels else None


def _pass(plain: dict[str, Any], row: Any) -> Any:
    """Pass something else to a node; the node."""
    plain["graph"]["arguments"].append(row)
    node = caller(plain, "aten::add.Tensor")
    node.set_operand(1, len(plain["graph"]["arguments"]) - 1)
    return node


def _calling(method: Any, change: Callable[[dict[str, Any], int], None] = lambda *_: None) -> Builder:
    """A node calls a method of its first argument."""

    def build(plain: dict[str, Any], taken: dict[str, Any]) -> None:
        graph, name = plain["graph"], "higher_order::call_torchbind"
        node = _pass(plain, method)
        graph["arguments"].append(["operator", name])
        graph["targets"][graph["targets"].index("aten::add.Tensor")] = name
        next(use for use in taken["methods"][0]["operators"] if use["name"] == "aten::add.Tensor")["name"] = name
        change(graph, node.place)

    return documents(build)


def _by_keyword(graph: dict[str, Any], place: int) -> None:
    graph["keywords"].append([["wrapped_func"], [len(graph["arguments"]) - 1]])
    graph["graphs"][0]["keywords"][place] = len(graph["keywords"]) - 1


def _handed_on(graph: dict[str, Any], place: int) -> None:
    """The call is given to another operator, without the object and the method."""
    graph["targets"][graph["targets"].index("higher_order::call_torchbind")] = "higher_order::with_effects"
    first = sum(graph["graphs"][0]["arities"][:place])
    graph["graphs"][0]["operands"][first + 1] = len(graph["arguments"]) - 1


_NO_METHOD = r"no method that a graph may call \(at (forward.)?graph.graphs.0"

CASES = [
    Case("an object of a class that nobody admits", _holding({}), rf"class {_CLASS} \(at objects.0\)", MANIFEST_ONLY),
    Case(
        "an object of a function", _holding({}, name="os.system"), r"'os.system' is no class .*\(at manifest.objects.0"
    ),
    Case("an object of a namespace", _holding({}, name="torch.classes.x"), r"is no class .*\(at manifest.obj"),
    Case("an object of a class within a class", _holding({}, name=f"{_CLASS}.x"), r"is no class of"),
    Case("an object of a class that is code", _holding({}, name="torch.classes.a.b()"), r"is no class of"),
    Case(
        "an object from what is no module", _holding({}, provider="a b; c"), r"is no module \(at manifest.objects.0\)"
    ),
    Case("an object in the state of an object", _holding({}, state=["object", 0]), r"\(at manifest\)"),
    Case("a state that is nested too deep", _holding({}, state=_deep(70)), r"too deep \(at manifest.objects.0"),
    Case(
        "a state of a million lists",
        _holding({}, state=["list", [["list", []]] * 1_000_000]),
        r"maps and records|more than",
    ),
    Case("an object that is not there", _holding({"object": 7}), r"object 7 of 1 \(at .*objects.thing\)"),
    Case("an object before the first", _holding({"object": -1}), r"object -1 of 1 \(at .*objects.thing\)"),
    Case("two constants of one name", _holding({}, {"at": 1}), r"'thing' is there twice \(at .*objects\)"),
    Case("two constants in one place", _holding({}, {"key": "other"}), r"not each in a place of its own"),
    Case("a constant behind the last", _holding({"at": 9}), r"not each in a place of its own"),
    Case("a constant before the first", _holding({"at": -1}), r"not each in a place of its own"),
    Case("a constant whose name is code", _holding({"key": 'a".b'}), r"not a qualified name|class", MANIFEST_ONLY),
    Case("an example that is an object that is not there", _example(0), r"object 0 of 0 \(at .*example.0\)"),
    Case(
        "an input of a class that nobody admits",
        _value("x", _CLASS, None),
        rf"class {_CLASS} \(at|\(at manifest.methods.forward.inputs.x\)",
        MANIFEST_ONLY,
    ),
    Case("an input of a class that is none", _value("x", "os.system", None), r"is no class of script", MANIFEST_ONLY),
    Case("an input whose name is code", _value("x; y", _CLASS, None), r"not an identifier", MANIFEST_ONLY),
    Case(
        "a tensor that is no part of a state",
        documents(lambda plain, _: _pass(plain, ["tensor", 0])),
        r"a tensor outside of the state of an object \(at graph.arguments",
        MANIFEST_ONLY,
    ),
    Case("a method that is no name", _calling(7), _NO_METHOD, MANIFEST_ONLY),
    Case("a method that is code", _calling("a()"), _NO_METHOD, MANIFEST_ONLY),
    Case("a method of every object of Python", _calling("__reduce__"), _NO_METHOD, MANIFEST_ONLY),
    Case("a call of a method by keyword", _calling("get", _by_keyword), r"method by keyword", MANIFEST_ONLY),
    Case("a call of a method that is handed on", _calling("get", _handed_on), _NO_METHOD, MANIFEST_ONLY),
]
