"""The function mode of the trace: calls that fake tensors cannot follow are turned into ones that they can."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from exporter.torch_internals import (
    SCALAR_TENSOR_INDEXES_SELECT,
    TENSOR_ASSERTS_ARE_ASYNC,
    collective_remaps,
    is_functorch_wrapped,
    is_integer_dtype,
    pytree,
    refs_tensor,
)

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)

_Step = Callable[[torch.Tensor], torch.Tensor]


class RewriteCalls(torch.overrides.TorchFunctionMode):
    """Rewrites calls while a module is traced.

    Which calls are rewritten, and into what, is torch's own rule (``torch.export``, non-strict mode): the graph
    of a capture has to equal the one that users know.
    """

    def __init__(self) -> None:
        super().__init__()
        self._functions = {torch.tensor, torch._assert, *collective_remaps()[0]}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self._concerns(func) or torch.compiler.is_dynamo_compiling():
            return func(*args, **kwargs)
        return _rewritten(func, args, dict(kwargs))()

    def _concerns(self, func: Callable[..., Any]) -> bool:
        """Sort out quickly what is never rewritten; every operator and every attribute of a tensor comes here."""
        return func in self._functions or getattr(func, "__name__", "") == "__getitem__"


def _rewritten(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
    """Return the call to make instead of ``func(*args, **kwargs)``."""
    if func is torch.tensor and any(isinstance(leaf, _SYMBOLIC) for leaf in pytree.tree_leaves(args[0])):
        return lambda: refs_tensor(*args, **kwargs)
    if getattr(func, "__name__", "") == "__getitem__" and isinstance(args[0], torch.Tensor):
        steps = index_steps(args[0], args[1])
        return (lambda: _apply(args[0], steps)) if steps is not None else lambda: func(*args, **kwargs)
    if TENSOR_ASSERTS_ARE_ASYNC and func is torch._assert and isinstance(args[0], torch.Tensor):
        return lambda: torch._assert_async(*args, **kwargs)
    remaps, reductions = collective_remaps()
    if func in remaps:
        return _functional_collective(func, remaps[func], reductions, args, kwargs)
    return lambda: func(*args, **kwargs)


def _functional_collective(
    func: Callable[..., Any],
    functional: Callable[..., Any],
    reductions: Mapping[Any, str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Callable[[], Any]:
    bound = dict(inspect.signature(func).bind(*args, **kwargs).arguments)
    if func.__name__ in ("all_reduce", "reduce_scatter_single", "reduce_scatter_tensor", "_reduce_scatter_base"):
        bound |= {"op": reductions[bound["op"]]} if "op" in bound else {}
    return lambda: functional(**bound)


def index_steps(tensor: torch.Tensor, index: Any) -> list[_Step] | None:
    """Return what ``tensor[index]`` is step by step, or None where indexing itself can be traced.

    Only an index with a symbolic integer or a scalar integer tensor in it is taken apart, into ``select``, ``slice``
    and ``unsqueeze``: indexing would turn the integer into a constant.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    if not any(_is_symbolic(item) for item in items):
        return None
    steps: list[_Step] = []
    dim = 0
    for item in _without_ellipsis(items, tensor.ndim):
        step = _step(dim, item)
        if step is None:
            return None
        steps.append(step)
        dim += item is None or isinstance(item, slice)
    return steps


def _apply(tensor: torch.Tensor, steps: list[_Step]) -> torch.Tensor:
    for step in steps:
        tensor = step(tensor)
    return tensor


def _without_ellipsis(items: list[Any], rank: int) -> Iterator[Any]:
    """Replace the ellipsis by as many full slices as it stands for."""
    last = max((at for at, item in enumerate(items) if item is Ellipsis), default=None)
    consumed = sum(item is not None for item in items)
    for at, item in enumerate(items):
        if at == last:
            yield from [slice(None)] * (rank + 1 - consumed)
        else:
            yield item


def _step(dim: int, item: Any) -> _Step | None:
    if item is None:
        return lambda t: torch.unsqueeze(t, dim)
    if isinstance(item, int | torch.SymInt):
        return lambda t: torch.select(t, dim, item)
    if _is_scalar_index(item):
        return lambda t: torch.select(t, dim, item.item())
    if isinstance(item, slice):
        step: Any = 1 if item.step is None else item.step
        if item.start is None and item.stop is None and isinstance(step, int) and step == 1:
            return lambda t: t
        parts: tuple[Any, ...] = (item.start, item.stop, step)
        return lambda t: torch.ops.aten.slice(t, dim, *(p.item() if _is_scalar_index(p) else p for p in parts))
    return None


def _is_symbolic(item: Any) -> bool:
    parts = (item.start, item.stop, item.step) if isinstance(item, slice) else (item,)
    return any(isinstance(part, torch.SymInt) or _is_scalar_index(part) for part in parts)


def _is_scalar_index(item: Any) -> bool:
    return (
        SCALAR_TENSOR_INDEXES_SELECT
        and isinstance(item, torch.Tensor)
        and item.ndim == 0
        and bool(is_integer_dtype(item.dtype))
        and not (TENSOR_ASSERTS_ARE_ASYNC and is_functorch_wrapped(item))  # 2.15 leaves batched indexes alone
    )
