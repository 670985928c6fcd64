"""Who may use a device right now: many at once to build and to evaluate, one alone to time.

Two files per device in the machine's folder for temporary files, locked by `flock`, which the kernel ends with the
process. Whoever wants in passes the turnstile first; one that wants the device alone keeps it shut while those inside
finish, so that a stream of evaluations cannot keep a measurement waiting for ever. Who waits for long says for whom.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

import psutil
from filelock import FileLock, Timeout

from objectives.devices.waiting import Waiting
from search_spaces.limits import renew
from search_spaces.regular import open_shared, read_regular, shared_folder

if sys.platform != "win32":
    import fcntl

_POLL_SECONDS = 0.01
_PATIENCE_SECONDS = 1.0  # of one try on Windows, where a lock is waited for outside this module


class _Place(threading.local):
    """What this thread holds of each device: the file, and the modes of its nested uses."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[int, list[bool]]] = {}


_place = _Place()
_registered: set[Path] = set()


class DeviceTimeout(TimeoutError):
    """Others kept a device for longer than one is ready to wait; says who."""

    @classmethod
    def of(cls, waiting: Waiting) -> DeviceTimeout:
        """The error of a wait that is given up."""
        return cls(f"gave up waiting for {waiting}; end it, or try again when it is done")


@contextmanager
def device_lock(device: str, timeout: float = 3600.0, *, shared: bool = False) -> Iterator[None]:
    """Holds a device, across all processes and threads of this machine.

    The thread that holds it may enter again. One that holds it shared and wants it alone lets go of it first, so two
    such threads do not wait for each other.

    Args:
        device: Identifies the device, e.g. ``cpu`` or a GPU's UUID.
        timeout: Seconds to wait.
        shared: Whether others may hold it shared meanwhile.

    Raises:
        DeviceTimeout: Others kept the device.
    """
    _register(device)
    if sys.platform == "win32":  # it has no shared file locks: every use is alone there, slower and as right
        lock = FileLock(_path(device, "lock"), mode=0o666, is_singleton=True)
        _acquire(lock, device, time.monotonic() + timeout)
        try:
            yield
        finally:
            lock.release()
        return
    if device not in _place.open:
        _place.open[device] = (open_shared(_path(device, "lock")), [])
    file, modes = _place.open[device]
    try:
        if not modes or (not shared and all(modes)):
            _take(file, device, timeout, shared)
        modes.append(shared)
        try:
            yield
        finally:
            modes.pop()
            if modes and not shared and all(modes):
                _take(file, device, timeout, True)
    finally:
        if not modes:
            del _place.open[device]
            os.close(file)


def give_way(device: str, timeout: float = 3600.0) -> None:
    """Lets those in that wait to have the device alone, and returns when they are done.

    For long work that shares the device, at moments when it has nothing running there: an engine's build takes minutes,
    and a measurement need not wait for its end. Does nothing where nobody waits, or this thread does not share it.

    Args:
        device: As `device_lock` names it.
        timeout: Seconds to wait until it is shared again.

    Raises:
        DeviceTimeout: Others kept the device.
    """
    file, modes = _place.open.get(device, (-1, []))
    if not modes or not all(modes):
        return
    turnstile = open_shared(_path(device, "turnstile"))
    try:
        fcntl.flock(turnstile, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        _take(file, device, timeout, True)
    finally:
        os.close(turnstile)


def device_users(device: str) -> frozenset[int]:
    """Process ids of all that ever held the device and still live: they work under its lock, so are no strangers.

    Args:
        device: As `device_lock` names it.
    """
    found = set()
    for path in shared_folder(_path(device, "users")).glob("*"):
        if not path.name.isdecimal():  # about to be one
            continue
        try:
            if psutil.Process(int(path.name)).create_time() == float(read_regular(path, 64)):
                found.add(int(path.name))
                continue
        except (psutil.Error, ValueError, OSError):
            pass
        path.unlink(missing_ok=True)
    return frozenset(found)


def _take(file: int, device: str, timeout: float, shared: bool) -> None:
    """Waits at the turnstile, then for the device itself."""
    end = time.monotonic() + timeout
    fcntl.flock(file, fcntl.LOCK_UN)
    turnstile = open_shared(_path(device, "turnstile"))
    waiting = Waiting(device, _path(device, "lock"), _path(device, "turnstile"))
    try:
        _wait(turnstile, fcntl.LOCK_EX, end, waiting)
        _wait(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, end, waiting)
    finally:
        os.close(turnstile)


def _wait(file: int, mode: int, end: float, waiting: Waiting) -> None:
    while True:
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise DeviceTimeout.of(waiting) from None
            waiting.say()
            renew()
            time.sleep(_POLL_SECONDS)


def _acquire(lock: FileLock, device: str, end: float) -> None:
    """Waits for a lock of the other kind."""
    waiting = Waiting(device, _path(device, "lock"))
    while True:
        try:
            lock.acquire(timeout=min(_PATIENCE_SECONDS, max(0.0, end - time.monotonic())))
            return
        except Timeout:
            if time.monotonic() >= end:
                raise DeviceTimeout.of(waiting) from None
            waiting.say()


def _register(device: str) -> None:
    """Leaves this process's id beside the lock; its start time tells it from a later process of the same id."""
    path = shared_folder(_path(device, "users")) / str(os.getpid())
    if path in _registered and path.exists():
        return
    _registered.add(path)
    whole = path.with_name(f"{path.name}.{threading.get_ident()}")
    whole.unlink(missing_ok=True)
    with whole.open("x") as file:
        file.write(repr(psutil.Process().create_time()))
    whole.replace(path)  # never there without its time; what a process of this id or somebody else left is replaced
    atexit.register(path.unlink, missing_ok=True)


def _path(device: str, kind: str) -> Path:
    return Path(gettempdir()) / f"tuner-{device}.{kind}"
