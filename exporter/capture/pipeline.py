"""The capture pipeline: from a module and example arguments to a program, one stage after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

import torch

from exporter.capture.artifacts import IR, DynamicShapes, Options, Request, Symbolic
from exporter.capture.bind import bind
from exporter.capture.classify import classify
from exporter.capture.collect import collect
from exporter.capture.diagnose import diagnose
from exporter.capture.differentiate import differentiate
from exporter.capture.enforce import enforce
from exporter.capture.explain import explain
from exporter.capture.follow import follow
from exporter.capture.lift import lift
from exporter.capture.lower import lower
from exporter.capture.module_inputs import modules_as_containers
from exporter.capture.name import name
from exporter.capture.package import package
from exporter.capture.restore import restore
from exporter.capture.solve import solve
from exporter.capture.symbolize import symbolize
from exporter.capture.torchscript import with_stand_ins
from exporter.capture.trace import trace
from exporter.capture.wrap import wrap
from exporter.events import CaptureEnded, CaptureFailed, Event, Report
from exporter.statistics import operator_counts
from exporter.torch_internals import unset_fake_temporarily
from schema.errors import CaptureError

Stage = Callable[[Any], Any]

STAGES: tuple[str, ...] = ("bind", "symbolize", "trace", "solve", "enforce", "lift", "wrap", "name", "package")
"""The stages of a capture with default options, in order."""


def capture(
    module: torch.nn.Module,
    args: tuple[object, ...] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    dynamic_shapes: DynamicShapes = None,
    strict: bool = False,
    ir: IR = "training",
    preserve_module_call_signature: Sequence[str] = (),
    prefer_deferred_runtime_asserts: bool = False,
    joint_loss_index: int | None = None,
    method: str = "forward",
    on_event: Callable[[Event], None] | None = None,
) -> torch.export.ExportedProgram:
    """Capture a module as a program, by running it once over fake tensors.

    The program equals the one that ``torch.export.export`` makes in the same mode. The module, the arguments and the
    global state of torch are left as they were.

    Args:
        module: The module to capture.
        args: Example positional arguments.
        kwargs: Example keyword arguments.
        dynamic_shapes: Which dimensions vary, by argument, as for ``torch.export.export``; what is left out is fixed.
        strict: Follow the module with Dynamo, which reads its bytecode, and not by running it.
        ir: ``"training"``, what ``torch.export.export`` gives: the operators that the module calls, in-place ones too;
            or ``"inference"``: functional ATen, made by AOTAutograd.
        preserve_module_call_signature: Names of submodules whose calling convention the program keeps, so that
            ``torch.export.unflatten`` gives them back as modules that are called in the same way.
        prefer_deferred_runtime_asserts: Turn guards on sizes into asserts of the program instead of refusing.
        joint_loss_index: Which output is the loss; the program is then the joint graph of forward and backward. With
            ``ir="inference"`` only.
        method: Which method to capture. Hooks of the module belong to ``forward``; another method runs without them.
        on_event: Called with each event of ``exporter.events``: stages, modules that the trace enters, the end. What
            it raises ends the capture and is raised here. The same goes to the logger ``exporter``.

    Returns:
        The program, in the IR that was asked for.

    Raises:
        CaptureError: The module cannot be captured. The error names the stage, the place and a remedy, and is chained
            to what torch or the module raised.
    """
    options = Options(
        strict=strict,
        ir=ir,
        preserve=tuple(preserve_module_call_signature),
        deferred_asserts=prefer_deferred_runtime_asserts,
        joint_loss=joint_loss_index,
        method=method,
    )
    report = Report(on_event)
    try:
        _check_arguments(args, kwargs, preserve_module_call_signature, method)
        _check_options(options)
        request = Request(module, args, dict(kwargs or {}), dynamic_shapes, options, report)
        with unset_fake_temporarily(), modules_as_containers(() if strict else (args, kwargs)):
            program = _in_one_chunk(lambda: with_stand_ins(request, _run))
    except CaptureError as error:
        error.method = method if isinstance(method, str) and method != "forward" else ""
        report(CaptureFailed(error, classify(error)))
        raise
    if report.hears(CaptureEnded):
        seconds = dict(report.seconds)
        report(CaptureEnded(sum(seconds.values()), seconds, operator_counts(program), strict, ir))
    return program  # type: ignore[no-any-return]


def _check_arguments(args: object, kwargs: object, preserve: object, method: object) -> None:
    if not isinstance(args, tuple):
        raise _malformed("args", args, "a tuple", "pass args=(x, ...)")
    if not isinstance(kwargs, Mapping | None):
        raise _malformed("kwargs", kwargs, "a mapping", 'pass kwargs={"name": value, ...}')
    if isinstance(preserve, str):
        raise _malformed("preserve_module_call_signature", preserve, "a sequence of names", 'pass ("name",)')
    if not isinstance(method, str):
        raise _malformed("method", method, "a name", 'pass method="encode"')


def _stages(options: Options) -> Iterator[Stage]:
    """The stages of one kind of capture, in order."""
    joint = options.joint_loss is not None
    training = options.ir == "training" or joint  # what is differentiated is a program in training IR
    yield bind  # arguments to the signature of forward and to the shape specification
    yield follow if options.strict else symbolize  # to fakes with symbolic sizes; Dynamo makes torch IR of the module
    yield trace if training else lower  # the module over fakes, to a graph; a functional one under AOTAutograd
    yield solve  # the guards: does the graph hold for all admitted sizes?
    yield enforce  # asserts for what can be known only at run time
    yield lift  # constants to inputs, with a signature
    if training:
        yield wrap  # regions of other grad modes and autocast to subgraphs
    yield name  # inputs after what they carry
    if options.strict:
        yield restore  # the names of the module, in place of Dynamo's
    if options.preserve:
        yield collect  # how preserved submodules were called
    if joint:
        yield differentiate  # the graph of the forward, to that of forward and backward
    yield package  # all of it to an ExportedProgram


def _check_options(options: Options) -> None:
    if options.ir not in get_args(IR):
        raise _clash(f"there is no IR {options.ir!r}", "ir", f"choose one of {', '.join(get_args(IR))}")
    joint = options.joint_loss is not None
    if joint and options.ir != "inference":
        raise _clash("a joint graph is in inference IR", "joint_loss_index", 'pass ir="inference", too')
    if joint and options.preserve:
        message = "a joint graph has no calls of submodules to describe"
        raise _clash(message, "preserve_module_call_signature", "leave it out")


def _clash(message: str, option: str, remedy: str) -> CaptureError:
    return CaptureError(message, loc=(option,), remedy=remedy, stage=STAGES[0])


def _malformed(name: str, value: object, expected: str, remedy: str) -> CaptureError:
    message = f"{name} is of type {type(value).__name__}, not {expected}"
    return CaptureError(message, loc=(name,), remedy=remedy, stage=STAGES[0])


def _run(request: Request) -> Any:
    result: Any = request
    for stage in _stages(request.options):
        with request.report.stage(stage.__name__):
            result = _advance(stage, result, request)
    return result


def _advance(stage: Stage, given: Any, request: Request) -> Any:
    try:
        return stage(given)
    except Exception as error:
        request.report.check()
        if isinstance(error, CaptureError):
            error.stage = error.stage or stage.__name__
            raise
        symbolic = given if isinstance(given, Symbolic) else getattr(given, "symbolic", None)
        failure = explain(error, stage.__name__, request.module, symbolic)
        raise diagnose(failure, error, symbolic) from error


def _in_one_chunk(run: Callable[[], Any]) -> Any:
    return run()


if sys.version_info[:2] == (3, 11):
    # CPython 3.11 keeps Python frames in chunks of 16 kB. Where a hot call happens to cross the border of a chunk,
    # every call allocates a chunk and frees it again, and a capture takes up to twice as long, for one depth of the
    # caller's stack and not for the next. A function that claims a large frame gets a large chunk, and the frames of
    # all that it calls find room behind it.
    _in_one_chunk.__code__ = _in_one_chunk.__code__.replace(co_stacksize=70_000)
