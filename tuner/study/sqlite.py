"""SQLite files of a study: checked before they are opened, made whole, and read where they cannot be written."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from search_spaces.durable import sync_folder, write_durably
from search_spaces.errors import InputError
from search_spaces.limits import scratch
from search_spaces.regular import read_regular

_BUSY_SECONDS = 60
_FILE_MODE = 0o644


def connect(file: Path, mode: str = "rw") -> sqlite3.Connection:
    """Opens an existing file, whatever characters are in its path.

    Args:
        file: The database.
        mode: As SQLite's URIs name it, with further parameters.
    """
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)


def writable(file: Path) -> bool:
    """Whether this user may write to a database, which takes its folder as well: its log lies there."""
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def connect_reading(file: Path) -> sqlite3.Connection:
    """Opens a database that this user may not write, and writes nothing beside it.

    One that writes ahead cannot simply be opened: SQLite would make an index of its log. Where there is no log, nobody
    is writing, and the file is read as it is. Where there is one, its index is shared with whoever writes; where that
    is missing, as in the copy of a run that was killed, database and log are read in a copy.
    """
    log = Path(f"{file}-wal")
    if not log.exists() or not log.stat().st_size:
        return connect(file, "ro&immutable=1")
    connection = connect(file, "ro")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError:
        connection.close()
    with scratch() as folder:
        for part in ("", "-wal"):
            write_durably(Path(folder, f"copy{part}"), read_regular(Path(f"{file}{part}"), None))
        memory = sqlite3.connect(":memory:", check_same_thread=False)
        with closing(connect(Path(folder, "copy"))) as copy:
            copy.backup(memory)
    return memory


def create(file: Path, fill: Callable[[Path], None]) -> None:
    """Makes a database beside its place and moves it there: whoever dies meanwhile leaves none, rather than half.

    Args:
        file: Where to; another process that is faster wins.
        fill: Fills the empty database of a path.

    Raises:
        InputError: The folder cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    except OSError as error:
        raise InputError(f"storage {str(file)!r}: cannot be made ({error.strerror}); choose another place") from None
    os.close(handle)
    made = Path(name)
    try:
        fill(made)
        made.chmod(_FILE_MODE)
        try:
            os.link(made, file)
        except FileExistsError:  # another process was faster, and works with its own
            pass
        except OSError:  # no hard links here
            made.replace(file)
    finally:
        made.unlink(missing_ok=True)
    sync_folder(file.parent)


def check_sqlite(path: Path) -> None:
    """Checks an existing SQLite file without changing it.

    Raises:
        InputError: It is not a SQLite database, is damaged, or holds something else than Optuna studies.
        sqlite3.OperationalError: The disk is full, or fails.
    """
    advice = "it was left as it is; move it away or choose another --run DIR"
    # SQLite follows links, and obeys what lies beside a database: a rollback journal may name another file to delete.
    # Ours are made in another folder entry and write ahead, so none has such a journal.
    for beside in ("", "-wal", "-shm", "-journal"):
        part = path.with_name(path.name + beside)
        try:
            found = part.lstat()
        except FileNotFoundError:  # the last to close a database removes what lies beside it
            continue
        if beside == "-journal" and found.st_size:
            raise InputError(f"{part}: a rollback journal, which no study leaves; {advice}")
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{part}: not a regular file; {advice}")
    if not path.exists():
        if os.path.lexists(f"{path}-wal"):  # it would be played back into another database
            raise InputError(f"{path}-wal: the log of a database that is gone; restore {path.name}, or move it away")
        return
    # SQLite alone may open the file: closing any other handle on it drops all locks that this process holds there
    # (https://www.sqlite.org/howtocorrupt.html, 2.2), and the next reader to leave removes the log of a living writer.
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise InputError(f"{path}: cannot be read; {advice}")
    try:
        connection = connect(path, "ro") if writable(path) else connect_reading(path)
        try:
            named = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
            tables = {name for kind, name in named if kind == "table"}
            code = [name for kind, name in named if kind in ("view", "trigger")]
            state = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
    except (UnicodeDecodeError, sqlite3.OperationalError) as error:
        if "decode" in str(error):
            raise InputError(f"{path}: damaged SQLite database (a name in it is no text); {advice}") from None
        # The disk's fault, not the file's.
        raise sqlite3.OperationalError(
            f"{path}: {error}; make room or check the disk and its owner, then resume"
        ) from None
    except sqlite3.Error as error:
        if "not a database" in str(error):
            raise InputError(f"{path}: not a SQLite database; {advice}") from None
        raise InputError(f"{path}: damaged SQLite database ({error}); {advice}") from None
    if state != "ok":
        raise InputError(f"{path}: damaged SQLite database ({state.splitlines()[0]}); {advice}")
    if code:  # it would run with our own statements, and may never end
        raise InputError(f"{path}: a SQLite database, but not of a study: it holds {code[0]!r}; {advice}")
    if tables and not {"studies", "trials", "version_info"} <= tables:
        raise InputError(f"{path}: a SQLite database, but not of a study; {advice}")
