"""Passwords of storage URLs: in no file of a run, in no message, and found again where the run is resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
from private_postgres import binaries, private_postgres

from search_spaces.errors import InputError
from tuner.study.storage_url import PASSWORD, connectable, detach_password, shown_url, sqlite_file
from tuner.study.study_file import read_study

TUNER = [sys.executable, "-m", "tuner"]
BARE = "postgresql+psycopg://tuner@db.example:5432/studies"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "")


@pytest.mark.parametrize(
    ("url", "bare", "secret"),
    [
        ("postgresql+psycopg://tuner:s3cret@db.example:5432/studies", BARE, "s3cret"),
        (f"{BARE}?password=s3cret", BARE, "s3cret"),
        (
            "postgresql+psycopg://tuner:s3%40cret@h/d?connect_timeout=9",
            "postgresql+psycopg://tuner@h/d?connect_timeout=9",
            "s3@cret",
        ),
        (BARE, BARE, ""),
        ("postgresql+psycopg://tuner:@db.example:5432/studies", BARE, ""),
        ("sqlite:///a b/%41?.db", "sqlite:///a b/%41?.db", ""),
    ],
)
def test_a_password_leaves_the_url_for_the_environment(url: str, bare: str, secret: str) -> None:
    assert detach_password(url) == bare
    assert os.environ[PASSWORD] == secret
    if secret:
        assert secret not in shown_url(url) and shown_url(url) == bare
        assert sqlalchemy.make_url(connectable(bare)).password == secret
    assert detach_password(None) is None


def test_a_url_that_is_none_is_told_without_what_may_be_a_password() -> None:
    for url in ("postgresql://u:s3cret@h:port/d", "://u:s3cret@h", "postgresql://u:a@s3cret@h/d", "u:s3cret@h/d"):
        with pytest.raises(InputError, match="not a URL") as caught:
            sqlite_file(url)
        assert "s3cret" not in str(caught.value)


@pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed")
@pytest.mark.timeout(300)
def test_a_run_on_a_server_keeps_no_password(study_file: Callable[..., Path], tmp_path: Path) -> None:
    with private_postgres() as url:
        secret = str(sqlalchemy.make_url(url).password)
        study, run = study_file(search={"trials": 3}, storage=url), tmp_path / "run"
        free = {key: value for key, value in os.environ.items() if key != PASSWORD}

        def call(*command: object, **more: str) -> subprocess.CompletedProcess[str]:
            command = (*TUNER, *map(str, command))
            return subprocess.run(command, capture_output=True, text=True, check=False, env=free | more)  # type: ignore[arg-type]

        started = call("run", study, "--run", run, "--workers", "2")
        assert started.returncode == 0, started.stderr
        refused = call("status", run)
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1, refused.stderr
        assert PASSWORD in refused.stderr and "~/.pgpass" in refused.stderr
        assert call("status", run, **{PASSWORD: "wrong"}).returncode == 2
        for found in ({PASSWORD: secret}, {"PGPASSWORD": secret}):
            assert call("status", run, **found).returncode == 0
        assert call("resume", run, "--trials", "4", **{PASSWORD: secret}).returncode == 0
        assert read_study(run / "study.yaml").storage == shown_url(url)
        said = started.stderr + started.stdout + refused.stderr
        assert secret not in said
        for path in run.rglob("*"):
            assert path.is_dir() or secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("url", ["sqlite:////", "sqlite:///x.db%00"])
def test_a_url_of_sqlites_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="names no file"):
        sqlite_file(url)
