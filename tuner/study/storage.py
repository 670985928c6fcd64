"""Optuna's storage of a run: SQLite tuned for many small commits, or a storage URL of the user's."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import event

from search_spaces.errors import InputError

_BUSY_SECONDS = 60


def storage_url(database: Path, url: str | None) -> str:
    """Returns the study's storage URL: the user's, or SQLite in the run folder."""
    return url or f"sqlite:///{database.resolve()}"


def open_storage(database: Path, url: str | None = None, *, pooled: bool = False) -> RDBStorage:
    """Opens the storage of a run, creating it where there is none yet.

    Args:
        database: The run's SQLite file.
        url: A storage URL that takes its place.
        pooled: Keeps connections open from query to query, for many of them; `close_storage` ends them. Without it,
            nothing stays open: a connection that outlives its command would write its log back into a database file
            that was replaced meanwhile.

    Raises:
        InputError: The file is not a SQLite database of Optuna's, or damaged; the URL cannot be opened.
            Nothing is written in that case.
        sqlite3.OperationalError: The disk is full, or fails.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what goes wrong is raised; it need not be said twice
    target = storage_url(database, url)
    if target.startswith("sqlite:///"):
        check_sqlite(Path(target.removeprefix("sqlite:///")))
    engine_kwargs: dict[str, Any] = {} if pooled else {"poolclass": sqlalchemy.NullPool}
    if target.startswith("sqlite"):
        engine_kwargs["connect_args"] = {"timeout": _BUSY_SECONDS}
    try:
        storage = RDBStorage(target, engine_kwargs=engine_kwargs)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        advice = "check `storage` in the study file"
        raise InputError(f"storage {shown_url(target)!r}: cannot be opened ({line}); {advice}") from None
    event.listen(storage.engine, "connect", _tune_sqlite)
    storage.engine.dispose()  # connections opened before the listener was there
    return storage


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
    if not path.exists():
        return
    advice = "it was left as it is; move it away or choose another --run DIR"
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
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise InputError(f"storage {url!r}: no such file; `tuner run STUDY.yaml` creates it")
    storage = open_storage(Path(), url)
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
