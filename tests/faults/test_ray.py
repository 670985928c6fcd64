"""Workers on a Ray cluster of two nodes: whatever dies, nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from audited import prepare
from private_postgres import binaries
from ray_nodes import own_network

pytest.importorskip("ray", reason="the extra `ray` is not installed")

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.slow,
    pytest.mark.skipif(not own_network(), reason="no network namespace can be made here (unshare, ip)"),
]
SCRIPT = Path(__file__).with_name("ray_nodes.py")


def strike(*arguments: str) -> dict:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])  # what Ray says comes before


def assert_nothing_lost(found: dict, trials: int) -> None:
    assert found["trials"] >= trials and found["acknowledged"] >= trials
    assert [found[key] for key in ("lost", "twice", "running", "unsound", "given_up")] == [0] * 5


@pytest.mark.parametrize("how", ["machine", "raylet"])
def test_a_study_outlives_a_node(how: str) -> None:
    found = strike("--how", how, "--trials", "80")
    assert found["status"] == 0, found["said"]
    assert_nothing_lost(found, 80)
    assert found["victims"] >= 1 and found["replaced"] >= found["victims"]
    assert found["states_after"].get("RUNNING", 0) == 0


def test_a_signal_ends_the_workers_everywhere() -> None:
    found = strike("--how", "sigterm", "--trials", "80")
    assert found["status"] == 143 and found["said"].startswith("tuner: interrupted")
    assert found["victims"] == 4 and found["seconds_to_end"] < 5 and found["states_after"].get("RUNNING", 0) == 0
    assert_nothing_lost(found, 80)


def test_workers_end_with_the_command_that_placed_them() -> None:
    found = strike("--how", "sigkill", "--trials", "80")
    assert found["status"] == -9 and found["victims"] == 4
    assert_nothing_lost(found, 80)


@pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed")
def test_two_addresses_share_a_study_on_postgresql() -> None:
    found = strike("--hosts", "2", "--postgres", "--trials", "80")
    assert found["status"] == 0, found["said"]
    assert_nothing_lost(found, 80)


def test_sqlite_is_refused_on_nodes_of_other_hosts() -> None:
    found = strike("--hosts", "2")
    assert found["status"] == 2 and "127.0.0.2" in found["said"] and "postgresql" in found["said"]


@pytest.mark.parametrize(
    ("address", "said"), [("127.0.0.1:1", "nobody answers"), ("ray://x:1", "must be HOST:PORT"), ("x", "HOST:PORT")]
)
def test_an_address_without_a_cluster_is_refused(tmp_path: Path, address: str, said: str) -> None:
    run = prepare(tmp_path / "study", "addressed", 5, 0.0, None)
    command = [sys.executable, "-m", "tuner", "resume", run, "--ray", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_worker_sees_the_gpu_that_ray_gave_it() -> None:
    command = [*own_network(), sys.executable, SCRIPT.with_name("ray_gpus.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["seen"] == ["0", "1"] and found["status"] == [2, 2]
    assert all("not a run" in text and "on node" in text for text in found["said"])
