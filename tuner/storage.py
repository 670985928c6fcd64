"""Optuna's storage of a run: SQLite tuned for many small commits, or a storage URL of the user's."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import event

from search_spaces.errors import InputError

_HEADER = b"SQLite format 3\0"
_BUSY_SECONDS = 60


def storage_url(database: Path, url: str | None) -> str:
    """Returns the study's storage URL: the user's, or SQLite in the run folder."""
    return url or f"sqlite:///{database.resolve()}"


def open_storage(database: Path, url: str | None = None) -> RDBStorage:
    """Opens the storage of a run, creating it where there is none yet.

    Args:
        database: The run's SQLite file.
        url: A storage URL that takes its place.

    Raises:
        InputError: The file is not a SQLite database of Optuna's, or damaged; the URL cannot be opened.
            Nothing is written in that case.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    target = storage_url(database, url)
    if target.startswith("sqlite:///"):
        check_sqlite(Path(target.removeprefix("sqlite:///")))
    engine_kwargs = {"connect_args": {"timeout": _BUSY_SECONDS}} if target.startswith("sqlite") else {}
    try:
        storage = RDBStorage(target, engine_kwargs=engine_kwargs)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        advice = "check `storage` in the study file"
        raise InputError(f"storage {target!r}: cannot be opened ({line}); {advice}") from None
    event.listen(storage.engine, "connect", _tune_sqlite)
    storage.engine.dispose()  # connections opened before the listener was there
    return storage


def _tune_sqlite(connection: Any, _: object) -> None:
    """WAL and synchronous=NORMAL: a commit costs no fsync, and a killed process loses none."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")


def check_sqlite(path: Path) -> None:
    """Checks an existing SQLite file without changing it.

    Raises:
        InputError: It is not a SQLite database, is damaged, or holds something else than Optuna studies.
    """
    if not path.exists():
        return
    advice = "it was left as it is; move it away or choose another --run DIR"
    try:
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    if header and header != _HEADER:
        raise InputError(f"{path}: not a SQLite database; {advice}")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
        try:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in names}
            state = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InputError(f"{path}: damaged SQLite database ({error}); {advice}") from None
    if state != "ok":
        raise InputError(f"{path}: damaged SQLite database ({state.splitlines()[0]}); {advice}")
    if tables and not {"studies", "trials", "version_info"} <= tables:
        raise InputError(f"{path}: a SQLite database, but not of a study; {advice}")
