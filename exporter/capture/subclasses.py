"""Wrapper subclasses: tensors that are made of other tensors, which ``forward`` may read, as ``x.a``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from exporter.capture.artifacts import Bound
from exporter.capture.paths import loc_of
from exporter.torch_internals import (
    access_subclass_inner_tensor,
    get_proxy_slot,
    is_traceable_wrapper_subclass,
    pre_dispatch_tracer,
    track_tensor_tree,
)
from schema.errors import CaptureError, Loc


def check_plain(bound: Bound) -> None:
    """Refuse wrapper subclasses: AOTAutograd takes them apart, into more inputs than the module has.

    Raises:
        CaptureError: There is one among the arguments, the parameters or the buffers.
    """
    module = bound.request.module
    values: dict[Loc, Any] = {loc_of(leaf.path): leaf.value for leaf in bound.leaves}
    values |= {(name,): value for name, value in (*module.named_parameters(), *module.named_buffers())}
    for loc, value in values.items():
        if is_traceable_wrapper_subclass(value):
            raise CaptureError(
                f"functional ATen has no place for {type(value).__name__}, which wraps other tensors",
                loc=loc,
                remedy="capture in training IR, or use the tensors that it is made of",
            )


@contextmanager
def reads_followed(values: Iterable[Any]) -> Iterator[None]:
    """Let a read of an inner tensor be a node of the graph, for the subclasses of these tensors.

    Reading an attribute calls no operator that a trace could see, so the classes look up attributes in another way
    meanwhile.
    """
    kinds: dict[type, set[str]] = {}
    for wrapper in _wrappers(values):
        kinds.setdefault(type(wrapper), set(dir(wrapper)) - set(dir(torch.Tensor)))
    own = {kind: vars(kind).get("__getattribute__") for kind in kinds}
    try:
        for kind, names in kinds.items():
            look_up: Any = kind.__getattribute__
            type.__setattr__(kind, "__getattribute__", _following(look_up, names))
        yield
    finally:
        for kind, before in own.items():
            if before is not None:
                type.__setattr__(kind, "__getattribute__", before)
            elif "__getattribute__" in vars(kind):
                type.__delattr__(kind, "__getattribute__")


def inner_tensors(wrapper: Any) -> dict[str, torch.Tensor]:
    """Return the tensors that a wrapper subclass is made of, by name."""
    names, _ = wrapper.__tensor_flatten__()
    values = {name: getattr(wrapper, name) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def _wrappers(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if is_traceable_wrapper_subclass(value):
            yield value
            yield from _wrappers(inner_tensors(value).values())


def _following(look_up: Callable[[Any, str], Any], names: set[str]) -> Callable[[Any, str], Any]:
    def follow(wrapper: Any, name: str) -> Any:
        value = look_up(wrapper, name)
        if name in names and isinstance(value, torch.Tensor) and (tracer := pre_dispatch_tracer()) is not None:
            proxy = get_proxy_slot(wrapper, tracer).proxy
            read = tracer.create_proxy("call_function", access_subclass_inner_tensor, (proxy, name), {})
            track_tensor_tree(value, read, constant=None, tracer=tracer)
        return value

    return follow
