"""Decisions by values that only a run knows, in the user's words."""

from __future__ import annotations

from typing import Any

from exporter.capture.artifacts import Symbolic
from exporter.capture.places import Spot
from exporter.capture.wording import has_unnamed, in_words, locals_in_words, words_of


def describe_decision(condition: Any, spot: Spot, symbolic: Symbolic | None) -> tuple[str, str]:
    """Describe a decision by a value of a tensor.

    Args:
        condition: What was decided, as an expression of symbols; None if torch does not say it.
        spot: Where it was decided.
        symbolic: The inputs.

    Returns:
        What is wrong, and what to do instead.
    """
    number = condition is not None and not (condition.is_Relational or condition.is_Boolean)
    what = "computes in Python with" if number else "decides by"
    words = words_of(symbolic) | locals_in_words(spot.variables)
    decided, opposite = (_relation(each) for each in (condition, getattr(condition, "negated", None)))
    if condition is None or has_unnamed(decided, words):
        return (
            f"the module {what} a value of a tensor, known only at run time{f': `{spot.code}`' if spot.code else ''}",
            "branch with torch.cond, choose with torch.where, or keep the value in a tensor",
        )
    decided, opposite = in_words(decided, words), in_words(opposite, words)
    checks = f": torch._check({decided}) or torch._check({opposite})" if opposite else ""
    return (
        f"the module {what} a value that is known only at run time: {decided}",
        f"branch with torch.cond or torch.where, or state what always holds{checks or ' with torch._check'}",
    )


def _relation(condition: Any) -> str:
    if condition is None:
        return ""
    relation = getattr(condition, "rel_op", None)
    return f"{condition.lhs} {relation} {condition.rhs}" if relation else str(condition)
