"""Run a program on its example inputs, and leave everything as it was."""

from __future__ import annotations

import copy
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

from exporter.emit.composites import plain_parts, take_apart
from exporter.torch_internals import pytree
from schema.errors import UsageError
from schema.manifest import EXAMPLE_SEED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def record_outputs(program: torch.export.ExportedProgram) -> list[Any]:
    """Flat outputs of a program for its example inputs.

    Buffers, constants, script objects, inputs and the random state are afterwards what they were before.

    Raises:
        UsageError: The program has no example inputs, or fails on them.
    """
    if program.example_inputs is None:
        raise UsageError("the program has no example inputs", remedy="capture it with example inputs")
    args, kwargs = _copied(program.example_inputs)
    buffers = [program.state_dict[name] for name in program.graph_signature.buffers if name in program.state_dict]
    constants = [value for value in program.constants.values() if isinstance(value, torch.Tensor)]
    with _unchanged([*buffers, *constants]), _objects_copied(program), torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(EXAMPLE_SEED)
        try:
            outputs = pytree.tree_leaves(program.module()(*args, **kwargs))
        except Exception as error:  # whatever the module or torch raises
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            message = f"the program fails on its own example inputs: {reason}"
            raise UsageError(message, remedy="give it inputs that it can run, or do not record outputs") from error
        return [_compact(output) if isinstance(output, torch.Tensor) else output for output in outputs]


def _copied(example: Any) -> Any:
    """A copy of example inputs, which share among each other what the originals share."""
    tensors = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, torch.Tensor)]
    # Python cannot copy these by itself.
    copied = {id(t): t.detach().clone() for t in tensors if t.layout is not torch.strided or not t.is_leaf}
    return copy.deepcopy(example, dict[int, Any](copied))


def _compact(output: torch.Tensor) -> torch.Tensor:
    """An output without the memory around it, which kernels may leave as it was before them."""
    if take_apart(output, ()) or output.untyped_storage().nbytes() <= output.numel() * output.itemsize:
        return output
    return output.clone()


@contextmanager
def _objects_copied(program: torch.export.ExportedProgram) -> Iterator[None]:
    """Let the program hold copies of its script objects meanwhile, whose state running it may change."""
    objects = {fqn: value for fqn, value in program.constants.items() if isinstance(value, torch.ScriptObject)}
    with suppress(RuntimeError):  # a class whose objects cannot be copied: save refuses it
        program.constants.update(copy.deepcopy(objects))
    try:
        yield
    finally:
        program.constants.update(objects)


@contextmanager
def _unchanged(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    # Storages and not tensors: a view may overlap itself, and could then not be written to.
    storages = [part.untyped_storage() for tensor in tensors for part in plain_parts(tensor)]
    kept = [storage.clone() for storage in storages]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for storage, value in zip(storages, kept, strict=True):
            storage.copy_(value)
