"""Stage ``bind``: the example arguments meet the signature of the method and the shape specification.

Everything that the arguments alone decide is refused here, before the first operator runs.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from exporter.capture import shapes
from exporter.capture.artifacts import Bound, KeyPath, Leaf, Request
from exporter.capture.objects import attributes_of, check_object, is_object
from exporter.capture.paths import loc_of, source_of
from exporter.capture.registration import how_to_register
from exporter.capture.sizes import check_sizes
from exporter.capture.subclasses import check_plain
from exporter.torch_internals import LocalSource, Source, is_functorch_wrapped, pytree
from schema.errors import CaptureError


@dataclass(frozen=True)
class _Argument:
    """One argument of the call; each one that ``*args`` or ``**kwargs`` collects counts by itself."""

    keyword: str | None
    value: Any
    spec: Any
    path: KeyPath
    source: Source


def bind(request: Request) -> Bound:
    """Bind and check the example arguments.

    Args:
        request: What the user asked for.

    Returns:
        The leaves of the arguments, each with its source and its part of the shape specification.

    Raises:
        CaptureError: The module, an argument or the specification cannot be captured.
    """
    _check_module(request.module)
    _check_initialized(request)
    _check_method(request)
    _check_preserved(request)
    signature = inspect.signature(request.method)
    declared = _declared(signature, request)
    specs = shapes.resolve(request, declared, signature)
    arguments = list(_arguments(signature, request, declared, specs))
    leaves = {id(argument): tuple(_leaves_of(argument)) for argument in arguments}
    check_sizes(leaf for argument in arguments for leaf in leaves[id(argument)])
    bound = Bound(
        request=request,
        leaves=tuple(leaf for argument in _as_called(arguments, request) for leaf in leaves[id(argument)]),
        declared=tuple(leaf for argument in arguments for leaf in leaves[id(argument)]),
        arg_names=tuple(_argument_names(signature, request)),
        in_spec=pytree.tree_flatten((request.args, request.kwargs))[1],
        shapes=specs,
    )
    if request.options.ir == "inference":
        check_plain(bound)
    return bound


def _check_module(module: object) -> None:
    if not isinstance(module, torch.nn.Module):
        is_method = isinstance(getattr(module, "__self__", None), torch.nn.Module)
        raise CaptureError(
            f"only a torch.nn.Module can be captured, not an object of type {type(module).__name__}",
            remedy=f'pass the module, and method="{getattr(module, "__name__", "")}"'
            if is_method
            else "put the function into the forward of a torch.nn.Module",
        )
    for name, value in attributes_of(module, torch.ScriptObject):
        check_object(value, (name,))
    initialized = ((name, parameter) for name, parameter in module.named_parameters() if not is_lazy(parameter))
    for name, parameter in initialized:
        if parameter.is_inference() and parameter.requires_grad and not torch.is_inference_mode_enabled():
            raise CaptureError(
                "a parameter that was made in inference mode cannot require a gradient",
                loc=(name,),
                remedy="make the module outside of torch.inference_mode, or call module.requires_grad_(False)",
            )


def _check_initialized(request: Request) -> None:
    """Dynamo runs what the first call of a lazy module runs, and so initializes the user's module, as in torch."""
    lazy = [name for name, parameter in request.module.named_parameters() if is_lazy(parameter)]
    if lazy and not request.options.strict:
        raise CaptureError(
            "this parameter does not exist before the first call",
            loc=(lazy[0],),
            remedy="call the module once before, or capture with strict=True, which initializes it",
        )


def _check_method(request: Request) -> None:
    name = request.options.method
    found = getattr(request.module, name, None)
    if isinstance(found, torch.nn.Module):
        raise CaptureError(
            f"{name} is a submodule, not a method",
            loc=("method",),
            remedy=f"capture the submodule itself, with its own arguments: capture(module.{name}, ...)",
        )
    if not callable(found):
        raise CaptureError(
            f"{type(request.module).__name__} has no method {name!r}",
            loc=("method",),
            remedy="name a method of the module; the default is forward",
        )


def _check_preserved(request: Request) -> None:
    option = "preserve_module_call_signature"
    if request.options.preserve and isinstance(request.module, torch.fx.GraphModule):
        raise CaptureError(
            "the submodules of a graph are not called, so that there is no call to preserve",
            loc=(option,),
            remedy="capture the module that the graph was made of",
        )
    known = [path for path, _ in request.module.named_modules(remove_duplicate=False) if path]
    for path in request.options.preserve:
        if path not in known:
            near = difflib.get_close_matches(str(path), known)
            raise CaptureError(
                f"there is no submodule {path!r}",
                loc=(option,),
                remedy=f"name a submodule as named_modules does{', such as ' + ', '.join(near) if near else ''}",
            )


