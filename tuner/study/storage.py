"""Optuna's storage of a run: SQLite tuned for many small commits, or a storage URL of the user's."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import event

from search_spaces.errors import InputError
from tuner.study import sqlite
from tuner.study.storage_url import PASSWORD, connectable, detach_password, shown_url, sqlite_file, storage_url


def open_storage(database: Path, url: str | None = None, *, pooled: bool = False, create: bool = True) -> RDBStorage:
    """Opens the storage of a run.

    Args:
        database: The run's SQLite file.
        url: A storage URL that takes its place.
        pooled: Keeps connections open from query to query, for many of them; `close_storage` ends them. Without it,
            nothing stays open: a connection that outlives its command would write its log back into a database file
            that was replaced meanwhile.
        create: Makes it where there is none yet. Whoever only reads a run does not: the run may be somebody else's,
            and names what it likes. A database that this user may not write is then read without any trace.

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
        sqlite.check_sqlite(file)
        if not file.exists():
            if not create:
                raise InputError(f"storage {shown_url(target)!r}: no such file; `tuner run STUDY.yaml` creates it")
            sqlite.create(file, _fill)
        # The file that was checked, whatever characters are in its path, and only as long as it is there.
        opener = sqlite.connect if create or sqlite.writable(file) else sqlite.connect_reading
        engine_kwargs["creator"] = partial(opener, file.absolute())
    try:
        if file is not None:
            storage = RDBStorage("sqlite://", engine_kwargs=engine_kwargs, skip_table_creation=not create)
        else:
            storage = RDBStorage(connectable(target), engine_kwargs=engine_kwargs, skip_table_creation=not create)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError, ValueError, KeyError, IndexError) as error:
        raise _not_opened(target, file, error) from None
    except optuna.exceptions.StorageInternalError as error:
        if file is None and isinstance(error.__cause__, sqlalchemy.exc.OperationalError):
            raise _not_opened(target, file, error.__cause__) from None
        if create:
            raise
        raise InputError(f"storage {shown_url(target)!r}: holds no study; `tuner run STUDY.yaml` makes one") from None
    if create:
        event.listen(storage.engine, "connect", _write_ahead)
    event.listen(storage.engine, "connect", _tune_sqlite)
    storage.engine.dispose()  # connections opened before the listener was there
    return storage


def check_kept(database: Path, url: str | None) -> None:
    """Refuses a run whose database lay outside its folder and is gone: whoever goes on with a run makes none there.

    Args:
        database: The run's own SQLite file, which may be made anew.
        url: A storage URL that takes its place.

    Raises:
        InputError: It names a file that is not there.
    """
    file = sqlite_file(url) if url is not None else None
    if file is not None and not os.path.lexists(file) and file.resolve().parent != database.resolve().parent:
        raise InputError(
            f"storage {shown_url(url or '')!r}: no such file; restore it, or start the study anew with `tuner run`"
        )


def close_storage(storage: RDBStorage) -> None:
    """Ends all connections of a storage."""
    storage.remove_session()
    storage.engine.dispose()


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


def _not_opened(target: str, file: Path | None, error: Exception) -> InputError:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    advice = "check `storage` in the study file"
    if file is None:
        advice += f"; a run keeps no password: set {PASSWORD}, or what the driver reads, as ~/.pgpass"
    return InputError(f"storage {shown_url(target)!r}: cannot be opened ({line}); {advice}")


def _fill(file: Path) -> None:
    """Makes Optuna's tables in an empty SQLite file."""
    kwargs = {"poolclass": sqlalchemy.NullPool, "creator": partial(sqlite.connect, file.absolute())}
    close_storage(RDBStorage("sqlite://", engine_kwargs=kwargs))


def _write_ahead(connection: Any, _: object) -> None:
    """With WAL and synchronous=NORMAL a commit costs no fsync, and a killed process loses none."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA journal_mode=WAL")


def _tune_sqlite(connection: Any, _: object) -> None:
    """What lasts as long as a connection.

    A transaction that writes takes the write lock when it begins: one that reads first and writes later is refused at
    once, without any waiting, where another writer came in between (https://www.sqlite.org/isolation.html).
    """
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA synchronous=NORMAL")


def run_of(url: str, name: str | None = None) -> Path:
    """Returns the run folder of a storage's study; workers on other hosts see it by the same path.

    Args:
        url: Of the storage.
        name: Of the study; needed where the storage holds several.

    Raises:
        InputError: The storage cannot be opened, the study is not there, or its folder is not to be seen from here.
    """
    url = detach_password(url) or url  # the run's study file names the same storage, without it
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
