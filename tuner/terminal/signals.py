"""Ctrl-C and SIGTERM end a run between two durable states, never within one."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Interrupted(BaseException):
    """The user or the system asked to end; like KeyboardInterrupt, no handler of errors may swallow it.

    Attributes:
        signum: SIGINT or SIGTERM.
        way_on: What is left, and the command that goes on; empty where nothing was begun.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.way_on = ""

    def __str__(self) -> str:
        """The signal, and the way on where it is known: a Python program shows nothing else of it."""
        return "; ".join(filter(None, (signal.Signals(self.signum).name, self.way_on)))

    @property
    def exit_code(self) -> int:
        """130 or 143, as a shell reports them."""
        return 128 + self.signum


class Interrupts:
    """Catches the signals; raises `Interrupted` only inside `allowed`, or at the second signal."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._open = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """A stretch of work that may be cut short anywhere.

        Raises:
            Interrupted: A signal came, before or within.
        """
        if self.signum is not None:
            raise Interrupted(self.signum)
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def _caught(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, signum
        if self._open or again:
            self._open = False
            raise Interrupted(signum)


def end_with_parent() -> None:
    """Has SIGTERM end this process soon after the process that started it is gone: its end of our stdin closes then."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
