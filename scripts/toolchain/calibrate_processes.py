"""Several processes that work for one, each with a state of its own, on task after task."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

__all__ = ["Died", "Processes", "Task", "Told", "first"]

PR_SET_PDEATHSIG = 1


class Task(NamedTuple):
    """A method to call with arguments; ``tag`` is for whoever asked."""

    method: str
    arguments: tuple
    tag: Any = None


Choice = Callable[[list[Task], Task | None], int]


class Told(Exception):
    """What a process has to tell people, or its parent; it goes from there to here as it is."""


class Died(Exception):
    """A process ended by itself. ``code`` is its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def first(left: list[Task], _last: Task | None) -> int:
    """Tasks in their order."""
    return 0


class Processes:
    """Processes that were forked from this one and end with it.

    :param make: makes what does the work, in each process
    """

    def __init__(self, count: int, make: Callable[[], object]) -> None:
        context = multiprocessing.get_context("fork")
        sys.stdout.flush()
        sys.stderr.flush()
        self._pipes: list[Connection] = []
        self._running = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            self._pipes.append(ours)
            process = context.Process(
                target=_serve, args=(theirs, list(self._pipes), make, os.getpid()), daemon=True
            )
            process.start()
            theirs.close()
            self._running.append(process)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
        for process in self._running:
            process.join()

    def run(self, tasks: Sequence[Task], choose: Choice = first) -> Iterator[tuple[Any, Any]]:
        """Have tasks done, as many at once as there are processes; gives tags with results.

        :param choose: which of those left a process is to do after its last one
        :raises Told: by a process
        :raises Died: a process ended
        """
        left = list(tasks)
        doing: dict[Connection, Task] = {}
        for pipe in self._pipes:
            self._next(pipe, left, doing, None, choose)
        while doing:
            for pipe in wait(list(doing)):
                result = self._result(pipe)
                task = doing.pop(pipe)
                self._next(pipe, left, doing, task, choose)
                yield task.tag, result

    def _next(
        self, pipe: Connection, left: list[Task], doing: dict, last: Task | None, choose: Choice
    ) -> None:
        if left:
            doing[pipe] = task = left.pop(choose(left, last))
            with contextlib.suppress(BrokenPipeError):  # the result tells
                pipe.send(task[:2])

    def _result(self, pipe: Connection) -> object:
        try:
            failure, result = pipe.recv()
        except (EOFError, ConnectionResetError):
            process = self._running[self._pipes.index(pipe)]
            process.join()
            raise Died(process.exitcode) from None
        if failure:
            raise failure
        return result


def _serve(pipe: Connection, others: list[Connection], make: Callable, parent: int) -> None:
    """Work until the parent ends, which nothing outlives."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Their other ends are the parent's alone: an end that is open here would keep them so.
    for other in others:
        other.close()
    if os.getppid() != parent:
        os._exit(1)
    try:
        work, failure = None, None
        try:
            work = make()
        except Told as told:
            failure = told
        while True:
            name, arguments = pipe.recv()
            try:
                answer = (failure, None if failure else getattr(work, name)(*arguments))
            except Told as told:
                answer = (told, None)
            except MemoryError:
                answer = (
                    Told("there was not memory enough; take fewer processes (MEMORY=…)"),
                    None,
                )
            pipe.send(answer)
    except (EOFError, ConnectionError):  # the parent has ended
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        # Not the usual way out: it would wait for threads that a fork has left behind.
        os._exit(1)
