"""What every command shares: JSON on stdout, words on stderr, exit codes."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from search_spaces.errors import InputError
from search_spaces.passwords import without_passwords
from tuner.terminal.signals import Interrupted
from tuner.terminal.words import DISK, OWN_LIMITS, of_system, of_text, one_line, shown

DONE, CRASHED, BAD_INPUT, ENVIRONMENT, FAILURES, STORAGE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


def say(text: str) -> None:
    """Writes a line for people, to stderr."""
    with suppress(BrokenPipeError):  # nobody listens any more
        print(shown(text), file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """Writes a line for people to stdout, of an answer that holds names from elsewhere."""
    print(shown(text))


def show(data: Any) -> None:
    """Writes one JSON object to stdout."""
    print(json.dumps(data), flush=True)


def show_table(head: list[str], rows: list[list[str]], left: set[str] | None = None) -> None:
    """Writes a table for people to stdout, as wide as it needs to be where stdout is no terminal."""
    lines = [[" ".join(shown(str(cell)).split()) for cell in line] for line in [head, *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = [
            cell.ljust(width) if name in (left or set()) else cell.rjust(width)
            for name, cell, width in zip(head, line, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())


def guarded(work: Callable[[], None]) -> int:
    """Runs a command and turns its errors into one line on stderr and an exit code."""
    try:
        _escape_what_is_unknown()
        with _without_arithmetic():
            try:
                work()
            finally:
                _flush()
    except InputError as error:
        return _fail(BAD_INPUT, error)
    except Interrupted as error:
        say("tuner: interrupted" + (f"; {error.way_on}" if error.way_on else ""))
        return error.exit_code
    except KeyboardInterrupt:
        say("tuner: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # as of `| head`
        return DONE
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Click's own way with it
            return DONE
        raise
    except Exception as error:
        code = _code(error)
        if code is None:  # a fault of ours, which a report of it should show whole
            say(without_passwords(traceback.format_exc()).rstrip())
            return CRASHED
        return _fail(code, error)
    return DONE


@contextmanager
def _without_arithmetic() -> Iterator[None]:
    """Leaves out numpy's warnings of overflow and NaN: a model's numbers are looked at where they matter, in words.

    `python -W` and PYTHONWARNINGS bring them back.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _flush() -> None:
    """Sends what is left to stdout, which may refuse it: now, and not once more when the interpreter ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise


def _replace_closed_streams() -> None:
    """Puts the null device in place of streams that are closed.

    Their numbers would go to the next files that are opened, and messages would be written into those.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _escape_what_is_unknown() -> None:
    """Has a terminal that knows few characters show the others as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
    if isinstance(error, OSError):
        own = ENVIRONMENT if error.errno in OWN_LIMITS or isinstance(error, ConnectionError) else BAD_INPUT
        return STORAGE if error.errno in DISK else own
    return BAD_INPUT if isinstance(error, UnicodeError) else None


def _fail(code: int, error: BaseException) -> int:
    cause = error.__cause__ if code == STORAGE else None  # Optuna tells what it did, SQLAlchemy what went wrong
    text = f"{error} ({cause})" if cause is not None else str(error) or type(error).__name__
    if isinstance(error, OSError):
        text = of_system(error)
    elif isinstance(error, UnicodeError):
        text = of_text(error)
    say(f"tuner: error: {one_line(text)}")
    return code


_replace_closed_streams()  # before anything of ours opens a file
