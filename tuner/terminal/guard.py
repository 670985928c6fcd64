"""A command works in a process of its own, which this one watches: whatever ends it comes back as one line.

The process is forked before anything but the command line's own modules is imported. That is sound, and costs a
millisecond: there is one thread, so nobody else holds a lock, and no native library has been loaded whose threads,
handles or CUDA contexts would not live through it. Both stay in one process group and share the terminal, so Ctrl-C and
Ctrl-Z reach both as they reach any job.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from search_spaces.errors import InputError
from search_spaces.limits import (
    SECONDS_VARIABLE,
    Board,
    memory_limit,
    memory_used,
    pause,
    scratch_prefix,
    too_much,
    watch_by,
)
from tuner.terminal.console import guarded

_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} if hasattr(signal, "SIGHUP") else set()
_FROM_KERNEL = 0x80  # si_code of what the terminal sends, to all of the group (sigaction(2))
_PR_SET_PDEATHSIG = 1  # prctl(2)


def watched(work: Callable[[], int]) -> int:
    """Runs a command in a child and watches over it; returns its exit code.

    A program that has threads cannot be forked soundly, and Windows cannot fork: there the command runs in the calling
    process, without limits.

    Args:
        work: The command; returns an exit code.
    """
    if not hasattr(os, "fork") or _threads() > 1:
        return work()
    try:
        limit = memory_limit()
    except InputError as error:
        return _refused(error)
    board, parent = Board(), os.getpid()
    _flush()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        _end_with(parent)
        watch_by(board)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _leave(work)
    return _Watch(child, board, limit).end()


class _Watch:
    """Watches over one child.

    Args:
        child: Its process id.
        board: What it is at.
        limit: Bytes of memory.
    """

    def __init__(self, child: int, board: Board, limit: int) -> None:
        self._child, self._board, self._limit = child, board, limit
        self._step, self._waited = board.read(), 0.0

    def end(self) -> int:
        """Waits for its end; returns the exit code of this process."""
        used = 0
        while True:
            before = time.monotonic()
            wait = pause(used, self._limit)
            self._forward(wait)
            ended, status = os.waitpid(self._child, os.WNOHANG)
            if ended:
                return self._code(status)
            used = memory_used(self._child)
            # However long this process was stopped itself (Ctrl-Z, a laptop's lid): so was the child.
            hung = self._hung(min(time.monotonic() - before, 2 * wait))
            if used > self._limit or hung:
                self._kill()
                return self._say(too_much(used, self._limit) if used > self._limit else hung)

    def _forward(self, seconds: float) -> None:
        """Waits, at most until the child ends, and passes on what asks this process to end."""
        signum, sent_to_all = _heard(seconds)
        if signum in _ENDING and not sent_to_all:
            os.kill(self._child, signum)

    def _hung(self, seconds: float) -> str:
        """What to say of a step that gave no sign of life for its time; empty while that is not over."""
        now = self._board.read()
        self._waited = self._waited + seconds if now.signs == self._step.signs else 0.0
        self._step = now
        if self._waited < now.seconds:
            return ""
        return (
            f"is not done after {now.seconds:.0f} s; use a smaller file or image size, or set {SECONDS_VARIABLE} to "
            "more"
        )

    def _code(self, status: int) -> int:
        if not os.WIFSIGNALED(status):
            return os.WEXITSTATUS(status)
        signum = signal.Signals(os.WTERMSIG(status))
        self._step = self._board.read()
        if signum in _ENDING:  # as it was asked to, before the command had a better answer
            signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})
            os.kill(os.getpid(), signum)
        if signum == signal.SIGKILL:
            return self._say("was ended by SIGKILL, as the system does where memory runs out; free some, or use less")
        return self._say(
            f"ended its process by {signum.name}: native code cannot take it; export the file again, or make it anew"
        )

    def _say(self, what: str) -> int:
        for left in Path(tempfile.gettempdir()).glob(f"{scratch_prefix(self._child)}*"):
            shutil.rmtree(left, ignore_errors=True)
        return _refused(InputError(f"{self._step.text or 'the command'} {what}"))

    def _kill(self) -> None:
        """Ends the child and all that it started, which its end alone might not end."""
        import psutil

        try:
            started = psutil.Process(self._child).children(recursive=True)
        except psutil.Error:
            started = []
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        for process in started:
            with suppress(psutil.Error):
                process.kill()


def _refused(error: InputError) -> int:
    """Tells it as every command tells its errors."""

    def refuse() -> None:
        raise error

    return guarded(refuse)


def _heard(seconds: float) -> tuple[int, bool]:
    """The next of the blocked signals, 0 for none in time, and whether the terminal sent it, to the child as well."""
    kinds = {*_ENDING, signal.SIGCHLD}
    if hasattr(signal, "sigtimedwait"):
        found = signal.sigtimedwait(kinds, seconds)
        return (found.si_signo, found.si_code == _FROM_KERNEL) if found else (0, False)
    end = time.monotonic() + seconds
    while not (waiting := signal.sigpending() & kinds) and time.monotonic() < end:
        time.sleep(0.02)
    # macOS does not tell who sent it: Ctrl-C, where there is a terminal.
    return (signum := signal.sigwait(waiting) if waiting else 0), signum == signal.SIGINT and sys.stderr.isatty()


def _leave(work: Callable[[], int]) -> None:
    """Works, and ends this process as an interpreter ends, but never returns into what called the parent."""
    code = 1
    try:
        code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        _flush()
        os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed at the other end, here, or from the beginning
            stream.flush()


def _end_with(parent: int) -> None:
    """Has this process end with its parent, however that ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_poll, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _poll(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()
