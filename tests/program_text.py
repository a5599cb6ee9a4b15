"""What a program says, as texts: so that a process that never had the program can compare its own with them."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tests.program_equality import bits, describe_tensor, facts, has_no_data, normal, plain_spec


def program_texts(program: torch.export.ExportedProgram) -> dict[str, str]:
    """Everything that an archive keeps of a program, as text by where it stands.

    Tensors are told by digests, and by which of them share memory.
    """
    texts = {where: describe(value) for where, value in facts(program, stored=True)}
    tensors = [*program.state_dict.values(), *filter(torch.is_tensor, program.constants.values())]
    return texts | {"what shares memory": str(_ties(tensors))}


def describe(value: Any) -> str:
    """A value as text, the same one exactly for values that :func:`tests.program_equality.same` calls the same."""
    match value:
        case torch.Tensor():
            return _describe_tensor(value)
        case str():
            return repr(normal(value))
        case dict():
            entries = (f"{describe(key)}: {describe(item)}" for key, item in value.items())
            return f"{type(value).__name__}{{{', '.join(entries)}}}"
        case list() | tuple():
            return f"{type(value).__name__}({', '.join(map(describe, value))})"
        case slice():
            return f"slice({describe((value.start, value.stop, value.step))})"
        case torch.fx.Node():
            return f"node {value.name}"
        case torch.fx.GraphModule():
            return "a graph"
        case pytree.TreeSpec():  # a class that is not there comes back as a stand-in of its name
            spec = plain_spec(value)
            kind = spec.type and f"{spec.type.__module__}.{spec.type.__qualname__}"
            return f"{kind}({describe(spec.context)}, {', '.join(map(describe, spec.children()))})"
        case torch._ops.OperatorBase():
            return f"operator {value.name()}"
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare)
            return f"{type(value).__name__}{describe(dict(fields))}"
        case _:
            return f"{type(value).__name__} {value!r}"


def _describe_tensor(tensor: torch.Tensor) -> str:
    known = str(describe_tensor(tensor))
    if has_no_data(tensor):
        return f"without data {known}"
    if hasattr(tensor, "__tensor_flatten__"):
        names, context = tensor.__tensor_flatten__()
        return f"{known} {describe(context)} {describe({name: getattr(tensor, name) for name in names})}"
    return f"{known} {hashlib.sha256(bits(tensor).numpy()).hexdigest()}"


def _ties(tensors: list[torch.Tensor]) -> list[tuple[int, int]]:
    """For each tensor, the first that is the same object, and the first that shares its memory."""
    objects, storages = dict[int, int](), dict[int, int]()
    return [
        (objects.setdefault(id(tensor), place), storages.setdefault(_storage(tensor) or -place - 1, place))
        for place, tensor in enumerate(tensors)
    ]


def _storage(tensor: torch.Tensor) -> int:
    """The address of a tensor's memory, 0 where it has none."""
    plain = tensor.layout is torch.strided and not hasattr(tensor, "__tensor_flatten__")
    return tensor.untyped_storage().data_ptr() if plain else 0
