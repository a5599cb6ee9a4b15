"""The state of Python and torch while a module is traced; every change is taken back on the way out."""

from __future__ import annotations

import ast
import builtins
import functools
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from archive.collector import collector_paused
from exporter.capture.arithmetic import remembered_arithmetic
from exporter.capture.places import running_module, running_users_frame
from exporter.torch_internals import (
    BACKENDS_THAT_DECOMPOSE,
    DYNAMO_FOLDER,
    FAKE_TENSOR_LOGGER,
    FakeTensorMode,
    TracingContext,
    compiler_flags,
    dynamo_config,
    enable_python_dispatcher,
    tracing,
)

_DYNAMO_SETTINGS: dict[str, Any] = {
    "allow_rnn": True,
    "assume_static_by_default": False,
    "automatic_dynamic_shapes": False,
    "capture_dynamic_output_shape_ops": True,
    "capture_scalar_outputs": True,
    "do_not_emit_runtime_asserts": False,
    "prefer_deferred_runtime_asserts_over_guards": False,
    "replay_side_effects": False,
    "specialize_float": True,
    "specialize_int": True,
}
"""How control-flow operators, which trace their branches with Dynamo, and ``.item()`` behave during an export."""

_FOLLOWING_SETTINGS: dict[str, Any] = {
    "assume_static_by_default": True,
    "constant_fold_autograd_profiler_enabled": True,
    "do_not_emit_runtime_asserts": True,
    "log_graph_in_out_metadata": True,
    "reorderable_logging_functions": {
        *(logging.debug, logging.info, logging.warning, logging.error, logging.critical, logging.exception),
        *(logging.log, print, warnings.warn),
    },
    "side_effect_replay_policy": "warn",
}
"""What differs where Dynamo follows the module itself. Functions that only tell something are left out of the graph."""


_CHANGED = re.compile(r"side effects happened in the model\.forward\..*?(\[.*\])")
"""How Dynamo lists the modules and containers that ``forward`` changes."""


@contextmanager
def tracing_environment(mode: FakeTensorMode) -> Iterator[None]:
    """Trace under ``mode``, as an export, and without backends that would choose another graph."""
    settings = {name: value for name, value in _DYNAMO_SETTINGS.items() if hasattr(dynamo_config, name)}
    with (
        mode,
        tracing(TracingContext(mode)),
        dynamo_config.patch(settings),
        _symbolic_builtins(),
        _backends_off(),
        _exporting(),
        enable_python_dispatcher(),
        _grad_mode_kept(),
        _errors_not_logged(),
        _guards_at_users_lines(mode.shape_env),
        remembered_arithmetic(mode.shape_env),
        # A generator suspended under no_grad sets the grad mode when it is collected, and the trace would record that.
        collector_paused(),
    ):
        yield


@contextmanager
def following_environment(*, deferred_asserts: bool) -> Iterator[None]:
    """Let Dynamo follow a module as for an export."""
    settings = _DYNAMO_SETTINGS | _FOLLOWING_SETTINGS
    settings["prefer_deferred_runtime_asserts_over_guards"] = deferred_asserts
    settings["install_free_tensors"] = dynamo_config.install_free_tensors_for_export
    settings = {name: value for name, value in settings.items() if hasattr(dynamo_config, name)}
    with dynamo_config.patch(settings), _backends_off(), _exporting(), _errors_not_logged(), _warnings_in_words():
        yield


@contextmanager
def _exporting() -> Iterator[None]:
    before = compiler_flags._is_compiling_flag, compiler_flags._is_exporting_flag
    compiler_flags._is_compiling_flag = compiler_flags._is_exporting_flag = True
    try:
        yield
    finally:
        compiler_flags._is_compiling_flag, compiler_flags._is_exporting_flag = before


@contextmanager
def _backends_off() -> Iterator[None]:
    before = [(backend, backend.set_flags(False)) for backend in BACKENDS_THAT_DECOMPOSE]
    try:
        yield
    finally:
        for backend, flags in before:
            backend.set_flags(*flags)


