"""Load a program from an archive."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from archive.collector import collector_paused
from loader.devices import Target
from loader.opening import Verify, open_method
from loader.rebuild.program import rebuild_program
from schema.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from loader.given import Weights


def load(
    path: str | os.PathLike[str],
    *,
    method: str = "forward",
    device: Target = None,
    weights: Weights | None = None,
    mmap: bool = True,
    debug: bool = False,
    allow_ops: Iterable[str] = (),
    allow_classes: Iterable[str] = (),
    verify: Verify = "sections",
    limits: Limits = DEFAULT_LIMITS,
) -> torch.export.ExportedProgram:
    """The program of an archive, verified by torch.

    Nothing in the file is run: there is no pickle in it, no code, and no name that is imported.

    Args:
        path: The archive.
        method: Which of its programs.
        device: Where to put it: a device, a map of recorded devices to others, or None for where it was captured.
        weights: Weights to take in place of the archive's, or for one that holds none: a safetensors file, the
            ``.json`` index of its shards, or tensors by name, which are not copied where they are as they should be.
            Of tied weights it is enough that one is given.
        mmap: Whether weights are the mapped file, so that loading copies nothing and processes share memory; the file
            must then not be changed in place while the program lives. Otherwise they are copies.
        debug: Whether to give nodes their stack traces.
        allow_ops: Operators that the program may call beyond torch's own on the list: namespaces, or exact overloads.
        allow_classes: What classes the program may use, all of which the caller has loaded: modules of wrapper tensors
            and autograd functions; classes of script objects (``torch.classes.NAMESPACE.NAME``), or their namespaces.
        verify: ``sections`` checks the digests of what is read but weights, ``full`` those of the whole file.
        limits: How much to spend on the file before it is refused.

    Raises:
        AccessError: The file cannot be read.
        FormatError: It is no archive, a malformed one, or one whose program torch refuses.
        VersionError: It needs a newer reader.
        IntegrityError: Its bytes are not those that were written.
        OperatorError: An operator is forbidden, not admitted or unknown.
        ClassError: A class of tensors or script objects is not admitted or unknown.
        WeightsError: Weights are missing or do not fit, with everything that does not.
        UsageError: It has no such method, or this machine no such device.
    """
    opening = open_method(
        path,
        method=method,
        device=device,
        weights=weights,
        mmap=mmap,
        allow_ops=allow_ops,
        allow_classes=allow_classes,
        verify=verify,
        limits=limits,
    )
    with collector_paused(), opening as opened:
        return rebuild_program(opened, debug=debug)
