from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from search_spaces.errors import InputError
from tuner.study.storage import close_storage, open_storage, run_of


def test_sqlite_commits_without_fsync(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "study.db")
    optuna.create_study(storage=storage, study_name="a").ask()
    with storage.engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar() == 1
    assert optuna.get_all_study_names(open_storage(tmp_path / "study.db")) == ["a"]


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()


def text(path: Path) -> None:
    path.write_text("These are not the trials you are looking for.")


def torn(path: Path) -> None:
    optuna.create_study(storage=open_storage(path), study_name="a").ask()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 12] = b"\xa5" * (4096 * 11)
    path.write_bytes(data)
    for extra in path.parent.glob("study.db-*"):
        extra.unlink()


def misnamed(path: Path) -> None:
    """A table whose name is not UTF-8."""
    extended(path, "CREATE TABLE marker (x)")
    path.write_bytes(path.read_bytes().replace(b"marker", b"mar\xffer"))


def misspelt(path: Path) -> None:
    """A statement that SQLite cannot read; its message quotes the name, which is not UTF-8."""
    extended(path, "CREATE TABLE marker (x)")
    path.write_bytes(
        path.read_bytes().replace(b"CREATE TABLE marker", b"CREATE XABLE marker").replace(b"marker", b"mar\xffer")
    )


def triggered(path: Path) -> None:
    extended(path, "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM trials; END")


def viewed(path: Path) -> None:
    numbers = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
    extended(path, f"CREATE VIEW endless AS {numbers}")


def extended(path: Path, statement: str) -> None:
    """A sound study with one statement more."""
    optuna.create_study(storage=open_storage(path), study_name="a").ask()
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (foreign, "not of a study"),
        (text, "not a SQLite database"),
        (torn, "damaged SQLite"),
        (misnamed, "is no text"),
        (misspelt, "is no text"),
        (triggered, "it holds 't'"),
        (viewed, "it holds 'endless'"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, damage, part: str) -> None:
    path = tmp_path / "study.db"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=part):
        open_storage(path)
    assert path.read_bytes() == before


def test_a_bad_url_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        open_storage(tmp_path / "study.db", "nosuchdb://host/name")


def test_opening_the_file_once_more_leaves_a_writers_locks_alone(tmp_path: Path) -> None:
    """A reader that leaves must not take itself for the last one and remove the log that the writer goes on in."""
    database = tmp_path / "study.db"
    writer = open_storage(database, pooled=True)
    study = optuna.create_study(study_name="s", storage=writer, directions=["maximize", "minimize"])
    study.add_trial(optuna.trial.create_trial(values=[1.0, 2.0]))
    assert open_storage(database).get_all_studies()  # as a report does at the end of a run, in its process
    reader = f"import sqlite3; c = sqlite3.connect({str(database)!r}); c.execute('select * from trials'); c.close()"
    subprocess.run([sys.executable, "-c", reader], check=True)
    assert (tmp_path / "study.db-wal").exists()
    study.add_trial(optuna.trial.create_trial(values=[3.0, 4.0]))
    close_storage(writer)
    assert len(optuna.load_study(study_name="s", storage=open_storage(database)).trials) == 2


@pytest.mark.parametrize("value", ["5", "{"])
def test_a_study_whose_folder_is_no_text_is_one_line(tmp_path: Path, value: str) -> None:
    optuna.create_study(storage=open_storage(tmp_path / "study.db"), study_name="a").set_user_attr("folder", "runs/a")
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE study_user_attributes SET value_json = ?", (value,))
    connection.close()
    with pytest.raises(InputError, match="holds what no study of ours holds"):
        run_of(f"sqlite:///{tmp_path}/study.db")
