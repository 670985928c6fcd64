"""Processes that do what could end, hang or fill this one; each is held to time and memory, and its end is a value.

They start without the program that starts them: a user's script must not run again in each of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from multiprocessing.reduction import DupFd
from types import TracebackType
from typing import Any

from search_spaces.limits import memory_limit, memory_used, pause, renew, too_much

_hidden = threading.RLock()  # two threads that hid it at once would leave it hidden
_SHOWN = ("__file__", "__spec__")  # what `multiprocessing.spawn` finds the main module by

Answering = Callable[..., Any]


class NoAnswer(RuntimeError):
    """A process ended, or was ended, before it answered.

    Attributes:
        kind: ``crash``, ``memory`` or ``timeout``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Spawned:
    """One process that answers questions, in order; started when it is first asked, and anew after it has ended.

    It hears no SIGINT and no SIGTERM, which a terminal sends to the whole group: its parent decides. It ends soon after
    its parent, however that ends.

    Args:
        task: What it does, for messages and its name: ``building``.
        begin: Called in it once, with what `given` made; returns what answers. A function of a module.
        given: Makes what can be pickled for `begin`; called in this process, whenever one is started.
    """

    def __init__(
        self, task: str, begin: Callable[..., Answering], given: Callable[[], tuple[Any, ...]] = tuple
    ) -> None:
        self._task, self._begin, self._given = task, begin, given
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Spawned:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends it."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.join(0.2)
            if self._process.is_alive():
                self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def ask(self, *question: Any, seconds: float, meanwhile: Callable[[], None] = renew) -> Any:
        """Its answer.

        Args:
            question: Handed to what answers.
            seconds: It is ended after these.
            meanwhile: Called in this process again and again; by default a sign of life of the step that is open.

        Raises:
            NoAnswer: It ended, or was ended at a limit.
            Exception: What the answering raised.
        """
        pipe = self._started()
        try:
            with suppress(OSError):  # it has ended, which the answer's missing says
                pipe.send(question)
            self._wait(pipe, seconds, meanwhile)
            try:
                answered, answer = pipe.recv()
            except (EOFError, OSError):
                raise self._ended() from None
        except BaseException:  # an interrupt leaves an answer underway that no later question may receive
            self.close()
            raise
        if not answered:
            raise answer
        return answer

    def _wait(self, pipe: Connection, seconds: float, meanwhile: Callable[[], None]) -> None:
        """Waits until there is something to receive, be it the end."""
        assert self._process is not None and self._process.pid is not None
        limit, used, end = memory_limit(), 0, time.monotonic() + seconds
        while not _ready(pipe, min(pause(used, limit), max(0.0, end - time.monotonic()))):
            meanwhile()
            used = memory_used(self._process.pid)
            if used > limit:
                raise NoAnswer("memory", f"the {self._task} process {too_much(used, limit)}")
            if time.monotonic() >= end:
                raise NoAnswer("timeout", f"no result after {seconds:.0f} s; the child was ended")

    def _ended(self) -> NoAnswer:
        assert self._process is not None
        self._process.join(5.0)
        code = self._process.exitcode
        self.close()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            kind = "memory" if name == "SIGKILL" else "crash"
            return NoAnswer(kind, f"the {self._task} process was ended by {name}")
        return NoAnswer("crash", f"the {self._task} process exited with {code}")

    def _started(self) -> Connection:
        if self._pipe is None or self._process is None or not self._process.is_alive():
            self.close()
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            what = (theirs, os.getpid(), self._begin, self._given())
            self._process = context.Process(target=_serve, args=what, name=f"tuner-{self._task}", daemon=True)
            with without_main():
                self._process.start()
            theirs.close()
        return self._pipe


class Descriptor:
    """Among what is given to a process: one of this process's open files, which arrives there as its number.

    `DupFd` does that while a process is started. At any other moment it opens a socket in the folder for temporary
    files, and a socket's path has 108 characters at most (unix(7)).

    Args:
        number: Here.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _arrived, (DupFd(self._number),)


def _arrived(sent: Any) -> int:
    number: int = sent.detach()
    if number > 2:
        return number
    return os.dup(number)  # it may be about to give its own stderr another file


def calling() -> Answering:
    """Answers ``(function, *arguments)``, a function of a module, by calling it."""
    return lambda function, *arguments: function(*arguments)


@contextmanager
def without_main() -> Iterator[None]:
    """Hides the main module from processes that multiprocessing spawns inside the block.

    Spawning imports it again in every child: a script that calls us without ``if __name__ == "__main__"`` would start
    over there. What our children run lies in modules of ours.
    """
    names = sys.modules["__main__"].__dict__
    with _hidden:
        kept = {name: names[name] for name in _SHOWN if name in names}
        names.update(dict.fromkeys(_SHOWN))
        try:
            yield
        finally:
            for name in _SHOWN:
                names.pop(name, None)
            names.update(kept)


def _ready(pipe: Connection, seconds: float) -> bool:
    try:
        return pipe.poll(seconds)
    except (BrokenPipeError, ConnectionError):  # Windows tells of the other end's end so
        return True


def _serve(pipe: Connection, parent: int, begin: Callable[..., Answering], given: tuple[Any, ...]) -> None:
    """The process: answers until the pipe closes or the parent is gone."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    answering = begin(*given)
    while True:
        try:
            question = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = True, answering(*question)
        except Exception as error:
            answer = False, ExceptionWithTraceback(error, error.__traceback__)
        try:
            pipe.send(answer)
        except OSError:
            return


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent was killed: it would disturb what is timed next."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
