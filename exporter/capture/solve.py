"""Stage ``solve``: does the trace hold for all sizes that the specification admits, not for the example alone?"""

from __future__ import annotations

import inspect
from typing import Any

from exporter.capture.artifacts import Solved, Traced
from exporter.torch_internals import ConstraintViolationError


def solve(traced: Traced) -> Solved:
    """Solve the guards of the trace and freeze the shape environment.

    Args:
        traced: The graph, and the environment that collected guards while it was traced.

    Returns:
        The same graph, known to hold for the specification.

    Raises:
        torch.fx.experimental.symbolic_shapes.ConstraintViolationError: The module narrows a dimension further than
            the specification says. The message ends with suggested specifications.
    """
    env: Any = traced.symbolic.shape_env
    violation: ConstraintViolationError | None = None
    try:
        env.produce_guards(
            [tracked.fake for tracked in env.tracked_fakes],
            [tracked.source for tracked in env.tracked_fakes],
            input_contexts=[tracked.symbolic_context for tracked in env.tracked_fakes],
            equalities_inputs=traced.symbolic.equalities,
            ignore_static=False,
        )
    except ConstraintViolationError as error:
        violation = error
    env.frozen = True
    if violation is not None and env.dim_constraints is None:
        raise violation
    if violation is not None or _may_fix_a_size(env.dim_constraints):
        env.dim_constraints.solve()
    forced = env.dim_constraints.forced_specializations()
    if violation or forced:
        complaint = str(violation or "") + _advice(traced, violation, forced)
        for leaf, source in zip(traced.symbolic.bound.leaves, traced.symbolic.sources, strict=True):
            complaint = complaint.replace(source.name, leaf.source.name)
        raise ConstraintViolationError(complaint) from violation
    return traced.become(Solved)


def _may_fix_a_size(constraints: Any) -> bool:
    """Whether there is an equation to solve, or a contradiction; what torch solves besides goes into messages only."""
    return bool(constraints._symbols_with_equalities or constraints._inconsistencies)


def _advice(traced: Traced, violation: ConstraintViolationError | None, forced: Any) -> str:
    bound = traced.symbolic.bound
    env: Any = traced.symbolic.shape_env
    signature = inspect.signature(bound.request.method)
    return str(env.dim_constraints.prettify_results(signature, bound.shapes, violation, forced))
