"""Containers of inputs and outputs, and the module call graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.hostile.cases import MANIFEST_ONLY, Case, documents

_PLACE = r"\(at calls"


def _case(
    name: str, change: Callable[[dict[str, Any]], Any], says: str = _PLACE, blind: frozenset[str] = MANIFEST_ONLY
) -> Case:
    return Case(name, documents(lambda plain, _: change(plain["calls"])), says, blind)


def _call(calls: dict[str, Any]) -> list[Any]:
    return calls["entries"][0][1]


def _result(name: str, context: Any, kind: str = "object", fields: tuple[str, ...] = (), parts: int = 4) -> Any:
    """The program returns a container of another type."""

    def change(calls: dict[str, Any]) -> None:
        calls["types"].append({"name": name, "kind": kind, "fields": list(fields), "dumped": True})
        _call(calls)[3] = ["branch", len(calls["types"]) - 1, context, [["leaf"]] * parts]

    return change


def _key(key: Any) -> Callable[[dict[str, Any]], None]:
    """An argument is a dictionary with a key."""

    def change(calls: dict[str, Any]) -> None:
        _call(calls)[2][3][0][3][0] = ["branch", 1, ["list", [key]], [["leaf"]]]

    return change


def _keyword(name: Any) -> Callable[[dict[str, Any]], None]:
    """The program has a keyword argument."""

    def change(calls: dict[str, Any]) -> None:
        args, kwargs = _call(calls)[2][3]
        args[3].pop()
        kwargs[2], kwargs[3] = ["list", [name]], [["leaf"]]

    return change


_OPERATOR = ["operator", "aten::add.Tensor"]

CASES = [
    _case(
        "a container that is imported",
        lambda each: each["types"][0].update(name="os.system"),
        rf"no container of Python or torch {_PLACE}",
    ),
    _case("a container that is not there", lambda each: _call(each)[2].__setitem__(1, 99), rf"type 99 of 2 {_PLACE}"),
    _case("a container of an unknown kind", _result("a.B", None, "enum"), rf"a container of kind 'enum' {_PLACE}"),
    _case("a container whose name is code", _result("a.B(); x", None), rf"is not an identifier {_PLACE}"),
    _case("a container without a name", _result("", None), rf"is not an identifier {_PLACE}"),
    _case(
        "a container whose field is code",
        _result("a.B", None, "namedtuple", ("x", "y=1", "z", "u")),
        rf"'y=1' is not an identifier {_PLACE}",
    ),
    _case(
        "a container whose field is private",
        _result("a.B", None, "namedtuple", ("_x", "y", "z", "u")),
        rf"no such class.*{_PLACE}",
    ),
    _case(
        "a container with two fields of one name",
        _result("a.B", None, "namedtuple", ("x", "x", "z", "u")),
        rf"no such class.*{_PLACE}",
    ),
    _case(
        "a container of fewer fields than parts",
        _result("a.B", None, "namedtuple", ("x",)),
        rf"not one part per field {_PLACE}",
    ),
    _case(
        "a class of Python as one of a user's",
        _result("collections.defaultdict", ["dict", ["a"], ["b"]]),
        rf"as one of a user's {_PLACE}",
    ),
    _case("a class of torch as one of a user's", _result("torch.nn.Module", None, "namedtuple"), _PLACE),
    _case(
        "a defaultdict with a factory to import",
        _result("collections.defaultdict", ["tuple", ["os.system", ["list", ["a", "b", "c", "d"]]]], "builtin"),
        rf"not the context .*{_PLACE}",
    ),
    _case("a context that names an operator", _result("a.B", _OPERATOR), rf"names a function {_PLACE}"),
    _case(
        "a context that names an operator deep inside",
        _result("a.B", ["dict", ["a"], [["list", [_OPERATOR]]]]),
        rf"names a function {_PLACE}",
    ),
    _case(
        "a dictionary with fewer keys than values",
        _result("builtins.dict", ["list", ["a"]], "builtin"),
        rf"not the context of a dict {_PLACE}",
    ),
    _case(
        "a dictionary whose key is a list",
        _result("builtins.dict", ["list", [["list", []], "b", "c", "d"]], "builtin"),
        _PLACE,
    ),
    _case(
        "a tuple with a context",
        _result("builtins.tuple", ["list", ["a"]], "builtin"),
        rf"not the context of a tuple {_PLACE}",
    ),
    _case(
        "a deque that is too short", _result("collections.deque", 1, "builtin"), rf"not the context of a deque {_PLACE}"
    ),
    _case(
        "a result of five parts",
        _result("builtins.list", None, "builtin", parts=5),
        r"do not fit their tree \(at (calls|forward.signature)",
    ),
    _case("a key that ends a text in code", _key('x" + print(1) + "'), rf"holds a quote.*{_PLACE}"),
    _case("a key that ends a line of code", _key("x\nprint(1)"), rf"control character {_PLACE}"),
    _case("a keyword argument whose name is code", _keyword("x, y=print(1)"), rf"is not an identifier {_PLACE}"),
    _case("a keyword argument whose name is a number", _keyword(7), rf"is not an identifier {_PLACE}"),
    _case(
        "an argument's name that is code",
        lambda each: _call(each).__setitem__(4, ["x=print(1)", "y"]),
        rf"is not an identifier {_PLACE}",
    ),
    _case(
        "inputs that are no (args, kwargs)",
        lambda each: _call(each).__setitem__(2, ["leaf"]),
        rf"inputs are not \(args, kwargs\) {_PLACE}",
    ),
    _case("no call of the program", lambda each: each["entries"].clear(), rf"own call is missing {_PLACE}"),
    _case(
        "a call of the program without signature",
        lambda each: each["entries"].__setitem__(0, ["", None]),
        rf"own call is missing {_PLACE}",
    ),
    _case(
        "a module's name that is code",
        lambda each: each["entries"].append(['x"].y', None]),
        rf"not a qualified name {_PLACE}",
        MANIFEST_ONLY | {"load_module"},
    ),
    _case(
        "an example that does not fit", lambda each: each.update(example=["leaf"]), rf"does not fit its tree {_PLACE}"
    ),
]