@contextmanager
def _grad_mode_kept() -> Iterator[None]:
    """A forward may switch the grad mode and not back."""
    before = torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(before)


@contextmanager
def _errors_not_logged() -> Iterator[None]:
    """Torch logs a traceback of the very error that it raises next, and that a capture tells in one line."""

    def below_error(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    logger = logging.getLogger(FAKE_TENSOR_LOGGER)
    logger.addFilter(below_error)
    try:
        yield
    finally:
        logger.removeFilter(below_error)


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    """Say in our words which changes Dynamo leaves out; of all else that stops it, it raises an error too."""
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        yield
    for each in met:
        if changed := _CHANGED.search(str(each.message)):
            owners = dict.fromkeys(_in_words(source) for source in ast.literal_eval(changed[1]))
            warnings.warn(
                f"forward changes {', '.join(owners)}; a program that is captured strictly keeps this in no way. "
                "Capture with strict=False to have buffers written back that forward assigns",
                stacklevel=2,
            )
        elif not each.filename.startswith(DYNAMO_FOLDER):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _in_words(source: str) -> str:
    """What the user calls a module, by the source that Dynamo knows it by."""
    path = re.sub(r"L\['self'\](\._modules\['_export_root'\]|\._export_root)", "self", source)
    return re.sub(r"\._modules\['(\w+)'\]", r".\1", path).removesuffix("._buffers").removesuffix("._parameters")


@contextmanager
def _guards_at_users_lines(shape_env: Any) -> Iterator[None]:
    """Let the shape environment note the user's line for what it decides, and not the one inside torch.

    Which module ran that line first is noted beside it, for ``place_of_decision``.
    """
    shape_env.deciders = {}

    def users_frame() -> FrameType | None:
        frame = running_users_frame()
        if frame is not None:
            shape_env.deciders.setdefault((frame.f_code.co_filename, frame.f_lineno), running_module(frame))
        return frame

    shape_env._get_user_frame = users_frame
    try:
        yield
    finally:
        del shape_env._get_user_frame


@contextmanager
def _symbolic_builtins() -> Iterator[None]:
    """Let ``max``, ``min`` and ``math.pow`` build expressions where Python would compare or convert to float."""
    real = builtins.max, builtins.min, math.pow
    patched: Any = builtins
    patched_math: Any = math
    patched.max = _extremum(builtins.max, torch.maximum, torch.sym_max, "min")
    patched.min = _extremum(builtins.min, torch.minimum, torch.sym_min, "max")
    patched_math.pow = lambda base, exponent: base**exponent
    try:
        yield
    finally:
        patched.max, patched.min, patched_math.pow = real


def _extremum(
    real: Callable[..., Any], of_tensors: Callable[..., Any], of_integers: Callable[..., Any], bound: str
) -> Callable[..., Any]:
    """Return ``real``, extended to tensors and symbolic integers; ``bound`` is clamp's word for a scalar's side."""

    def of_two(left: Any, right: Any) -> Any:
        if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
            return of_tensors(left, right)
        if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
            tensor, scalar = (left, right) if isinstance(left, torch.Tensor) else (right, left)
            number = isinstance(scalar, int | float)
            return torch.clamp(tensor, **{bound: scalar}) if number else real(tensor, scalar)
        if isinstance(left, torch.SymInt) or isinstance(right, torch.SymInt):
            return of_integers(left, right)
        return real(left, right)

    @functools.wraps(real)
    def extremum(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            return real(*args, **kwargs)
        if len(args) == 1 and not isinstance(args[0], torch.Tensor):
            items = list(args[0])
            symbolic = any(isinstance(item, torch.Tensor | torch.SymInt) for item in items)
            return functools.reduce(of_two, items) if symbolic else real(items)
        return of_two(*args) if len(args) == 2 else real(*args)

    return extremum
