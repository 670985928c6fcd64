"""The one durable writer: whatever it replaces is, after a crash, as it was before or as it was meant to be."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search_spaces.regular import open_appending

_FILE_MODE, _FOLDER_MODE = 0o644, 0o755


def write_durably(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, and its folder where that is missing.

    Args:
        path: The file. A link is replaced by a file of its own; what it points to stays as it is.
        content: Text is written as UTF-8, line ends as they are.

    Raises:
        OSError: It cannot be written; what was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable_file(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def durable_file(path: Path, mode: int | None = _FILE_MODE) -> Iterator[Path]:
    """Puts a file in place once it is complete, for writers that want a path or a stream of their own.

    Args:
        path: The file, in a folder that exists.
        mode: Permission bits; None leaves those that the writer gave.

    Yields:
        An empty file beside it, to write to or to replace. It takes the name of `path` when the block ends, after both
        it and its folder are on the disk; when the block raises it is removed, and `path` stays as it was.

    Raises:
        OSError: It cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        if mode is not None:
            draft.chmod(mode)
        _sync_file(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def durable_folder(path: Path) -> Iterator[Path]:
    """Puts a folder in place once all its files are written.

    Args:
        path: The folder: missing, or empty.

    Yields:
        A folder beside it, whose files `write_durably` is to write. It takes the name of `path` when the block ends;
        when the block raises it is removed.

    Raises:
        OSError: It cannot be written, or `path` is a folder with something in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        draft.chmod(_FOLDER_MODE)
        yield draft
        if path.is_dir():
            path.rmdir()
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_folder(path.parent)


def append_durably(path: Path, line: str) -> None:
    """Appends one line to a file, on a line of its own even where a crash cut the last one short.

    Args:
        path: The file; made with its folder where it is missing.
        line: Without its end.

    Raises:
        InputError: A link, a folder or a FIFO has its name.
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open_appending(path) as file:
        begin = ""
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            begin = "" if file.read(1) == b"\n" else "\n"
        file.write(f"{begin}{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def _sync_file(path: Path) -> None:
    with path.open("rb" if os.name == "posix" else "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Makes a new name durable; only POSIX opens folders."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
