"""TorchScript modules, as modules that the pipeline can capture.

TorchScript's own interpreter runs over the fakes: it follows everything that TorchScript can say, but takes sizes and
branches as they are in the example. Where that does not do, torch's converter translates the script to a graph, which
the pipeline captures in its place; it knows less of the language. The converter would end with an export of torch's,
which is left out.
"""

from __future__ import annotations

import copy
import inspect
import io
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import filterfalse
from typing import Any

import torch

from exporter.capture.artifacts import Request
from exporter.torch_internals import (
    RecursiveScriptModule,
    optimized_execution,
    reparametrize_module,
    torchscript_converter,
)
from schema.errors import CaptureError

_PLACE = re.compile(r'File "(.*)", line (\d+), in')


def with_stand_ins(request: Request, run: Callable[[Request], Any]) -> Any:
    """Capture with stand-ins in the places of script modules, which are put back on the way out.

    Args:
        request: What the user asked for.
        run: The pipeline.

    Raises:
        CaptureError: Dynamo is to follow a script module; or what the pipeline raises, for the interpreter where
            torch's converter does not do either.
    """
    script = request.module
    if request.options.strict:
        _refuse_scripts(script)
    with _replaced(script) as module:
        try:
            return run(replace(request, module=module))
        except CaptureError as error:
            if not isinstance(script, torch.jit.ScriptModule) or error.stage == "bind":
                raise
            try:
                with warnings.catch_warnings():
                    # Of branches that the example decides, and of TorchScript itself.
                    warnings.simplefilter("ignore")
                    return run(replace(request, module=_converted(script, request)))
            except Exception:  # whatever the converter does not know, or the pipeline refuses again
                raise error from error.__cause__


