"""What ``archive run`` does: load, call, and name the outputs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import torch

from archive.cli_values import make_inputs
from archive.input_specs import parse_inputs
from archive.reading import open_archive
from schema.errors import ArchiveError, UsageError
from schema.names import is_identifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from schema.manifest import Method, Port

_FEW: Final = 6


def run_archive(
    path: Path,
    inputs: Sequence[str] | None,
    *,
    method: str,
    device: str | None,
    weights: Path | None,
    allow_ops: Iterable[str],
    allow_classes: Iterable[str],
) -> list[tuple[str, Any]]:
    """Outputs of a method by name, without gradients.

    Args:
        path: The archive.
        inputs: The ``--input`` options; None runs the recorded example.
        method: Name of the method.
        device: Where to run it; None is where it was captured.
        weights: A file of weights to take in place of the archive's.
        allow_ops: Namespaces of custom operators that may be called.
        allow_classes: Modules whose classes of tensors, or namespaces whose script objects, the program may have.

    Raises:
        ArchiveError: The archive cannot be loaded, the inputs do not fit, or the program fails.
    """
    from loader import load_module
    from loader.torch_internals import pytree

    with open_archive(path) as archive:
        described = archive.method(method)
    given = None if inputs is None else _arguments(described, inputs, device)
    module = load_module(
        path, method=method, device=device, weights=weights, allow_ops=allow_ops, allow_classes=allow_classes
    )
    args, kwargs = ((), given) if given is not None else _example(module.example_inputs)
    try:
        with torch.no_grad():
            leaves = pytree.tree_leaves(module(*args, **kwargs))
    except (RuntimeError, IndexError) as error:
        raise ArchiveError(f"the program failed: {error}", remedy="try other inputs") from error
    names = [port.name for port in described.outputs]
    if len(names) != len(leaves):
        names = [f"output[{index}]" for index in range(len(leaves))]
    return list(zip(names, leaves, strict=True))


def _arguments(method: Method, inputs: Sequence[str], device: str | None) -> dict[str, Any]:
    """Arguments from the command line, and the constants that the program was captured for."""
    constants = {port.name: port.value for port in method.inputs if _is_constant(port)}
    given = constants | make_inputs(parse_inputs(inputs), {}, device)
    missing = [port.name for port in method.inputs if _argument(port.name) not in given]
    if missing:
        names = ", ".join(missing[:_FEW]) + (", …" if len(missing) > _FEW else "")
        example = ", or run the recorded example with --example" if method.example is not None else ""
        raise UsageError(f"no value for {names}", remedy=f"give each with --input{example}")
    return given


def _argument(path: str) -> str:
    """The name of the argument that a path like ``mask[0]`` begins with."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _is_constant(port: Port) -> bool:
    plain = port.kind in ("NoneType", "bool", "int", "float", "str") and not port.shape
    return plain and is_identifier(port.name)


def _example(recorded: tuple[tuple[Any, ...], dict[str, Any]] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if recorded is None:
        raise UsageError("the archive holds no example inputs", remedy="describe them with --input")
    return recorded
