"""Processes that judge cases: one that crashes or hangs loses no case but its own."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import queue
import threading
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch

from tests.databases.judging import Task, Verdict, judge

_START = 120.0
"""Seconds that a new process may take to import torch."""

_MOST_LOSSES = 3
"""After so many losses the rest of a case is given up."""


def judge_all(tasks: Iterable[Task], workers: int, limit: float) -> Iterator[tuple[Task, list[Verdict]]]:
    """Judge tasks in processes.

    Args:
        tasks: The cases.
        workers: How many processes.
        limit: How many seconds one sample may take.

    Yields:
        Each task with the verdicts on its samples, as they are done.
    """
    remaining, lock, done = iter(tasks), threading.Lock(), queue.SimpleQueue[Any]()

    def work() -> None:
        try:
            worker = _Worker(limit)
            while True:
                with lock:
                    task = next(remaining, None)
                if task is None:
                    break
                done.put((task, list(worker.judge(task))))
            worker.stop()
        finally:  # a thread that dies has printed why
            done.put(None)

    for _ in range(workers):
        threading.Thread(target=work, daemon=True).start()
    for _ in range(workers):
        yield from iter(done.get, None)


class _Worker:
    """A process that is replaced when it is lost."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        if self.connection.poll(_START):
            self.connection.recv()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def judge(self, task: Task) -> Iterator[Verdict]:
        """Judge the samples of a task; where the process is lost, go on behind the sample that it was lost with."""
        losses = 0
        while losses < _MOST_LOSSES:
            try:
                for verdict in self._ask(task):
                    yield verdict
                    task = dataclasses.replace(task, first=task.first + 1)
                return
            except (EOFError, ConnectionError, TimeoutError) as loss:
                losses += 1
                self.stop()
                reason = str(loss) or f"the process ended with status {self.process.exitcode}"
                yield Verdict(f"{task.name} ({task.first})", reasons=(("lost", reason),))
                task = dataclasses.replace(task, first=task.first + 1)
                self.start()

    def _ask(self, task: Task) -> Iterator[Verdict]:
        self.connection.send(task)
        while True:
            if not self.connection.poll(self.limit):
                raise TimeoutError(f"took longer than {self.limit:g} s")
            verdict = self.connection.recv()
            if verdict is None:
                return
            yield verdict


def _serve(connection: Connection) -> None:
    """Judge what comes, until nobody asks any more."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere:
        for noisy in (1, 2):  # torch prints the graphs that it fails with, and warnings from C++
            os.dup2(nowhere.fileno(), noisy)
    connection.send(None)  # ready: everything is imported
    while True:
        for verdict in judge(connection.recv()):
            connection.send(verdict)
        connection.send(None)
