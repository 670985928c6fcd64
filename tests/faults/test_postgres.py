"""Workers that share a study on a PostgreSQL server of this test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from audited import prepare
from kill_workers import kill_workers
from private_postgres import binaries, private_postgres

from tuner.results.loaded import load_run
from tuner.search.trials import counted


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a server."""
    pytest.importorskip("psycopg", reason="no driver: pip install 'psycopg[binary]'")
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with private_postgres() as url:
        yield url


def test_worker_processes_share_a_study(server: str, tmp_path: Path) -> None:
    path = prepare(tmp_path / "study", "shared", 20, 0.02, server)
    command = [sys.executable, "-m", "tuner", "resume", path, "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = load_run(path).records
    assert counted(records) == 20 and {record.state for record in records} == {"COMPLETE"}
    assert max(Counter(record.allocation.digest for record in records).values()) == 1


@pytest.mark.slow
def test_kills_lose_nothing(server: str, tmp_path: Path) -> None:
    tally = kill_workers(tmp_path / "kills", 8, workers=2, trials=30, longest=0.8, storage=server, seed=os.getpid())
    assert tally.kills == 8 and tally.acknowledged >= 30
    assert (tally.lost, tally.twice, tally.running) == (0, 0, 0)
