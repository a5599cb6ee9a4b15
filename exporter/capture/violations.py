"""The solver's refusals in the user's words: what the module asks of the sizes, and how to grant it."""

from __future__ import annotations

import re

from exporter.capture.artifacts import Symbolic
from exporter.capture.wording import dimension_in_words, sources_in_words, symbols_of

_FIXED = re.compile(
    r"You marked (.+?) as dynamic but your code specialized it to be a constant \((.+?)\)\."
    r"|solving the guards generated for (\S+) = .+? resulted in a specialized value of (.+?)\.$",
    flags=re.MULTILINE,
)
_SIZE = re.compile(r"L\[\S+?\.size\(\)\[\d+\]")
_RELATIONS = (
    (r"Not all values of .+? satisfy the generated guard (.+)", r"\1"),
    (r"Not all values of .+? are valid because (.+?) was inferred to be equal to (.+)", r"\1 == \2"),
    (r"The values of \S+ = (.+?) and \S+ = (.+?) must always be equal", r"\1 == \2"),
    (r"The values of (.+?) = (.+?) must .*the values of (.+?) = (.+?) by .+? = (.+)", r"\1 == \5 for \1 = \2, \3 = \4"),
)
"""How torch tells a relation that the module asks for and the specification does not grant, and how we tell it."""

_TIDY = (
    (r" and \S+ <= IntInfinity\(\)|, max=oo|\bmax=oo", ""),
    (r"\b(\d+) <= (\S+) and \2 <= (\d+)\b", r"\1 <= \2 <= \3"),
)


def describe_violation(error: Exception, symbolic: Symbolic | None) -> tuple[str, str]:
    """Describe how the module and the specification disagree.

    Args:
        error: What the solver raised.
        symbolic: The inputs.

    Returns:
        What is wrong, and what to specify instead.
    """
    complaints, _, suggested = str(error).partition("Suggested fixes:")
    fixed = _fixed(error)
    relations = _relations(complaints)
    sizes = " and ".join(f"{dimension_in_words(name, symbolic)} to {value}" for name, value in fixed)
    parts = [f"it fixes {sizes}"] if fixed else []
    parts += [f"it asks that {' and '.join(relations)}"] if relations else []
    parts = parts or [sources_in_words(complaints.strip().partition("\n")[0])]
    fixes = [f"{sources_in_words(name)} = {value}" for name, value in fixed]
    fixes += [_admitted(_tidy(line.strip()), symbolic) for line in suggested.splitlines() if line.strip()]
    message = f"the module does not hold for all the sizes that dynamic_shapes admits: {'; '.join(parts)}"
    return message, _remedy(list(dict.fromkeys(fixes)), symbolic)


def sizes_of_violation(error: Exception) -> list[str]:
    """Return the dimensions of which torch complains, as it calls them; those that the module fixes come first."""
    return [name for name, _ in _fixed(error)] + _SIZE.findall(str(error))


def _fixed(error: Exception) -> list[tuple[str, str]]:
    return [(marked or solved, size or value) for marked, size, solved, value in _FIXED.findall(str(error))]


def _relations(complaints: str) -> list[str]:
    lines = re.findall(r"^\s*- (.+?)(?:\.?Specializations unexpectedly.*)?$", complaints, flags=re.MULTILINE)
    found = [(re.fullmatch(told, line.rstrip(".")), ours) for line in lines for told, ours in _RELATIONS]
    return list(dict.fromkeys(sources_in_words(_tidy(match.expand(ours))) for match, ours in found if match))


def _remedy(fixes: list[str], symbolic: Symbolic | None) -> str:
    """Name the ways out; asserts at run time are one where no specification can say what the module asks."""
    deferred = symbolic is not None and symbolic.bound.request.options.deferred_asserts
    ways = [f"specify {', '.join(fixes)}"] if fixes else []
    ways.append("use Dim.AUTO there")
    ways += ["pass prefer_deferred_runtime_asserts=True"] if not (fixes or deferred) else []
    return f"{', '.join(ways)}, or let the module hold for other sizes"


def _tidy(text: str) -> str:
    for told, ours in _TIDY:
        text = re.sub(told, ours, text)
    return text


def _admitted(fix: str, symbolic: Symbolic | None) -> str:
    """Raise the minimum that torch suggests past sizes that the guards exclude: ``Conv1d`` asks that ``n - 4 != 1``."""
    suggested = re.fullmatch(r"(\w+) = Dim\(.*min=(\d+).*\)", fix)
    if symbolic is None or suggested is None:
        return fix
    names, low = symbols_of(suggested[1], symbolic), int(suggested[2])
    guards = [guard.expr for guard in symbolic.shape_env.guards]
    univariate = [(expr, symbol) for expr in guards for symbol in expr.free_symbols if len(expr.free_symbols) == 1]
    excluding = [(expr, symbol) for expr, symbol in univariate if str(symbol) in names]
    sizes = range(low, low + len(excluding) + 1)
    raised = next((size for size in sizes if all(expr.subs(symbol, size) for expr, symbol in excluding)), low)
    return fix.replace(f"min={low}", f"min={raised}")
