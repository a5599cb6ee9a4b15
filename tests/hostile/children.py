"""Tries cases in child processes: one that is killed by a case is a failure of that case, and not the end."""

from __future__ import annotations

import multiprocessing
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tests.hostile.cases import original
from tests.hostile.corpus import CORPUS
from tests.hostile.judging import WAYS, Trial, judge

_PATIENCE = 60.0
"""After how many seconds a case hangs."""


def try_all(names: Sequence[str]) -> Iterator[tuple[str, list[Trial]]]:
    """Try cases in a child, and in a new one after each that kills it or keeps it for too long."""
    waiting = list(names)
    while waiting:
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(target=_serve, args=(waiting, theirs))
        child.start()
        theirs.close()
        while waiting:
            try:
                trials = ours.recv() if ours.poll(_PATIENCE) else None
            except EOFError:
                child.join()
                trials = [Trial("all", "", 0, 0, f"the process died with {child.exitcode}")]
            yield waiting.pop(0), trials or [Trial("all", "", _PATIENCE, 0, "does not come to an end")]
            if trials is None or trials[0].way == "all":
                break
        child.kill()
        child.join()


def _serve(names: Sequence[str], pipe: Connection) -> None:
    """Try cases one after the other, and send what became of each."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for act in WAYS.values():
        act(original())  # what is done once in a process is done before anything is measured
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            pipe.send(list(judge(CORPUS[name], Path(folder))))
