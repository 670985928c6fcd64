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


@pytest.mark.parametrize(
    "name", ["a?timeout=5", "50%41", "{SCHEMA_VERSION}", "{", "a b#c", b"\xff".decode(errors="surrogateescape")]
)
def test_any_path_is_a_file(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    optuna.create_study(storage=open_storage(folder / "study.db"), study_name="a")
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == [folder / "study.db"]
    assert optuna.get_all_study_names(open_storage(folder / "study.db", create=False)) == ["a"]


@pytest.mark.parametrize(
    "form", ["sqlite+pysqlite:///{}", "sqlite:///{}?timeout=5", "sqlite:///file:{}", "sqlite:///:memory:", "sqlite://"]
)
def test_a_url_of_sqlites_names_a_file_and_nothing_else(tmp_path: Path, form: str) -> None:
    with pytest.raises(InputError, match="without driver or options"):
        open_storage(tmp_path / "study.db", form.format(tmp_path / "x.db"))
    assert not list(tmp_path.iterdir())


def test_a_reader_makes_no_database(tmp_path: Path) -> None:
    for url in (None, f"sqlite:///{tmp_path}/elsewhere.db"):
        with pytest.raises(InputError, match="no such file"):
            open_storage(tmp_path / "study.db", url, create=False)
    sqlite3.connect(tmp_path / "empty.db").close()
    with pytest.raises(InputError, match="holds no study"):
        open_storage(tmp_path / "empty.db", create=False)
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("empty.db", 0)]


def test_a_rollback_journal_is_not_obeyed(tmp_path: Path) -> None:
    """One that names a super-journal has SQLite delete the file of that name."""
    database, victim = tmp_path / "study.db", tmp_path / "victim"
    optuna.create_study(storage=open_storage(database), study_name="a")
    victim.write_text("mine")
    name = str(victim).encode()
    magic = bytes([0xD9, 0xD5, 0x05, 0xF9, 0x20, 0xA1, 0x63, 0xD7])
    header = magic + (0).to_bytes(4, "big") * 2 + (1).to_bytes(4, "big") + (512).to_bytes(4, "big") * 2
    check = (sum(name) & 0xFFFFFFFF).to_bytes(4, "big")
    end = (1).to_bytes(4, "big") + name + len(name).to_bytes(4, "big") + check + magic
    (tmp_path / "study.db-journal").write_bytes(header.ljust(512, b"\0") + end)
    with pytest.raises(InputError, match="a rollback journal"):
        open_storage(database, create=False)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("part", ["", "-wal", "-shm"])
def test_what_lies_elsewhere_is_not_followed(tmp_path: Path, part: str) -> None:
    database, other = tmp_path / "study.db", tmp_path / "other.db"
    optuna.create_study(storage=open_storage(other), study_name="a")
    if part:
        optuna.create_study(storage=open_storage(database), study_name="a")
    Path(f"{database}{part}").symlink_to(other)
    with pytest.raises(InputError, match="not a regular file"):
        open_storage(database)


def test_a_log_without_its_database_is_not_played_into_another(tmp_path: Path) -> None:
    (tmp_path / "study.db-wal").write_bytes(b"x")
    with pytest.raises(InputError, match="database that is gone"):
        open_storage(tmp_path / "study.db")


def test_a_database_appears_whole(tmp_path: Path) -> None:
    """A process that is killed while it makes one leaves none, which the next one then makes."""
    code = (
        "import os, sys, optuna.storages._rdb.storage as rdb\n"
        "from pathlib import Path\n"
        "from tuner.study.storage import open_storage\n"
        "rdb._VersionManager._init_alembic = lambda self: os._exit(9)\n"
        "open_storage(Path(sys.argv[1]))"
    )
    database = tmp_path / "study.db"
    assert subprocess.run([sys.executable, "-c", code, str(database)], check=False).returncode == 9
    assert not database.exists()
    optuna.create_study(storage=open_storage(database), study_name="a")
