"""While a stranger's checkpoint is put together: no connection, no process, no file written but in a folder for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError
from search_spaces.limits import scratch

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events of Python's audit hooks (its documentation, "Audit events table"), with which of their arguments are changed.
_PATHS = {
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.link": (0, 1),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.utime": (0,),
    "shutil.rmtree": (0,),
}
_NEVER = frozenset({
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.startfile",
    "os.system",
    "pty.spawn",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.sendto",
    "subprocess.Popen",
    "urllib.Request",
    "webbrowser.open",
})  # fmt: skip

_room: str | None = None
_heard: list[str] = []
_installed = False


@contextmanager
def shut(path: Path) -> Iterator[None]:
    """Keeps what a checkpoint makes from acting, as far as Python's audit hooks see it; works in a temporary folder.

    The hook stays, as all do, and lets everything pass outside of this block.

    Args:
        path: The checkpoint.

    Raises:
        InputError: It tried to act, whatever became of the attempt.
    """
    global _room, _installed  # noqa: PLW0603 - an audit hook is the process's
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    before = Path.cwd()
    with scratch() as folder:
        os.chdir(folder)
        _heard.clear()
        _room = os.path.realpath(folder)
        try:
            yield
        except Exception:
            if not _heard:
                raise
        finally:
            _room = None
            os.chdir(before)
    if _heard:
        raise InputError(
            f"{path}: refused: it tried to act when it was put together ({_heard[0]}); get it from its maker"
        )


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _room is None:
        return
    if event in _NEVER:
        _refuse(event, arguments)
    elif event == "socket.bind":  # libraries do when they are imported, to learn of IPv6
        raise PermissionError(event)
    elif event == "open":
        name, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and isinstance(name, (str, bytes, os.PathLike)):
            _check(event, name)
    elif event in _PATHS:
        for name in (arguments[index] for index in _PATHS[event]):
            if isinstance(name, (str, bytes, os.PathLike)):
                _check(event, name)


def _check(event: str, name: str | bytes | os.PathLike[Any]) -> None:
    place = os.path.realpath(os.fsdecode(name))
    cached = "__pycache__" in place or place == os.devnull  # of an import, which goes on without
    if not place.startswith(f"{_room}{os.sep}") and place != _room:
        if cached:
            raise PermissionError(f"{event}: {place}")
        _refuse(event, (place,))


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    told = [os.fsdecode(each) if isinstance(each, bytes) else str(each) for each in arguments]
    said = f"{event} {' '.join(text[:80] for text in told)}"
    _heard.append(said[:200])
    raise PermissionError(said)
