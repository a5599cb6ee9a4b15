"""What a shape environment knows: example values of its symbols, what the user called them, its guards as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from exporter.torch_internals import ConstantSource, FakeTensor, ShapeGuardPythonPrinter, pytree

if TYPE_CHECKING:
    from exporter.torch_internals import ShapeEnv, Source


def backed_hints(shape_env: ShapeEnv) -> dict[Any, Any]:
    """The example values of the backed symbols of a shape environment; 2.11 knows them by another name."""
    return dict(shape_env.backed_var_to_val if hasattr(shape_env, "backed_var_to_val") else shape_env.var_to_val)


def _root_label(sources: list[Source]) -> str:
    """The name of the root of a derived dimension, which is no size of an input itself."""
    root = sources[0] if sources else None
    return root.name if isinstance(root, ConstantSource) and root.name.isidentifier() else ""


def user_labels(shape_env: ShapeEnv) -> dict[Any, str]:
    """What the user called the symbols of a shape environment: the names of ``Dim``, but for derived ones."""
    names = {name: label for name, label in shape_env.source_name_to_debug_name.items() if label.isidentifier()}
    labels = {
        symbol: next((names[source.name] for source in sources if source.name in names), "") or _root_label(sources)
        for symbol, sources in shape_env.var_to_sources.items()
    }
    return {symbol: label for symbol, label in labels.items() if label}


def find_shape_env(module: torch.fx.GraphModule) -> ShapeEnv | None:
    """The shape environment that the values of a graph belong to, None if nothing in it is symbolic or fake."""
    for node in module.graph.nodes:
        for value in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(value, FakeTensor) and value.fake_mode.shape_env is not None:
                return value.fake_mode.shape_env
            if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
                return value.node.shape_env  # type: ignore[no-any-return]
    return None


def print_guard(condition: Any, sources: dict[Any, list[Source]]) -> str:
    """A condition as torch writes guards, in terms of the places that its symbols come from."""
    return str(ShapeGuardPythonPrinter(sources, _source_name, sources).doprint(condition))


def _source_name(source: Any) -> str:
    return str(source.name() if callable(source.name) else source.name)