@contextmanager
def _replaced(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield the module with a stand-in for each script module in it, or its own."""
    if isinstance(module, torch.jit.ScriptModule):
        yield _interpreted(module)
        return
    places = [(owner, key, child) for owner, key, child in _children(module) if _is_script(child)]
    stand_ins = {id(script): _interpreted(script) for _, _, script in places}
    for owner, key, script in places:
        owner._modules[key] = stand_ins[id(script)]
    try:
        yield module
    finally:
        for owner, key, script in places:
            owner._modules[key] = script


def _children(module: object) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Module | None]]:
    """Every module of a tree with its owner and its key in it; those inside of script modules are left out."""
    owners = module.modules() if isinstance(module, torch.nn.Module) else ()
    for owner in filterfalse(_is_script, owners):
        yield from ((owner, key, child) for key, child in owner._modules.items())


def _is_script(module: object) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _refuse_scripts(module: object) -> None:
    """Refuse what Dynamo cannot follow."""
    for name, each in module.named_modules() if isinstance(module, torch.nn.Module) else ():
        if _is_script(each):
            raise CaptureError(
                f"the script module {each.original_name} cannot be followed by Dynamo, which reads Python",
                loc=(name,) if name else (),
                remedy="capture it without strict",
                stage="bind",
            )


class _StandIn(torch.nn.Module):
    """Has the parameters and buffers of a script module under their names, and runs it with what they are now."""

    def __init__(self, script: torch.jit.ScriptModule, runner: torch.nn.Module) -> None:
        super().__init__()
        tensors = _state(script)
        # A script that was loaded holds plain tensors as parameters; tied ones are one tensor.
        parameters = {id(each): _parameter_of(each) for each in script.parameters()}
        for name, tensor in tensors.items():
            _register(self, name, parameters.get(id(tensor), tensor))
        self.train(script.training)
        self._runner = (runner,)  # in a tuple, and so no submodule, under whose name the state would appear again

    def run(self, method: str, *args: Any) -> Any:
        """Run a method of the script."""
        (runner,) = self._runner
        names = _state(runner)
        state = {name: tensor for name, tensor in _state(self).items() if name in names}
        with _attributes_kept(runner), reparametrize_module(runner, state), optimized_execution(False):
            try:
                result = getattr(runner, method)(*args)
            except RuntimeError as error:
                raise _in_one_line(error) from error
            assigned = {name: now for name, now in _state(runner).items() if state.get(name, now) is not now}
        for name, tensor in assigned.items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.get_submodule(owner), leaf, tensor)
        return result


def _stand_in(script: torch.jit.ScriptModule, runner: torch.nn.Module, methods: Iterable[str]) -> _StandIn:
    """Return a stand-in whose class, methods and arguments are called like those of the script."""
    functions = {name: _method(name, signature_of(getattr(script, name))) for name in methods}
    kind: Any = type(script.original_name, (_StandIn,), {**functions, "__module__": "__torch__"})
    stand_in: _StandIn = kind(script, runner)
    return stand_in


def _method(name: str, signature: inspect.Signature) -> Callable[..., Any]:
    def forward(self: _StandIn, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return self.run(name, *bound.args)

    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = inspect.Signature([itself, *signature.parameters.values()])  # type: ignore[attr-defined]
    return forward


def _interpreted(script: Any) -> _StandIn:
    """Return a stand-in that runs TorchScript's interpreter."""
    # A copy, because what was compiled for real tensors is cached.
    return _stand_in(script, copy.copy(script), script._c._method_names())


def signature_of(method: Any) -> inspect.Signature:
    """Return the arguments of a script's method, which ``inspect`` cannot see."""
    return inspect.Signature([_parameter(argument) for argument in method.schema.arguments[1:]])


def _parameter(argument: Any) -> inspect.Parameter:
    default = argument.default_value if argument.has_default_value() else inspect.Parameter.empty
    return inspect.Parameter(argument.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)


def _converted(script: torch.jit.ScriptModule, request: Request) -> _StandIn:
    """Return a stand-in that runs torch's translation of a script."""
    torchs = torchscript_converter()
    load: Any = torch.jit.load
    bound = signature_of(script.forward).bind(*request.args, **request.kwargs)
    bound.apply_defaults()
    # A copy, because the converter rewrites the script in place.
    converter = torchs.TS2EPConverter(load(io.BytesIO(script.save_to_buffer())), bound.args)
    blocks, names = torchs.get_block_to_lifted_attrs(converter.ts_graph)
    graph_module = torchs.TS2FXGraphConverter(
        converter.ts_graph,
        converter.name_to_param,
        converter.name_to_buffer,
        blocks,
        converter.name_to_non_tensor_attributes,
        converter.name_to_constant,
        names,
    ).convert()
    return _stand_in(script, graph_module, ["forward"])


def _in_one_line(error: RuntimeError) -> CaptureError:
    """Return what the interpreter says in many lines; it has no word for what was raised in Python, as fakes do."""
    _, _, reason = str(error).rpartition("RuntimeError:")
    places = [f"{os.path.basename(file)}:{line}" for file, line in _PLACE.findall(str(error))]
    told = f": {reason.strip()}" if reason.strip() else ""
    return CaptureError(
        f"TorchScript's interpreter cannot run this over tensors without data{told}",
        loc=tuple(places[-1:]),
        remedy="call the script with the same arguments; if that works, capture the module that it was made of",
    )


@contextmanager
def _attributes_kept(module: torch.nn.Module) -> Iterator[None]:
    """Put back what scripts assign to attributes."""
    owners = [each for each in module.modules() if isinstance(each, RecursiveScriptModule)]
    before = [(each._c, key, each._c.getattr(key)) for each in owners for key in each._concrete_type.get_attributes()]
    try:
        yield
    finally:
        for owner, key, value in before:
            owner.setattr(key, value)


def _state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    parameters, buffers = (get(remove_duplicate=False) for get in (module.named_parameters, module.named_buffers))
    return {**dict(parameters), **dict(buffers)}


def _parameter_of(tensor: torch.Tensor) -> torch.nn.Parameter:
    if isinstance(tensor, torch.nn.Parameter):
        return tensor
    return torch.nn.Parameter(tensor, requires_grad=tensor.requires_grad)


def _register(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    *path, leaf = name.split(".")
    for key in path:
        if key not in module._modules:
            module.add_module(key, torch.nn.Module())
        module = module.get_submodule(key)
    if isinstance(tensor, torch.nn.Parameter):
        module.register_parameter(leaf, tensor)
    else:
        module.register_buffer(leaf, tensor)
