"""Processes that work on cases: one that crashes or hangs loses no case but its own."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import queue
import resource
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import torch

from tests.databases.tasks import Task

_START = 120.0
"""Seconds that a new process may take to import torch."""

_MOST_LOSSES = 3
"""After so many losses the rest of a case is given up."""

_MEMORY = 12 * 2**30
"""How many bytes a process may address: it fails before the machine does."""

AnyTask = TypeVar("AnyTask", bound=Task)
Result = TypeVar("Result")


class Lost(Exception):
    """A process crashed or took too long; it was replaced."""


def work_on_all(
    tasks: Iterable[AnyTask], workers: int, start: Callable[[], Callable[[AnyTask], Iterator[Result]]]
) -> Iterator[tuple[AnyTask, list[Result]]]:
    """Work on several tasks at once.

    Args:
        tasks: The cases.
        workers: How many at once.
        start: Starts the processes that one worker needs, and returns what gives the results of a task.

    Yields:
        Each task with its results, as they are done.
    """
    remaining, lock, done = iter(tasks), threading.Lock(), queue.SimpleQueue[Any]()

    def work() -> None:
        try:
            results = start()
            while True:
                with lock:
                    task = next(remaining, None)
                if task is None:
                    break
                done.put((task, list(results(task))))
        finally:  # a thread that dies has printed why
            done.put(None)

    for _ in range(workers):
        threading.Thread(target=work, daemon=True).start()
    for _ in range(workers):
        yield from iter(done.get, None)


class Process(Generic[Result]):
    """A process that is replaced when it is lost, and ends with this one.

    Args:
        answer: What it answers a question with, a function of a module.
        limit: How many seconds one answer may take.
    """

    def __init__(self, answer: Callable[[Any], Iterator[Result]], limit: float) -> None:
        self._answer = answer
        self._limit = limit
        self._start()

    def ask(self, question: Any) -> Iterator[Result]:
        """All that it answers.

        Raises:
            Lost: It was lost over the next answer.
        """
        try:
            self._connection.send(question)
            while True:
                if not self._connection.poll(self._limit):
                    raise TimeoutError(f"took longer than {self._limit:g} s")
                answer = self._connection.recv()
                if answer is None:
                    return
                yield answer
        except (EOFError, ConnectionError, TimeoutError) as loss:
            self._stop()
            reason = str(loss) or f"the process ended with status {self._process.exitcode}"
            self._start()
            raise Lost(reason) from loss

    def ask_samples(self, task: Task, lost: Callable[[str, str], Result]) -> Iterator[Result]:
        """The results for the samples of a task; where the process is lost, it goes on behind that sample.

        Args:
            task: The question.
            lost: Makes a result of the name of a sample and of how the process was lost.
        """
        for _ in range(_MOST_LOSSES):
            try:
                for result in self.ask(task):
                    yield result
                    task = dataclasses.replace(task, first=task.first + 1)
                return
            except Lost as loss:
                yield lost(f"{task.name} ({task.first})", str(loss))
                task = dataclasses.replace(task, first=task.first + 1)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._answer), daemon=True)
        self._process.start()
        theirs.close()
        if self._connection.poll(_START):
            self._connection.recv()

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, answer: Callable[[Any], Iterator[Any]]) -> None:
    """Answer what comes, until nobody asks any more."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with open(os.devnull, "w") as nowhere:
        for noisy in (1, 2):  # torch prints the graphs that it fails with, and warnings from C++
            os.dup2(nowhere.fileno(), noisy)
    connection.send(None)  # ready: everything is imported
    while True:
        for each in answer(connection.recv()):
            connection.send(each)
        connection.send(None)
