"""The files of each program, in each way's format; made once and kept."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import torch

import exporter
from benchmarks.processes import ROOT, apart
from benchmarks.programs import PROGRAMS, arguments, build
from benchmarks.ways import WAYS


def prepare(name: str, cache: Path) -> Path:
    """The folder with the files of a program; what is missing is made first."""
    folder = cache / f"torch-{torch.__version__}" / name
    folder.mkdir(parents=True, exist_ok=True)
    if any(_missing(name, folder)):
        apart(_make_peers, name, folder)
    stamp = folder / "made-by"
    if not stamp.exists() or stamp.read_text() != _sources():
        apart(_make_archive, folder)
        stamp.write_text(_sources())
    return folder


def file_of(way: str, folder: Path) -> Path:
    return folder / WAYS[way].file


def available(way: str, folder: Path) -> bool:
    return file_of(way, folder).exists() and WAYS[way].installed


def failures(name: str, folder: Path) -> dict[str, str]:
    """Why a peer has no file of a program, for those that should have one."""
    reports = {peer: _report(peer, folder) for peer in PROGRAMS[name].peers}
    return {peer: report.read_text() for peer, report in reports.items() if report.exists()}


def _report(way: str, folder: Path) -> Path:
    """Where it is written why a file could not be made."""
    return folder / f"{WAYS[way].file}.failed"


def _missing(name: str, folder: Path) -> Iterator[str]:
    for way in ("export", *PROGRAMS[name].peers):
        file = file_of(way, folder)
        failed = _report(way, folder)
        if not file.exists() and not (failed.exists() and not failed.read_text().endswith(NOT_INSTALLED)):
            yield way


def _make_peers(name: str, folder: Path) -> None:
    module = build(name)
    for way in _missing(name, folder):
        file = file_of(way, folder)
        failed = _report(way, folder)
        failed.unlink(missing_ok=True)
        unfinished = folder / "unfinished" / file.name
        unfinished.parent.mkdir(exist_ok=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                MAKERS[way](module, name, unfinished)
        except Exception as error:
            if way == "export":
                raise
            failed.write_text(f"{type(error).__name__}: {_plain(str(error))}")
        else:
            unfinished.rename(file)


def _plain(message: str) -> str:
    """The first line of a message, without colours."""
    return re.sub(r"\x1b\[\d*m", "", message).strip().partition("\n")[0]


def _make_export(module: torch.nn.Module, name: str, file: Path) -> None:
    program = exporter.capture(module, arguments(name), dynamic_shapes=PROGRAMS[name].shapes)
    torch.export.save(program, file)


def _make_torchscript(module: torch.nn.Module, name: str, file: Path) -> None:
    traced = torch.jit.trace(module, arguments(name), check_trace=False)
    torch.jit.save(traced, file)


def _make_eager(module: torch.nn.Module, _: str, file: Path) -> None:
    from safetensors.torch import save_file

    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    save_file({path: tensor.contiguous() for path, tensor in tensors.items()}, file)


def _make_onnx(module: torch.nn.Module, name: str, file: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"{package} {NOT_INSTALLED}")
    program = exporter.capture(module, arguments(name), dynamic_shapes=PROGRAMS[name].shapes)
    torch.onnx.export(program, arguments(name), file, dynamo=True, external_data=False, verbose=False)


SOURCES: Final = ("schema/*.py", "archive/writing.py", "exporter/*.py", "exporter/emit/*.py")
NOT_INSTALLED: Final = "is not installed"

MAKERS: Final[dict[str, Callable[[torch.nn.Module, str, Path], None]]] = {
    "export": _make_export,
    "torchscript": _make_torchscript,
    "eager": _make_eager,
    "onnxruntime": _make_onnx,
}


def _make_archive(folder: Path) -> None:
    """Write our file of the program that is in torch's, so that both hold the same."""
    exporter.save(torch.export.load(file_of("export", folder)), file_of("ours", folder))


def _sources() -> str:
    """Digest of the code that decides what is in our file, for a given program."""
    files = (path for pattern in SOURCES for path in sorted(ROOT.glob(pattern)))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
