"""What ``archive export`` captures: an object or a file that the command line names, and its example inputs."""

from __future__ import annotations

import inspect
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from archive.cli_imports import describe, import_here
from archive.cli_values import make_inputs
from archive.input_specs import TensorSpec, example_sizes, parse_all
from schema.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archive.input_specs import DynamicDim, InputSpec

_PARTS: Final = ("module", "args", "kwargs", "dynamic_shapes")
_FORMS: Final = "return a module, (module, args, kwargs, dynamic_shapes) or a dict with these keys"


class Target(NamedTuple):
    """What is to be captured; the fields are the arguments of ``exporter.export``."""

    module: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    dynamic_shapes: Any = None


def prepare(name: str, inputs: Sequence[str], dynamic: Sequence[str], method: str = "forward") -> Target:
    """The target of that name, with the inputs of the command line where it brings none itself.

    Args:
        name: ``module:attribute``, or the path of a TorchScript file.
        inputs: The ``--input`` options.
        dynamic: The ``--dynamic`` options.
        method: Which method the inputs are for.

    Raises:
        UsageError: The name leads to no module, or the options do not fit it.
    """
    specs, dims = parse_all(inputs, dynamic)
    target = load_target(name)
    if not callable(getattr(target.module, method, None)):
        raise UsageError(f"{name} has no method {method!r}", remedy="name one with --method")
    brings_inputs = bool(target.args or target.kwargs)
    if not specs:
        return target if brings_inputs else _without_inputs(name, target, method)
    if brings_inputs:
        raise UsageError(f"{name} brings its own inputs", remedy="leave out --input and --dynamic")
    return _with_inputs(target.module, method, specs, dims)


def load_target(name: str) -> Target:
    """The object of that name, called if it is a function; the working directory is searched first.

    Raises:
        UsageError: There is none, it fails, or it gives no module.
    """
    from torch.nn import Module

    if Path(name).is_file():
        return Target(_load_script(name))
    value = _resolve(name)
    if callable(value) and not isinstance(value, Module):
        _refuse_arguments(name, value)
        try:
            value = value()
        except (Exception, SystemExit) as error:
            raise UsageError(f"{name} failed: {describe(error)}", remedy="call it in Python to see more") from error
    target = _take_apart(name, value)
    if not isinstance(target.module, Module):
        raise UsageError(
            f"{name} gives an object of type {type(target.module).__name__}, not an nn.Module", remedy=_FORMS
        )
    return target


def _load_script(path: str) -> Any:
    """The TorchScript module in a file."""
    import torch

    if not _is_script(path):
        raise UsageError(
            f"{path} is no TorchScript file", remedy="name one that torch.jit.save wrote, or module:attribute"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that TorchScript is of yesterday
            return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        reason = next(filter(None, map(str.strip, str(error).splitlines())), "")
        raise UsageError(f"cannot load {path}: {reason}", remedy="import with --import what it needs") from error


def _is_script(path: str) -> bool:
    """Whether a file is a zip archive with the constants of a script, which other files of torch's do not have."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(name.endswith("/constants.pkl") for name in file.namelist())


def _resolve(name: str) -> Any:
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise UsageError(f"{name!r} is not module:attribute", remedy="write my_package.my_module:build")
    value = import_here(module_name)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise UsageError(f"{module_name} has no {attribute}", remedy="check its name")
        value = getattr(value, part)
    return value


def _refuse_arguments(name: str, function: Any) -> None:
    """Refuse a function that cannot be called without arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind()
    except TypeError as error:
        message = f"{name} needs arguments {signature}{_place_of(function)}, and is called without any"
        raise UsageError(message, remedy="give them defaults, or name a function that takes none") from error


def _place_of(function: Any) -> str:
    """Where a function is written, in parentheses; nothing where that is not known."""
    try:
        return f" ({inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]})"
    except (TypeError, OSError):
        return ""


def _take_apart(name: str, value: Any) -> Target:
    if isinstance(value, Mapping):
        if unknown := set(value) - set(_PARTS):
            raise UsageError(f"{name} gives a dict with unknown keys {sorted(map(str, unknown))}", remedy=_FORMS)
        target = Target(**{"module": None, **value})
    elif isinstance(value, tuple) and len(value) <= len(_PARTS):
        target = Target(*(value or (None,)))
    else:
        target = Target(value)
    if not isinstance(target.args, (tuple, list)):
        raise UsageError(f"{name} gives args that are no tuple", remedy="write (module, (x,)) for one input x")
    return target._replace(args=tuple(target.args))


def _without_inputs(name: str, target: Target, method: str) -> Target:
    """The target itself, if its module can be called without inputs."""
    signature = _signature(target.module, method)
    try:
        signature.bind()
    except TypeError as error:
        message = f"{name} brings no inputs for {method}{signature}"
        raise UsageError(message, remedy="describe them: --input 'x=f32[2,3]'") from error
    return target


def _with_inputs(module: Any, method: str, specs: list[InputSpec], dims: dict[str, DynamicDim]) -> Target:
    values = make_inputs(specs, example_sizes(specs, dims))
    signature = _signature(module, method)
    try:
        bound = signature.bind(**values)
    except TypeError as error:
        raise UsageError(f"the inputs do not fit {method}{signature}: {error}", remedy="name its arguments") from error
    if not dims:
        return Target(module, bound.args, bound.kwargs)
    return Target(module, bound.args, bound.kwargs, _dynamic_shapes(bound, specs, dims))


def _signature(module: Any, method: str) -> inspect.Signature:
    from torch.jit import ScriptModule

    from exporter.capture.torchscript import signature_of

    function = getattr(module, method)
    return signature_of(function) if isinstance(module, ScriptModule) else inspect.signature(function)


def _dynamic_shapes(
    bound: inspect.BoundArguments, specs: list[InputSpec], dims: dict[str, DynamicDim]
) -> dict[str, Any]:
    """Dynamic shapes in the form of the bound arguments."""
    from torch.export import Dim

    known = {name: Dim(name, min=dim.lower, max=dim.upper) for name, dim in dims.items()}
    shapes = {
        spec.name: {axis: known[dim] for axis, dim in enumerate(spec.source.dims) if isinstance(dim, str)}
        for spec in specs
        if isinstance(spec.source, TensorSpec)
    }
    parameters = bound.signature.parameters
    return {
        name: {key: shapes.get(key) for key in value}
        if parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        else shapes.get(name)
        for name, value in bound.arguments.items()
    }
