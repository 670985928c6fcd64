"""What every command shares: JSON on stdout, words on stderr, exit codes."""

from __future__ import annotations

import errno
import json
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from search_spaces.errors import InputError
from tuner.terminal.signals import Interrupted

DONE, BAD_INPUT, ENVIRONMENT, FAILURES, STORAGE, INTERRUPTED = 0, 2, 3, 4, 5, 130
_LONGEST = 1000  # characters of an error
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def say(text: str) -> None:
    """Writes a line for people, to stderr."""
    print(text, file=sys.stderr, flush=True)


def show(data: Any) -> None:
    """Writes one JSON object to stdout."""
    print(json.dumps(data), flush=True)


def show_table(head: list[str], rows: list[list[str]], left: set[str] | None = None) -> None:
    """Writes a table for people to stdout, as wide as it needs to be where stdout is no terminal."""
    widths = [max(len(str(line[i])) for line in [head, *rows]) for i in range(len(head))]
    for line in [head, *rows]:
        cells = [
            str(cell).ljust(width) if name in (left or set()) else str(cell).rjust(width)
            for name, cell, width in zip(head, line, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())


def guarded(work: Callable[[], None]) -> int:
    """Runs a command and turns its errors into one line on stderr and an exit code."""
    try:
        work()
    except InputError as error:
        return _fail(BAD_INPUT, error)
    except Interrupted as error:
        say("tuner: interrupted" + (f"; {error.way_on}" if error.way_on else ""))
        return error.exit_code
    except KeyboardInterrupt:
        say("tuner: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return DONE
    except Exception as error:
        code = _code(error)
        if code is None:
            raise
        return _fail(code, error)
    return DONE


def _code(error: Exception) -> int | None:
    name = type(error).__name__
    if name == "RepeatedFailureError":
        return FAILURES
    if name in ("WorkerStorageError", "ArtifactStoreError"):
        return STORAGE
    if name in ("RuntimeUnavailable", "CudaError", "DeviceTimeout") or isinstance(error, ImportError | MemoryError):
        return ENVIRONMENT
    module = type(error).__module__
    if isinstance(error, sqlite3.Error) or module.startswith("sqlalchemy") or name == "StorageInternalError":
        return STORAGE
    if isinstance(error, OSError) and error.errno in _DISK:
        return STORAGE
    if isinstance(error, IsADirectoryError | NotADirectoryError):  # a file of a run's in the wrong shape
        return BAD_INPUT
    return None


def _fail(code: int, error: BaseException) -> int:
    cause = error.__cause__ if code == STORAGE else None  # Optuna tells what it did, SQLAlchemy what went wrong
    text = f"{error} ({cause})" if cause is not None else str(error) or type(error).__name__
    say(f"tuner: error: {_one_line(text)}")
    return code


def _one_line(text: str) -> str:
    """A message as one line of a terminal: it may quote what a stranger wrote."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
