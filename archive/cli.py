"""The command line: ``archive export | inspect | verify | sign | run | convert``.

Commands import what they need themselves, so that ``inspect`` never pays for torch.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from archive.cli_options import (
    AllowClasses,
    AllowOps,
    Archive,
    Dialect,
    Imports,
    Inputs,
    Json,
    Method,
    PrivateKey,
    PublicKey,
    Signature,
    WeightsFile,
)
from schema.errors import ArchiveError, UsageError

app = typer.Typer(
    help="Capture a PyTorch model as one safe file; look into it, verify it and run it anywhere.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from schema.version import FORMAT_VERSION

        typer.echo(f"program-archive {version('program-archive')}, format {'.'.join(map(str, FORMAT_VERSION))}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def export(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="What to capture: MODULE:ATTRIBUTE, or a TorchScript file.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write.", show_default=False)],
    inputs: Inputs = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            "--dynamic",
            "-d",
            metavar="NAME=RANGE",
            help="A size that may vary, named in an input: batch=1..64, batch=2.., batch.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="Which method of the module to capture.")] = "forward",
    strict: Annotated[
        bool, typer.Option("--strict", help="Follow the code with Dynamo, instead of running it.")
    ] = False,
    ir: Annotated[
        Dialect, typer.Option("--ir", help="The operators that the model calls, or functional ATen for inference.")
    ] = Dialect.TRAINING,
    preserve: Annotated[
        list[str] | None,
        typer.Option(
            "--preserve",
            metavar="SUBMODULE",
            help="Keep how a submodule is called, for torch.export.unflatten; give it once for each.",
            show_default=False,
        ),
    ] = None,
    imports: Imports = None,
    record_outputs: Annotated[
        bool, typer.Option("--record-outputs", help="Record the outputs too, so that `archive verify` compares them.")
    ] = False,
    keep_paths: Annotated[
        bool, typer.Option("--keep-paths", help="Keep absolute paths of source files in stack traces.")
    ] = False,
    no_weights: Annotated[
        bool, typer.Option("--no-weights", help="Leave out parameters and buffers; they are given again to load it.")
    ] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print the count of every operator and the time of every stage too.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    json: Json = False,
) -> None:
    """Capture a model and write it to an archive.

    MODULE:ATTRIBUTE is imported, with the working directory first: an nn.Module, or a function that returns one, or
    returns (module, args), (module, args, kwargs), (module, args, kwargs, dynamic_shapes) or a dict with these keys.
    A TorchScript file is one that torch.jit.save wrote. Both are code of their author, which runs here.

    Where the target brings no inputs, describe them:

    archive export my_pkg.my_mod:build -o model.program.safetensors -i 'x=f32[batch,3,224,224]' -d batch=1..64
    """
    from archive.cli_imports import import_all
    from archive.cli_progress import progress
    from archive.cli_target import prepare
    from archive.render import export_lines, statistics_lines
    from archive.summary import inspect as summary_of
    from exporter import export as export_module
    from exporter.events import Event, StageEnded

    import_all(imports or [])
    prepared = prepare(target, inputs or [], dynamic or [], method)
    times: dict[str, float] = {}
    with progress(shown=not (quiet or json)) as show:

        def on_event(event: Event) -> None:
            if isinstance(event, StageEnded):
                times[event.stage] = event.seconds
            show(event)

        export_module(
            **prepared._asdict(),
            path=output,
            method=method,
            strict=strict,
            ir=ir.value,
            preserve_module_call_signature=preserve or (),
            record_outputs=record_outputs,
            keep_paths=keep_paths,
            weights=not no_weights,
            on_event=on_event,
        )
    if quiet:
        return
    summary = summary_of(output)
    statistics = statistics_lines(summary, times) if stats else ()
    _print({**summary.to_dict(), "seconds": times}, json, lambda: [*export_lines(summary, times), *statistics])


@app.command()
def inspect(
    file: Archive,
    graph: Annotated[bool, typer.Option("--graph", help="Print the graph.")] = False,
    ops: Annotated[bool, typer.Option("--ops", help="Print every operator with its count and signature.")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="Print every tensor.")] = False,
    method: Annotated[str | None, typer.Option("--method", "-m", help="Only this method.", show_default=False)] = None,
    depth: Annotated[int, typer.Option("--depth", min=0, help="How many levels of modules to tell apart.")] = 2,
    json: Json = False,
) -> None:
    """Say what is in an archive: inputs, outputs, sizes.

    Needs neither torch nor the model's code, and runs nothing.
    """
    import msgspec

    from archive.collector import collector_paused
    from archive.graph_text import graph_lines
    from archive.reading import open_archive
    from archive.render import operator_lines, summary_lines, tensor_lines
    from archive.summary import summarize

    with collector_paused(), open_archive(file) as archive:
        summary = summarize(archive, depth)
        if method is not None:
            name = archive.method(method).name
            summary = msgspec.structs.replace(summary, methods=[each for each in summary.methods if each.name == name])
        names = [each.name for each in summary.methods]
        texts = {name: list(graph_lines(archive, name)) for name in names} if graph else {}

    def lines() -> Iterable[str]:
        if ops:
            for each in summary.methods:
                yield from operator_lines(each)
        if tensors:
            yield from tensor_lines(summary)
        for text in texts.values():
            yield from text
        if not (ops or tensors or graph):
            yield from summary_lines(summary)

    graphs = {"graphs": texts} if graph else {}
    _print({**summary.to_dict(), **graphs} if json else {}, json, lines)


@app.command()
def verify(
    file: Archive,
    weights: WeightsFile = None,
    allow_ops: AllowOps = None,
    allow_classes: AllowClasses = None,
    imports: Imports = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="Say it of every section and tensor.")] = False,
    digests: Annotated[
        bool, typer.Option("--digests", help="Only structure and digests: needs no torch, and runs nothing.")
    ] = False,
    public_key: PublicKey = None,
    signature: Signature = None,
    json: Json = False,
) -> None:
    """Check everything about an archive, and run its recorded example.

    Digests, structure, operators, rebuild, torch's own verifier, recorded outputs. Verified means: the file is what
    was written, and torch accepts the program. It does not mean that the model is harmless, and its example is run:
    --digests runs nothing. The exit status is 1 if a check fails. With --public-key, a file that the owner of the key
    has not signed is refused before all that.
    """
    if public_key is not None:
        from archive.signing import verify_signature

        verify_signature(file, public_key, signature)
    elif signature is not None:
        raise UsageError("--signature proves nothing without a key", remedy="give --public-key FILE too")
    if digests:
        _verify_digests(file, json)
        return
    from archive.cli_imports import import_all
    from archive.reading import open_archive
    from archive.render import part_lines, report_lines
    from loader import verify as verify_archive

    import_all(imports or [])
    if not json:
        open_archive(file).close()  # what is no archive at all is an error, not a report
    report = verify_archive(file, weights=weights, allow_ops=allow_ops or [], allow_classes=allow_classes or [])
    plain = report.to_dict()
    if public_key is not None:
        plain["checks"].insert(0, {"name": "signature", "ok": True, "detail": f"of {public_key}", "seconds": 0.0})
    _print(plain, json, lambda: [*report_lines(plain["checks"]), *(part_lines(plain["parts"]) if tensors else ())])
    if not report.ok:
        raise typer.Exit(1)


def _verify_digests(file: Path, json: bool) -> None:
    from archive.integrity import compare_digests
    from archive.reading import open_archive
    from archive.render import part_lines

    with open_archive(file) as archive:
        parts = [part._asdict() for part in compare_digests(archive)]
    ok = all(part["ok"] is not False for part in parts)
    _print({"ok": ok, "parts": parts}, json, lambda: part_lines(parts))
    if not ok:
        raise typer.Exit(1)


@app.command()
def sign(
    file: Archive,
    private_key: PrivateKey,
    signature: Signature = None,
    json: Json = False,
) -> None:
    """Sign an archive, so that others can check with the public key that it is yours and unchanged.

    The signature is written beside the archive, in the format of the OpenSSF's model signing. A pair of keys:

    openssl ecparam -name prime256v1 -genkey -noout -out key.pem

    openssl ec -in key.pem -pubout -out pub.pem
    """
    from archive.signing import sign as sign_archive

    written = sign_archive(file, private_key, signature)
    _print({"path": str(file), "signature": str(written)}, json, lambda: [f"signed: {written}"])


@app.command()
def run(
    file: Archive,
    inputs: Inputs = None,
    example: Annotated[bool, typer.Option("--example", help="Run the recorded example inputs.")] = False,
    method: Method = "forward",
    device: Annotated[
        str | None, typer.Option("--device", metavar="DEVICE", help="Where to run: cpu, cuda, cuda:1.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Save output tensors as safetensors.", show_default=False),
    ] = None,
    weights: WeightsFile = None,
    allow_ops: AllowOps = None,
    allow_classes: AllowClasses = None,
    imports: Imports = None,
    json: Json = False,
) -> None:
    """Run an archive on its example or on other inputs.

    Prints what it returns, or saves its tensors:

    archive run model.program.safetensors -i 'x=f32[4,3,224,224]'
    """
    from archive.cli_imports import import_all
    from archive.cli_run import run_archive
    from archive.cli_values import output_json, output_row, save_outputs
    from archive.render import columns
    from archive.text import count_text

    if example and inputs:
        raise UsageError("--example and --input exclude each other", remedy="choose one")
    import_all(imports or [])
    outputs = run_archive(
        file,
        None if example else inputs or [],
        method=method,
        device=device,
        weights=weights,
        allow_ops=allow_ops or [],
        allow_classes=allow_classes or [],
    )
    if save is not None:
        count = save_outputs(save, outputs)
        _print({"path": str(save), "tensors": count}, json, lambda: [f"{count_text(count, 'tensor')} saved in {save}"])
        return
    plain = {"outputs": [output_json(name, value) for name, value in outputs]} if json else {}
    _print(plain, json, lambda: columns(output_row(name, value) for name, value in outputs))


@app.command()
def convert(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file of torch.export.save, or an archive.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write.", show_default=False)],
    trust: Annotated[
        bool, typer.Option("--trust", help="Read a file of torch.export.save, although that runs code of its author.")
    ] = False,
    no_weights: Annotated[
        bool, typer.Option("--no-weights", help="Leave parameters and buffers out of the archive.")
    ] = False,
    method: Method = "forward",
    weights: WeightsFile = None,
    allow_ops: AllowOps = None,
    allow_classes: AllowClasses = None,
    imports: Imports = None,
    json: Json = False,
) -> None:
    """Make an archive of a file of torch.export.save, or such a file of an archive.

    torch reads its own files with pickle, which can run anything: they are read only with --trust. An archive is
    read without. What the new file cannot carry is told.

    archive convert model.pt2 -o model.program.safetensors --trust

    archive convert model.program.safetensors -o model.pt2
    """
    from archive.cli_convert import is_torch_program, to_archive, to_torch
    from archive.cli_imports import import_all
    from archive.render import converted_lines

    if output.resolve() == file.resolve():
        raise UsageError("the file cannot be converted in its own place", remedy="choose another --output")
    import_all(imports or [])
    if is_torch_program(file):
        converted = to_archive(file, output, trust=trust, weights=not no_weights)
    else:
        allowed = {"allow_ops": allow_ops or [], "allow_classes": allow_classes or []}
        converted = to_torch(file, output, method=method, weights=weights, **allowed)
    plain = {**converted._asdict(), "path": str(converted.path)}
    _print(plain, json, lambda: converted_lines(**plain))


def _print(plain: Any, as_json: bool, lines: Any) -> None:
    """Print facts as JSON, or as the lines that a function gives."""
    if as_json:
        from archive.render import json_text

        typer.echo(json_text(plain))
    else:
        typer.echo("\n".join(lines()))


def main() -> None:
    """Run the command line; one line says what went wrong.

    The exit status is 0, or 1 if the archive or a check failed, 2 if the command line is wrong, 130 after Ctrl-C.
    """
    try:
        app()
    except ArchiveError as error:
        from archive.text import printable

        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
