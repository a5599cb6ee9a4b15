"""Load a program from an archive."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal

import torch

from archive.reading import open_archive
from loader.devices import Devices, Target
from loader.integrity import check_digests
from loader.operators import Operators
from loader.rebuild.program import rebuild_program
from loader.rebuild.tensors import TensorBuilder

Verify = Literal["sections", "full"]


def load(
    path: str | os.PathLike[str],
    *,
    method: str = "forward",
    device: Target = None,
    mmap: bool = True,
    debug: bool = False,
    allow_ops: Iterable[str] = (),
    verify: Verify = "sections",
) -> torch.export.ExportedProgram:
    """The program of an archive, verified by torch.

    Nothing in the file is run: there is no pickle in it, no code, and no name that is imported.

    Args:
        path: The archive.
        method: Which of its programs.
        device: Where to put it: a device, a map of recorded devices to others, or None for where it was captured.
        mmap: Whether weights are the mapped file, so that loading copies nothing and processes share memory; the file
            must then not be changed in place while the program lives. Otherwise they are copies.
        debug: Whether to give nodes their stack traces.
        allow_ops: Namespaces of custom operators that the program may call.
        verify: ``sections`` checks the digests of what is read but weights, ``full`` those of the whole file.

    Raises:
        AccessError: The file cannot be read.
        FormatError: It is no archive, a malformed one, or one whose program torch refuses.
        VersionError: It needs a newer reader.
        IntegrityError: Its bytes are not those that were written.
        OperatorError: An operator is forbidden, not admitted or unknown.
        UsageError: It has no such method, or this machine no such device.
    """
    with open_archive(path) as archive:
        found = archive.method(method)
        if verify == "full":
            check_digests(archive)
        devices = Devices(device)
        tensors = TensorBuilder(archive, devices, mmap=mmap)
        return rebuild_program(archive, found, tensors, devices, Operators(allow_ops), debug=debug)
