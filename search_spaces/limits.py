"""Limits of time and memory for what native code does with a file of anybody's.

Shape inference, a runtime's session or an image decoder may crash, spin or fill the memory, and no handler of errors in
the same process could stop that. So a command works in a process that another one watches (`tuner.terminal.guard`), and
says here what it is at: a step has a time in which it must end or give a sign of life.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import InputError

MEMORY_VARIABLE = "TUNER_MEMORY_GIB"
SECONDS_VARIABLE = "TUNER_STEP_SECONDS"
GIB = 1 << 30
STEP_SECONDS = 300.0  # a detector of 500 MB is read in 20 s; one inference of the largest ones takes a minute
MEMORY_SHARE = 0.75  # of the machine's
_FASTEST = 16 * GIB  # bytes a second; nobody fills memory faster, so the next look may wait as long as that takes
_RECORD = struct.Struct("=QdI")  # signs of life, seconds of the step, bytes of its text; the text follows


@dataclass(frozen=True)
class Step:
    """What a command is at.

    Attributes:
        signs: Counts its signs of life.
        seconds: After which without a sign it counts as hung; infinite where no step is open.
        text: ``FILE: WHAT``; empty where no step is open.
    """

    signs: int
    seconds: float
    text: str


class Board:
    """A page of memory that a process and its children by fork share: one writes what it is at, the other reads it."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._signs = 0
        self.write(float("inf"), "")

    def write(self, seconds: float, text: str) -> None:
        """Puts up a step, which is a sign of life too."""
        data = text.encode("utf-8", "surrogateescape")[: mmap.PAGESIZE - _RECORD.size]
        self._signs += 1
        self._page[: _RECORD.size + len(data)] = _RECORD.pack(self._signs, seconds, len(data)) + data

    def renew(self) -> None:
        """Gives a sign of life."""
        self._signs += 1
        struct.pack_into("=Q", self._page, 0, self._signs)

    def read(self) -> Step:
        """What is up now."""
        signs, seconds, length = _RECORD.unpack_from(self._page)
        text = bytes(self._page[_RECORD.size : _RECORD.size + length])
        return Step(signs, seconds, text.decode("utf-8", "replace"))


_board: Board | None = None
_open: list[tuple[float, str]] = [(float("inf"), "")]


def watch_by(board: Board) -> None:
    """From here on this process says on the board what it is at."""
    global _board  # noqa: PLW0603 - a process has one watcher, as it has one parent
    _board = board


@contextmanager
def step(file: Path | str, what: str, seconds: float = STEP_SECONDS) -> Iterator[None]:
    """Work that must end, or give a sign of life, in so many seconds; ends the command otherwise, where it is watched.

    Steps within a step have times of their own. Only the main thread's count.

    Args:
        file: What it works on; errors of the user's input that do not name it are given its name.
        what: The work, e.g. ``reading its graph``.
        seconds: Its time; `SECONDS_VARIABLE` overrules it.

    Raises:
        InputError: As the work raised it, or the variable is no number.
    """
    watched = _board is not None and threading.current_thread() is threading.main_thread()
    if watched:
        _open.append((_number(SECONDS_VARIABLE, seconds), f"{file}: {what}"))
        _show()
    try:
        yield
    except InputError as error:
        if str(file) not in str(error):
            error.args = (f"{file}: {error}",)
        raise
    finally:
        if watched:
            _open.pop()
            _show()


def renew() -> None:
    """Gives a sign of life of the step that is open."""
    if _board is not None:
        _board.renew()


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for temporary files; the watcher removes it where this process no longer can."""
    return tempfile.TemporaryDirectory(prefix=scratch_prefix(os.getpid()))


def scratch_prefix(pid: int) -> str:
    """How the names of a process's temporary folders begin."""
    return f"tuner-{pid}-"


def memory_limit() -> int:
    """Bytes that one process of a command may hold: `MEMORY_VARIABLE` in GiB, else a share of the machine's.

    Raises:
        InputError: The variable is no positive number.
    """
    return int(min(_number(MEMORY_VARIABLE, MEMORY_SHARE * _machine_bytes() / GIB) * GIB, sys.maxsize))  # inf: no limit


def memory_used(pid: int) -> int:
    """Bytes that a process holds for itself alone; 0 where it has ended.

    Pages of files do not count: the system takes them back when it needs them, and preprocessed images are such.
    """
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(fields[1]) - int(fields[2])) * mmap.PAGESIZE
    except FileNotFoundError:
        return 0 if Path("/proc/self").exists() else _resident(pid)
    except (OSError, IndexError):  # it ends right now
        return 0


def pause(used: int, limit: int) -> float:
    """Seconds until memory could be filled to the limit, and it must be looked at again."""
    return min(max((limit - used) / _FASTEST, 0.02), 0.5)


def too_much(used: int, limit: int) -> str:
    """The words for a process beyond its limit, with the remedy."""
    return (
        f"took {used / GIB:.1f} GiB of memory, and {limit / GIB:.1f} GiB is the limit here; use a smaller file, image "
        f"size or batch, or set {MEMORY_VARIABLE} to more"
    )


def _show() -> None:
    if _board is not None:
        _board.write(*_open[-1])


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise InputError(f"{variable}={text!r}: must be a number above 0; correct it in the environment")
    return value


def _machine_bytes() -> int:
    """Memory of this machine, or of the container that this process lives in."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups, version 2 and 1
        try:
            found.append(int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return min(found)


def _resident(pid: int) -> int:
    import psutil  # where /proc is missing, the only way

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
