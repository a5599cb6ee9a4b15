"""The signature: what each input and output of the graph is said to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.hostile.cases import MANIFEST_ONLY, Case, documents

_PLACE = r"\(at (forward.)?signature"
_ANY = rf"refuses the program|{_PLACE}|\(at (graph|calls|manifest)"


def _case(name: str, change: Callable[[dict[str, Any]], Any], says: str, blind: frozenset[str] = MANIFEST_ONLY) -> Case:
    return Case(name, documents(lambda plain, _: change(plain["signature"])), says, blind)


def _input(place: int, *fields: tuple[int, Any]) -> Callable[[dict[str, Any]], None]:
    def change(signature: dict[str, Any]) -> None:
        for field, value in fields:
            signature["inputs"][place][field] = value

    return change


CASES = [
    _case("an input too few", lambda each: each["inputs"].pop(), _ANY),
    _case("an input too many", lambda each: each["inputs"].append(each["inputs"][-1]), _ANY),
    _case("no inputs", lambda each: each["inputs"].clear(), _ANY),
    _case("no outputs", lambda each: each["outputs"].clear(), _ANY),
    _case("an output too few", lambda each: each["outputs"].pop(), _ANY),
    _case("two inputs in each other's place", lambda each: each["inputs"].reverse(), _ANY),
    _case("an input that is no placeholder", _input(2, (1, ["tensor", "no_such", None])), _ANY),
    _case(
        "an input whose name is code",
        _input(2, (1, ["tensor", "x; y", None])),
        _ANY,
    ),
    _case("a parameter that is not there", _input(0, (2, "linear.wight")), _ANY),
    _case("a parameter whose name is code", _input(0, (2, 'a".b')), r"not a qualified name|without a tensor"),
    _case("a parameter of a class's attribute", _input(0, (2, "__class__.x")), _ANY),
    _case("a parameter without a name", _input(0, (2, None)), _ANY),
    _case(
        "an input of an unknown kind",
        _input(0, (0, "pickle")),
        rf"a value of kind 'pickle' {_PLACE}",
        MANIFEST_ONLY | {"load_module"},
    ),
    _case(
        "an argument of an unknown kind",
        _input(0, (1, ["eval", "p_linear_weight", None])),
        rf"an argument of kind 'eval' {_PLACE}",
        MANIFEST_ONLY | {"load_module"},
    ),
    _case(
        "a script object",
        _input(0, (0, "custom_obj"), (1, ["object", "p_linear_weight", "__main__.X"])),
        _ANY,
        MANIFEST_ONLY | {"load_module"},
    ),
    _case(
        "a buffer that is neither persistent nor not", _input(0, (0, "buffer")), _PLACE, MANIFEST_ONLY | {"load_module"}
    ),
    _case("a parameter that is persistent", _input(0, (3, True)), _PLACE, MANIFEST_ONLY | {"load_module"}),
    _case(
        "an output that is written to what is not there",
        lambda each: each["outputs"][0].__setitem__(slice(0, 3, 2), ["buffer_mutation", "none"]),
        _ANY,
    ),
    _case("an output of an unknown kind", lambda each: each["outputs"][0].__setitem__(0, "exec"), _ANY),
]
