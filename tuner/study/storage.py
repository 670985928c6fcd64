"""Optuna's storage of a run: SQLite tuned for many small commits, or a storage URL of the user's."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import event

from search_spaces.durable import sync_folder
from search_spaces.errors import InputError

_BUSY_SECONDS = 60
_FILE_MODE = 0o644


def storage_url(database: Path, url: str | None) -> str:
    """Returns the study's storage URL, for messages: the user's, or SQLite in the run folder."""
    return url or f"sqlite:///{database.resolve()}"


def sqlite_file(url: str) -> Path | None:
    """The file that a storage URL names; None of a server's URL.

    Raises:
        InputError: It is no URL, or one of SQLite's that does not name a file and nothing else.
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise InputError(f"storage {url!r}: not a URL; give sqlite:///FILE, postgresql+psycopg://... or null") from None
    if parsed.get_backend_name() != "sqlite":
        return None
    name = parsed.database or ""
    if parsed.drivername != "sqlite" or parsed.query or parsed.host or name.startswith((":", "file:")) or not name:
        raise InputError(f"storage {shown_url(url)!r}: more than a file; give sqlite:///FILE without driver or options")
    return Path(name)


def open_storage(database: Path, url: str | None = None, *, pooled: bool = False, create: bool = True) -> RDBStorage:
    """Opens the storage of a run.

    Args:
        database: The run's SQLite file.
        url: A storage URL that takes its place.
        pooled: Keeps connections open from query to query, for many of them; `close_storage` ends them. Without it,
            nothing stays open: a connection that outlives its command would write its log back into a database file
            that was replaced meanwhile.
        create: Makes it where there is none yet. Whoever only reads a run does not: the run may be somebody else's,
            and names what it likes.

    Raises:
        InputError: The file is not a SQLite database of Optuna's, or damaged, or not there; the URL cannot be opened.
            Nothing is written in that case.
        sqlite3.OperationalError: The disk is full, or fails.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what goes wrong is raised; it need not be said twice
    file = sqlite_file(url) if url is not None else database
    target = storage_url(database, url)
    engine_kwargs: dict[str, Any] = {"poolclass": sqlalchemy.QueuePool if pooled else sqlalchemy.NullPool}
    if file is not None:
        check_sqlite(file)
        if not file.exists():
            if not create:
                raise InputError(f"storage {shown_url(target)!r}: no such file; `tuner run STUDY.yaml` creates it")
            _create(file)
        # The file that was checked, whatever characters are in its path, and only as long as it is there.
        engine_kwargs["creator"] = partial(_connect, file.resolve(), "rw")
    try:
        if file is not None:
            storage = RDBStorage("sqlite://", engine_kwargs=engine_kwargs, skip_table_creation=not create)
        else:
            storage = RDBStorage(target, engine_kwargs=engine_kwargs, skip_table_creation=not create)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError, ValueError, KeyError, IndexError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = "check `storage` in the study file"
        raise InputError(f"storage {shown_url(target)!r}: cannot be opened ({line}); {advice}") from None
    except optuna.exceptions.StorageInternalError:
        if create:
            raise
        raise InputError(f"storage {shown_url(target)!r}: holds no study; `tuner run STUDY.yaml` makes one") from None
    event.listen(storage.engine, "connect", _tune_sqlite)
    storage.engine.dispose()  # connections opened before the listener was there
    return storage


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    uri = f"{file.as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False)


def _create(file: Path) -> None:
    """Makes the database beside its place and moves it there: whoever dies meanwhile leaves none, rather than half."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    except OSError as error:
        raise InputError(f"storage {str(file)!r}: cannot be made ({error.strerror}); choose another place") from None
    os.close(handle)
    made = Path(name)
    try:
        kwargs = {"poolclass": sqlalchemy.NullPool, "creator": partial(_connect, made.resolve(), "rw")}
        close_storage(RDBStorage("sqlite://", engine_kwargs=kwargs))
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


def close_storage(storage: RDBStorage) -> None:
    """Ends all connections of a storage."""
    storage.remove_session()
    storage.engine.dispose()


def shown_url(url: str) -> str:
    """A storage URL without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


@contextmanager
def damage_named(database: Path, url: str | None) -> Iterator[None]:
    """Turns what Optuna and SQLAlchemy raise over values that no study holds into one line.

    Raises:
        InputError: The block met such a value.
    """
    try:
        yield
    except InputError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        where = shown_url(storage_url(database, url))
        raise InputError(f"storage {where!r}: holds what no study of ours holds ({reason}); restore it") from None


def _tune_sqlite(connection: Any, _: object) -> None:
    """WAL and synchronous=NORMAL: a commit costs no fsync, and a killed process loses none.

    A transaction that writes takes the write lock when it begins: one that reads first and writes later is refused at
    once, without any waiting, where another writer came in between (https://www.sqlite.org/isolation.html).
    """
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")


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
        if not os.path.lexists(part):
            continue
        if beside == "-journal" and part.lstat().st_size:
            raise InputError(f"{part}: a rollback journal, which no study leaves; {advice}")
        if not stat.S_ISREG(part.lstat().st_mode):
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
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
        try:
            found = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
            tables = {name for kind, name in found if kind == "table"}
            code = [name for kind, name in found if kind in ("view", "trigger")]
            state = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
    except (UnicodeDecodeError, sqlite3.OperationalError) as error:
        if "decode" in str(error):
            raise InputError(f"{path}: damaged SQLite database (a name in it is no text); {advice}") from None
        # The disk's fault, not the file's.
        raise sqlite3.OperationalError(f"{path}: {error}; make room or check the disk, then resume") from None
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


def run_of(url: str, name: str | None = None) -> Path:
    """Returns the run folder of a storage's study; workers on other hosts see it by the same path.

    Args:
        url: Of the storage.
        name: Of the study; needed where the storage holds several.

    Raises:
        InputError: The storage cannot be opened, the study is not there, or its folder is not to be seen from here.
    """
    storage = open_storage(Path(), url, create=False)
    with damage_named(Path(), url):
        found = ((study.study_name, study.user_attrs) for study in storage.get_all_studies())
        folders = {study: Path(facts["folder"]) for study, facts in found if "folder" in facts}
    if name is None and len(folders) > 1:
        raise InputError(f"storage {shown_url(url)!r}: holds {len(folders)} studies; choose one with --study NAME")
    if not folders or (name is not None and name not in folders):
        known = ", ".join(folders) or "none of ours"
        raise InputError(f"storage {shown_url(url)!r}: no study {name or ''!r}; it holds {known}")
    folder = folders[name or next(iter(folders))]
    if not folder.is_dir():
        raise InputError(f"run folder {str(folder)!r} is not to be seen from this host; share it under the same path")
    return folder