def _declared(signature: inspect.Signature, request: Request) -> dict[str, Any]:
    """Arguments by declared name; those of ``*args`` and ``**kwargs`` stay together under theirs."""
    try:
        return signature.bind(*request.args, **request.kwargs).arguments
    except TypeError as error:
        raise CaptureError(
            f"the example arguments do not fit {request.options.method}{signature}: {error}",
            remedy="pass args and kwargs as the module itself would be called",
        ) from error


def _arguments(
    signature: inspect.Signature, request: Request, declared: Mapping[str, Any], specs: Mapping[str, Any]
) -> Iterator[_Argument]:
    """Arguments in declared order, each with the source that torch gives it: the symbols' names depend on it."""
    positional = signature.bind_partial(*request.args).arguments
    for name, value in declared.items():
        source, spec = LocalSource(name), specs.get(name)
        match signature.parameters[name].kind:
            case inspect.Parameter.VAR_POSITIONAL:
                keys: list[Any] = [pytree.SequenceKey(index) for index in range(len(value))]
                for key, item, part in zip(keys, value, shapes.of_children(spec, value, keys, (name,)), strict=True):
                    yield _Argument(None, item, part, (name, key), source_of(source, key))
            case inspect.Parameter.VAR_KEYWORD:
                entries: list[Any] = [pytree.MappingKey(key) for key in value]
                for entry, part in zip(entries, shapes.of_children(spec, value, entries, (name,)), strict=True):
                    yield _Argument(entry.key, value[entry.key], part, (entry.key,), LocalSource(entry.key))
            case _:
                yield _Argument(None if name in positional else name, value, spec, (name,), source)


def _as_called(arguments: list[_Argument], request: Request) -> Iterator[_Argument]:
    """Positional arguments first, then keywords in the order the user gave them: the order of the trace."""
    by_keyword = {argument.keyword: argument for argument in arguments}
    yield from (argument for argument in arguments if argument.keyword is None)
    yield from (by_keyword[name] for name in request.kwargs)


def _argument_names(signature: inspect.Signature, request: Request) -> Iterator[str]:
    for name, value in signature.bind_partial(*request.args).arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            yield from (f"{name}_{index}" for index in range(len(value)))
        else:
            yield name
    yield from request.kwargs


def _leaves_of(argument: _Argument) -> Iterator[Leaf]:
    return _walk(argument.value, argument.spec, argument.path, argument.source)


def _walk(value: Any, spec: Any, path: KeyPath, source: Source) -> Iterator[Leaf]:
    kind = pytree.SUPPORTED_NODES.get(pytree._get_node_type(value))
    if kind is None:
        yield _leaf(value, spec, path, source)
        return
    if kind.flatten_with_keys_fn is None:
        raise CaptureError(
            f"the pytree registration of {type(value).__name__} does not name its children",
            loc=loc_of(path),
            remedy="pass flatten_with_keys_fn to torch.utils._pytree.register_pytree_node",
        )
    entries, _ = kind.flatten_with_keys_fn(value)
    keys = [key for key, _ in entries]
    for (key, child), part in zip(entries, shapes.of_children(spec, value, keys, path), strict=True):
        yield from _walk(child, part, (*path, key), source_of(source, key))


def _check_tensor(tensor: torch.Tensor, path: KeyPath) -> None:
    if is_functorch_wrapped(tensor):
        raise CaptureError(
            "a tensor that torch.func has wrapped cannot be an example: it holds no data of its own",
            loc=loc_of(path),
            remedy="capture outside of the transform",
        )
    if tensor.is_nested and tensor.layout is torch.strided:
        raise CaptureError(
            "a nested tensor of the strided layout cannot be captured: its sizes are no numbers",
            loc=loc_of(path),
            remedy="make it with layout=torch.jagged, or pass its parts as a list",
        )


def _leaf(value: Any, spec: Any, path: KeyPath, source: Source) -> Leaf:
    if isinstance(value, torch.Tensor):
        _check_tensor(value, path)
        return Leaf(value, path, source, dims=shapes.of_tensor(value, spec, path))
    if value is None or isinstance(value, bool | int | float | str):
        return Leaf(value, path, source, hint=shapes.of_scalar(value, spec, path))
    if is_object(value):
        check_object(value, loc_of(path))
        return Leaf(value, path, source, hint=shapes.of_scalar(value, spec, path))
    raise CaptureError(
        f"an input of type {type(value).__name__} is not supported",
        loc=loc_of(path),
        remedy=how_to_register(type(value)),
    )
