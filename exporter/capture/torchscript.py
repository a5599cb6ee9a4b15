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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
        CaptureError: A script module has no ``forward``, or another method is wanted; or what the pipeline raises,
            with the interpreter where torch's converter does not do either.
    """
    script = request.module
    if isinstance(script, torch.jit.ScriptModule) and request.options.method != "forward":
        raise CaptureError(
            "of a TorchScript module only forward can be captured",
            loc=("method",),
            remedy="capture the module that it was made of",
            stage="bind",
        )
    with _replaced(script) as module:
        try:
            return run(replace(request, module=module))
        except CaptureError as error:
            if not isinstance(script, torch.jit.ScriptModule) or error.stage == "bind":
                raise
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter(
                        "ignore"
                    )  # torch warns of branches that are decided, and of TorchScript itself
                    return run(replace(request, module=_converted(script, request)))
            except Exception:  # whatever the converter does not know, or the pipeline refuses again
                raise error from error.__cause__


@contextmanager
def _replaced(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield the module with a stand-in for each script module in it, or its own."""
    if isinstance(module, torch.jit.ScriptModule):
        yield _interpreted(module)
        return
    places = [(owner, *child) for owner in _modules(module) for child in owner.named_children()]
    scripts = [place for place in places if isinstance(place[2], torch.jit.ScriptModule)]
    stand_ins = {id(script): _interpreted(script) for _, _, script in scripts}
    for owner, key, script in scripts:
        owner._modules[key] = stand_ins[id(script)]
    try:
        yield module
    finally:
        for owner, key, script in scripts:
            owner._modules[key] = script


def _modules(module: object) -> list[torch.nn.Module]:
    """All modules of a tree but those inside of script modules."""
    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        return []
    below = {id(each): each for child in module.children() for each in _modules(child)}
    return [module, *below.values()]


class _StandIn(torch.nn.Module):
    """Has the parameters and buffers of a script module under their names, and runs it with what they are now."""

    def __init__(self, script: torch.jit.ScriptModule, runner: torch.nn.Module) -> None:
        super().__init__()
        for name, tensor in _state(script).items():
            _register(self, name, tensor)
        self.train(script.training)
        self._runner = (runner,)  # in a tuple, and so no submodule, under whose name the state would appear again

    def run(self, *args: Any) -> Any:
        (runner,) = self._runner
        names = _state(runner)
        state = {name: tensor for name, tensor in _state(self).items() if name in names}
        with _attributes_kept(runner), reparametrize_module(runner, state), optimized_execution(False):
            try:
                result = runner.forward(*args)
            except RuntimeError as error:
                raise _in_one_line(error) from error
            assigned = {name: now for name, now in _state(runner).items() if state.get(name, now) is not now}
        for name, tensor in assigned.items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.get_submodule(owner), leaf, tensor)
        return result


def _stand_in(script: torch.jit.ScriptModule, runner: torch.nn.Module) -> _StandIn:
    """Return a stand-in whose class and arguments are called like those of the script."""
    if not script._c._has_method("forward"):
        remedy = "define forward, or export another method under this name"
        raise CaptureError(f"the script module {script.original_name} has no forward", remedy=remedy, stage="bind")
    signature = signature_of(script)

    def forward(self: _StandIn, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return self.run(*bound.args)

    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = inspect.Signature([itself, *signature.parameters.values()])  # type: ignore[attr-defined]
    kind: Any = type(script.original_name, (_StandIn,), {"forward": forward, "__module__": "__torch__"})
    stand_in: _StandIn = kind(script, runner)
    return stand_in


def _interpreted(script: Any) -> _StandIn:
    """Return a stand-in that runs TorchScript's interpreter."""
    return _stand_in(script, copy.copy(script))  # a copy, because what was compiled for real tensors is cached


def signature_of(script: torch.jit.ScriptModule) -> inspect.Signature:
    """Return the arguments of a script's ``forward``, which ``inspect`` cannot see."""
    method: Any = script.forward
    return inspect.Signature([_parameter(argument) for argument in method.schema.arguments[1:]])


def _parameter(argument: Any) -> inspect.Parameter:
    default = argument.default_value if argument.has_default_value() else inspect.Parameter.empty
    return inspect.Parameter(argument.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)


def _converted(script: torch.jit.ScriptModule, request: Request) -> _StandIn:
    """Return a stand-in that runs torch's translation of a script."""
    torchs = torchscript_converter()
    load: Any = torch.jit.load
    bound = signature_of(script).bind(*request.args, **request.kwargs)
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
    return _stand_in(script, graph_module)


def _in_one_line(error: RuntimeError) -> CaptureError:
    """Return what the interpreter says in many lines; it has no word for what was raised in Python, as fakes do."""
    _, _, reason = str(error).rpartition("RuntimeError:")
    places = [f"{os.path.basename(file)}:{line}" for file, line in _PLACE.findall(str(error))]
    return CaptureError(
        f"TorchScript's interpreter failed: {reason.strip() or 'an operation needs the values of a tensor'}",
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
