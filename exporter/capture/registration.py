"""What to do about an object that stands where only tensors, plain values and containers of them can stand."""

from __future__ import annotations

import dataclasses

_PLAIN = "use tensors, numbers, strings, None and containers of them"


def how_to_register(kind: type) -> str:
    """Return the remedy for an input or output of some type that pytree does not know."""
    if kind.__module__.partition(".")[0] == "transformers" and "Cache" in kind.__name__:
        return (
            "pass use_cache=False to the model, or call "
            "transformers.integrations.executorch.register_dynamic_cache_export_support() first"
        )
    if dataclasses.is_dataclass(kind):
        return f"{_PLAIN}, or register {kind.__name__} with torch.export.register_dataclass"
    if kind.__module__ in ("builtins", "torch"):
        return f"{_PLAIN}, or keep it as an attribute of the module"
    return f"{_PLAIN}, or register {kind.__name__} with torch.utils._pytree.register_pytree_node"
