"""Write programs to an archive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack, overload

import torch

from archive.collector import collector_paused
from archive.writing import write_archive
from exporter.capture import Call, CaptureOptions, DynamicShapes, capture_methods
from exporter.emit.program import emit_programs
from exporter.events import Report
from exporter.recording import record_outputs as record
from schema.errors import UsageError
from schema.names import is_identifier

if TYPE_CHECKING:
    import os


def save(
    program: torch.export.ExportedProgram | Mapping[str, torch.export.ExportedProgram],
    path: str | os.PathLike[str],
    *,
    record_outputs: bool = False,
    keep_paths: bool = False,
    examples: bool = True,
    weights: bool = True,
) -> int:
    """Write a program, or several under the names of their methods, to one archive.

    The file is complete under its final name or not there at all; an older one under that name stays until then.
    Guards that a program has only as text, as those that ``torch.export.load`` gives, are read back as conditions; one
    in which none can be read is dropped with a warning.

    Args:
        program: A program, which becomes the method ``forward``; or programs by name. They share their tensors.
        path: Where to write.
        record_outputs: Whether to run each program on its example inputs, and record what it returns for ``verify``.
        keep_paths: Whether to keep absolute paths of source files in stack traces.
        examples: Whether to keep the example inputs.
        weights: Whether to keep parameters and persistent buffers. Without them the file is small, and whoever loads
            it passes them; what shares memory with them comes with them. Fake weights can only be left out.

    Returns:
        Size of the file in bytes.

    Raises:
        UnsupportedError: A program holds something that the format cannot carry.
        AccessError: The file cannot be written.
        UsageError: There is no program, a method's name is no identifier, or outputs cannot be recorded.
    """
    programs = dict(program) if isinstance(program, Mapping) else {"forward": program}
    if not programs:
        raise UsageError("there is no program to write", remedy="pass at least one")
    for name, each in programs.items():
        if not isinstance(each, torch.export.ExportedProgram):
            raise UsageError(f"a {type(each).__name__} is no ExportedProgram", remedy="capture it first, or use export")
        if not is_identifier(name):
            raise UsageError(f"{name!r} cannot name a method", remedy="use an identifier")
    if record_outputs and not examples:
        raise UsageError("outputs are recorded for the example inputs", remedy="keep the examples too")
    expected = {name: record(each) for name, each in programs.items()} if record_outputs else None
    with collector_paused():
        emitted = emit_programs(programs, expected=expected, keep_paths=keep_paths, examples=examples, weights=weights)
    return write_archive(path, emitted.blobs, emitted.describe)


@overload
def export(
    module: torch.nn.Module,
    args: tuple[Any, ...] = ...,
    kwargs: Mapping[str, Any] | None = ...,
    *,
    path: str | os.PathLike[str],
    dynamic_shapes: DynamicShapes = ...,
    method: str = ...,
    methods: None = ...,
    record_outputs: bool = ...,
    keep_paths: bool = ...,
    weights: bool = ...,
    **options: Unpack[CaptureOptions],
) -> torch.export.ExportedProgram: ...


@overload
def export(
    module: torch.nn.Module,
    *,
    path: str | os.PathLike[str],
    methods: Mapping[str, Call],
    record_outputs: bool = ...,
    keep_paths: bool = ...,
    weights: bool = ...,
    **options: Unpack[CaptureOptions],
) -> dict[str, torch.export.ExportedProgram]: ...


def export(
    module: torch.nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    path: str | os.PathLike[str],
    dynamic_shapes: DynamicShapes = None,
    method: str = "forward",
    methods: Mapping[str, Call] | None = None,
    record_outputs: bool = False,
    keep_paths: bool = False,
    weights: bool = True,
    **options: Unpack[CaptureOptions],
) -> torch.export.ExportedProgram | dict[str, torch.export.ExportedProgram]:
    """Capture a module and write it to an archive, under the name of the method.

    Args:
        module: What to capture.
        args: Example positional inputs.
        kwargs: Example keyword inputs.
        path: Where to write.
        dynamic_shapes: Which sizes may vary, as for :func:`exporter.capture`.
        method: As for :func:`exporter.capture`.
        methods: Several methods and how each is called, in place of ``args``, ``kwargs``, ``dynamic_shapes`` and
            ``method``. They share their weights.
        record_outputs: As for :func:`save`.
        keep_paths: As for :func:`save`.
        weights: As for :func:`save`.
        **options: The other options of :func:`exporter.capture`. For ``on_event``, writing the file is one more
            stage, ``save``.

    Returns:
        The captured program, or with ``methods`` the programs by name.

    Raises:
        CaptureError: The module cannot be captured.
        UnsupportedError: The program holds something that the format cannot carry.
        AccessError: The file cannot be written.
        UsageError: There are ``methods`` and arguments beside them.
    """
    if methods is None:
        call = Call(args, kwargs, dynamic_shapes)
        programs = capture_methods(module, {method: call}, **options)
    elif args or kwargs or dynamic_shapes is not None or method != "forward":
        raise UsageError(
            "methods= stands in place of args, kwargs, dynamic_shapes and method=", remedy="put them into a Call"
        )
    else:
        programs = capture_methods(module, methods, **options)
    with Report(options.get("on_event")).stage("save"):
        save(programs, path, record_outputs=record_outputs, keep_paths=keep_paths, weights=weights)
    return programs if methods is not None else programs[method]
