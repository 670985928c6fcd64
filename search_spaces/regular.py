"""Files of a folder that somebody else may have filled: regular ones alone are opened, and no link is followed.

A link would have us read or write elsewhere, and a FIFO has whoever opens it wait for ever.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from search_spaces.errors import InputError

FILE, FOLDER = "a file", "a folder"
MAX_BYTES = 1 << 28  # of a file that a run keeps beside models and weights
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: FOLDER,
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
# Windows knows none of them: there is no FIFO to wait for, and links are seen before anything is opened.
_NO_WAY_OUT = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_BINARY = getattr(os, "O_BINARY", 0)


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading, and nothing else.

    Args:
        path: The file. Links on the way to its folder are followed.

    Raises:
        InputError: It is a link, a folder, a FIFO, a socket or a device.
        OSError: It is not there, or cannot be read.
    """
    return os.fdopen(_opened(path, os.O_RDONLY), "rb")


def read_regular(path: Path, limit: int | None = MAX_BYTES) -> bytes:
    """All bytes of a regular file.

    Args:
        path: The file.
        limit: Bytes that it may hold; None for files that may be as large as models are.

    Raises:
        InputError: As `open_regular`; or it is larger, which is asked before it is read, or grows beyond meanwhile.
        OSError: As `open_regular`.
    """
    with open_regular(path) as file:
        if limit is None:
            return file.read()
        size, data = os.fstat(file.fileno()).st_size, b""
        if size <= limit:
            data = file.read(limit + 1)
            size = len(data)
    if size > limit:
        raise InputError(f"{path}: {size} bytes is too large (at most {limit}); restore or delete it")
    return data


def open_appending(path: Path) -> BinaryIO:
    """Opens a regular file, which is made where it is missing, to read all of it and to add at its end.

    Raises:
        InputError: Something else has its name.
        OSError: It cannot be written.
    """
    return os.fdopen(_opened(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "ab+")


def open_shared(path: Path) -> int:
    """Opens a regular file that all users of the machine may write, and makes it where it is missing.

    Returns:
        Its descriptor.

    Raises:
        InputError: Something else has its name.
        OSError: It cannot be written.
    """
    handle = _opened(path, os.O_RDWR | os.O_CREAT, 0o666)
    if hasattr(os, "fchmod") and os.fstat(handle).st_uid == os.getuid():
        os.fchmod(handle, 0o666)  # whatever the umask is
    return handle


def shared_folder(path: Path) -> Path:
    """Makes a folder that all users of the machine may write, where it is missing; returns it.

    Raises:
        InputError: Something else has its name.
        OSError: It cannot be made.
    """
    with suppress(FileExistsError):
        path.mkdir()
    state = path.lstat()
    if (found := kind_of(state.st_mode)) != FOLDER:
        raise InputError(f"{path}: is {found} where a folder belongs; remove it")
    if hasattr(os, "getuid") and state.st_uid == os.getuid():
        path.chmod(0o777)
    return path


def _opened(path: Path, flags: int, mode: int = 0o644) -> int:
    _refuse_odd(path)  # opening alone makes some devices act
    try:
        handle = os.open(path, flags | _NO_WAY_OUT | _BINARY, mode)
    except OSError:
        _refuse_odd(path)  # it came in between
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise InputError(f"{path}: not a regular file; put the file itself in its place")


def _refuse_odd(path: Path) -> None:
    try:
        found = kind_of(path.lstat().st_mode)
    except OSError:
        return
    if found != FILE:
        raise InputError(f"{path}: is {found} where a file belongs; put the file itself in its place")


def kind_of(mode: int) -> str:
    """What a `st_mode` stands for, in words: `FILE`, `FOLDER`, or what is neither."""
    return _KINDS.get(stat.S_IFMT(mode), "a device")


def entries(root: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Everything below a folder, each folder before what it holds; no link is followed.

    What vanishes meanwhile, as other processes' temporary files do, is passed over. Whoever takes the next entry agrees
    to the last one: nothing is read below a folder before.

    Args:
        root: The folder.

    Yields:
        Its parts below the root, and its kind as `kind_of` says it.

    Raises:
        OSError: A folder cannot be read.
    """
    pending: list[tuple[str, ...]] = [()]
    while pending:
        above = pending.pop()
        try:
            found = list(os.scandir(root.joinpath(*above)))
        except FileNotFoundError:
            continue
        for entry in found:
            parts = (*above, entry.name)
            if entry.is_file(follow_symlinks=False):  # no further call to the system, for all but odd ones
                yield parts, FILE
                continue
            try:
                kind = kind_of(entry.stat(follow_symlinks=False).st_mode)
            except FileNotFoundError:
                continue
            yield parts, kind
            if kind == FOLDER:
                pending.append(parts)
