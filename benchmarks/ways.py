"""The ways to keep a program in a file and to get it back: ours and its peers.

Nothing is imported before it is used: fresh processes measure imports too.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

THREADS: Final = 1
"""Threads of every way, so that two cores that others use too are enough."""

Call = Callable[..., Any]


class Way(NamedTuple):
    """A way to get a program back.

    Attributes:
        title: What to call it.
        file: Name of its file.
        package: What is imported before anything else.
        load: Gives what the format holds, from the file and the name of the program.
        module: Makes of that something to call.
    """

    title: str
    file: str
    package: str
    load: Callable[[str, str], Any]
    module: Callable[[Any], Call] = lambda loaded: loaded

    @property
    def installed(self) -> bool:
        """Whether its package is there; a file of it may be from a time when it was."""
        return find_spec(self.package.partition(".")[0]) is not None


def load_archive(file: str, _: str) -> Any:
    import loader

    return loader.load(file)


def load_archive_module(file: str, _: str) -> Call:
    import loader

    return loader.load_module(file)


def load_export(file: str, _: str) -> Any:
    import torch

    return torch.export.load(file)


def load_torchscript(file: str, _: str) -> Call:
    import torch

    return torch.jit.load(file)


def load_eager(file: str, name: str) -> Call:
    """The module itself, built without memory, with the tensors of a safetensors file put in."""
    import torch
    from safetensors.torch import load_file

    from benchmarks.programs import PROGRAMS

    tensors = load_file(file)
    with torch.device("meta"):
        module = PROGRAMS[name].build()
    module.load_state_dict(tensors, strict=False, assign=True)
    for path, _ in list(module.named_buffers()):
        parent, _, buffer = path.rpartition(".")
        setattr(module.get_submodule(parent), buffer, tensors[path])
    module.tie_weights()
    return module.eval()


def load_onnx(file: str, _: str) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda *args: session.run(None, dict(zip(names, args, strict=True)))[0]


WAYS: Final = {
    "nothing": Way("import torch", "", "torch", lambda *_: None),
    "ours": Way("loader.load", "program.safetensors", "torch", load_archive),
    "ours-module": Way("loader.load_module", "program.safetensors", "torch", load_archive_module),
    "export": Way("torch.export.load", "program.pt2", "torch", load_export),
    "export-module": Way(
        "torch.export.load, module()", "program.pt2", "torch", load_export, lambda program: program.module()
    ),
    "torchscript": Way("TorchScript", "script.pt", "torch", load_torchscript),
    "eager": Way("safetensors + eager", "weights.safetensors", "torch", load_eager),
    "onnxruntime": Way("onnxruntime", "model.onnx", "onnxruntime", load_onnx),
}
