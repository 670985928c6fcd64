"""Waiting: says for whom a lock is waited, once that takes long."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from search_spaces.passwords import without_passwords

#: Environment variable that workers of one run share: that they wait for each other is their daily work, and not told.
CREW = "TUNER_CREW"
#: Environment variable with the number of an inherited descriptor that people see. A process whose stderr goes to a log
#: file, as that of a child which evaluates does, would keep a wait to itself.
TOLD = "TUNER_TOLD"
_FIRST_SECONDS = 3.0
_THEN_SECONDS = 30.0
_LONGEST = 200  # characters of a command


class Waiting:
    """One wait for a file lock; says so after 3 s, then every 30 s, where people see it.

    Args:
        device: As people know it, e.g. ``cpu``.
        files: What is locked; the first that another process holds is named.
    """

    def __init__(self, device: str, *files: Path) -> None:
        self._device = device
        self.files = files
        self._start = time.monotonic()
        self._next = self._start + _FIRST_SECONDS

    def say(self) -> None:
        """Says it where it is time; call it as often as you like."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _THEN_SECONDS
        if not _are_crew(self._held()[1]):
            line = f"waiting for {self}; this goes on once it is free\n"
            with suppress(OSError):  # nobody looks any more
                os.write(told(), line.encode(errors="backslashreplace"))

    def __str__(self) -> str:
        """What is waited for, for how long so far, and who holds it."""
        file, pids = self._held()
        who = " and ".join(map(_named, pids)) or "another process"
        return f"the device {self._device!r}, {time.monotonic() - self._start:.0f} s so far: {who} holds {file}"

    def _held(self) -> tuple[Path, tuple[int, ...]]:
        found = [(file, holders(file)) for file in self.files]
        return next((pair for pair in found if pair[1]), found[0])


def told() -> int:
    """The descriptor that people see: that of `TOLD`, else stderr's."""
    number = os.environ.get(TOLD, "")
    return int(number) if number.isdecimal() else 2


@contextmanager
def crew() -> Iterator[None]:
    """While it lasts, this process and all that it starts are one, and do not say that they wait for each other."""
    if CREW in os.environ:
        yield
        return
    os.environ[CREW] = uuid.uuid4().hex
    try:
        yield
    finally:
        del os.environ[CREW]


def holders(file: Path) -> tuple[int, ...]:
    """Ids of the processes that hold a lock of `flock` on a file; none where the system does not tell.

    Linux lists locks in ``/proc/locks`` by device and inode (proc(5)); processes that only wait are marked ``->``.
    """
    try:
        status = file.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ()
    rows = [line.split() for line in lines if "->" not in line]
    rows = [row for row in rows if len(row) >= 6 and row[1] == "FLOCK" and row[5].endswith(f":{status.st_ino}")]
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    same = [row for row in rows if row[5] == place]
    # A layered file system shows another device there than to its users; the inode is then all that there is.
    found = {int(row[4]) for row in same or rows}
    return tuple(sorted(pid for pid in found if pid > 0))


def _are_crew(pids: Iterable[int]) -> bool:
    crew = os.environ.get(CREW)
    return bool(crew) and {_crew_of(pid) for pid in pids} == {crew}


def _crew_of(pid: int) -> str | None:
    try:
        return psutil.Process(pid).environ().get(CREW)
    except (psutil.Error, OSError):
        return None


def _named(pid: int) -> str:
    command = without_passwords(" ".join(_command(pid).split()))
    command = "".join(character if character.isprintable() else "?" for character in command)
    shown = command if len(command) <= _LONGEST else f"{command[:_LONGEST]}..."
    return f"process {pid} ({shown})" if shown else f"process {pid}"


def _command(pid: int) -> str:
    """What somebody typed: a process that multiprocessing started is told by its parent's command."""
    try:
        process: psutil.Process | None = psutil.Process(pid)
        while process is not None:
            command: list[str] = process.cmdline()
            if not any("multiprocessing" in part for part in command):
                return " ".join(command)
            process = process.parent()
    except (psutil.Error, OSError):
        pass
    return ""
