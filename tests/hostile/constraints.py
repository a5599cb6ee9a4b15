"""Symbols, expressions and guards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.hostile.cases import MANIFEST_ONLY, Case, documents

_PLACE = r"\(at constraints"
_LOAD_ONLY = MANIFEST_ONLY | {"load_module"}


def _case(name: str, change: Callable[[dict[str, Any]], Any], says: str, blind: frozenset[str] = MANIFEST_ONLY) -> Case:
    return Case(name, documents(lambda plain, _: change(plain["constraints"])), says, blind)


def _expression(*rows: Any) -> Callable[[dict[str, Any]], None]:
    return lambda constraints: constraints["expressions"].extend(rows)


def _guard(*rows: Any) -> Callable[[dict[str, Any]], None]:
    """A guard of a new expression; -1 in it is the expression before."""

    def change(constraints: dict[str, Any]) -> None:
        for row in rows:
            last = len(constraints["expressions"]) - 1
            operands = [last if place == -1 else place for place in row[2]] if row[0] == "apply" else None
            constraints["expressions"].append([*row[:2], operands] if operands else row)
        constraints["guards"].append([len(constraints["expressions"]) - 1])

    return change


def _symbolic(base: int, hint: Any) -> Callable[[dict[str, Any]], None]:
    """A guard of a power whose exponent is a symbol with a large example."""

    def change(constraints: dict[str, Any]) -> None:
        constraints["symbols"][0][3] = hint
        rows = constraints["expressions"]
        rows += [["integer", base], ["apply", "Pow", [len(rows), 2]], ["apply", "Equality", [len(rows) + 1, 2]]]
        constraints["guards"].append([len(rows) - 1])

    return change


def _symbolic_tower(constraints: dict[str, Any]) -> None:
    rows = constraints["expressions"]
    rows += [
        ["integer", 9],
        *(["apply", "PowByNatural", [len(rows), place]] for place in (2, *range(len(rows) + 1, len(rows) + 4))),
    ]
    constraints["guards"].append([len(rows) - 1])


def _doubling(constraints: dict[str, Any]) -> None:
    rows = constraints["expressions"]
    rows.extend(["apply", "Mul", [place - 1, place - 1]] for place in range(len(rows), len(rows) + 40))


def _deep(constraints: dict[str, Any]) -> None:
    rows = constraints["expressions"]
    rows.extend(["apply", "Abs", [place - 1]] for place in range(len(rows), len(rows) + 500))


def _symbol(place: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda constraints: constraints["symbols"][0].__setitem__(place, value)


CASES = [
    _case("a power of a symbol that is a billion", _symbolic(9, 10**9), rf"too large {_PLACE}"),
    _case("powers of a power of a symbol", _symbolic_tower, rf"too large {_PLACE}"),
    _case(
        "an expression that is not there",
        _expression(["apply", "Add", [0, 10**6]]),
        rf"expression 1000000 of .*{_PLACE}",
    ),
    _case(
        "an expression of itself",
        lambda each: each["expressions"].append(["apply", "Add", [0, len(each["expressions"])]]),
        rf"expression \d+ of .*{_PLACE}",
    ),
    _case(
        "a function that is not on the list", _expression(["apply", "eval", [0]]), rf"unknown function 'eval' {_PLACE}"
    ),
    _case(
        "a function by import", _expression(["apply", "__import__", [0]]), rf"unknown function '__import__' {_PLACE}"
    ),
    _case("a tower of powers", _guard(["integer", 9**9], ["apply", "Pow", [-1, -1]]), rf"too large {_PLACE}"),
    _case("powers of powers", _guard(["integer", 9], *[["apply", "Pow", [-1, -1]]] * 4), rf"{_PLACE}"),
    _case(
        "a shift by a billion",
        _guard(["integer", 10**9], ["apply", "LShift", [-1, -1]]),
        rf"too large {_PLACE}",
    ),
    _case("a number of a million digits", _expression(["integer", "9" * 10**6]), r"\(at forward.constraints"),
    _case("an expression that doubles", _doubling, rf"too large {_PLACE}"),
    _case("an expression 500 deep", _deep, rf"too large {_PLACE}"),
    _case("a fraction over nothing", _expression(["rational", 1, 0]), rf"a fraction over 0 {_PLACE}"),
    _case("a symbol that is not there", _expression(["symbol", 99]), rf"symbol 99 of .*{_PLACE}"),
    _case("a symbol whose name is code", _symbol(0, "s.x"), rf"'s.x' is not an identifier {_PLACE}", _LOAD_ONLY),
    _case("a symbol that cannot be", _symbol(1, ["positive", "negative"]), rf"no such symbol|{_PLACE}", _LOAD_ONLY),
    _case("an assumption that is not there", _symbol(1, ["__class__"]), rf"{_PLACE}", _LOAD_ONLY),
    _case(
        "two symbols of one name",
        lambda each: each["symbols"][1].__setitem__(0, each["symbols"][0][0]),
        rf"{_PLACE}",
        _LOAD_ONLY,
    ),
    _case(
        "a range that is empty", lambda each: each["symbols"][0][2].reverse(), rf"{_PLACE}|range|refuses", _LOAD_ONLY
    ),
    _case("a range whose bound is not there", _symbol(2, [999, 1]), rf"expression 999 of .*{_PLACE}"),
    _case("a range of no symbol", lambda each: each["ranges"].append([999, [0, 1]]), rf"expression 999 of .*{_PLACE}"),
    _case("a guard that is not there", lambda each: each["guards"].append([999]), rf"expression 999 of .*{_PLACE}"),
    _case(
        "a step over private attributes",
        lambda each: each["symbols"][0][4][0][1].insert(0, ["attribute", "__class__"]),
        rf"no step .*{_PLACE}",
        _LOAD_ONLY,
    ),
    _case("a hint out of its range", _symbol(3, 0), rf"{_PLACE}|refuses", _LOAD_ONLY),
]
