"""A study on a full disk: exit code 5, no half file, and nothing acknowledged is lost once there is room again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from audited import prepare

from tuner.results.loaded import load_run

TUNER = [sys.executable, "-m", "tuner"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB; mounting one needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system of limited size can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_study_with_5_and_loses_nothing(small_disk: Path) -> None:
    path = prepare(small_disk / "study", "full", 40, 0.0, None)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096) == 4096:
            pass
    done = subprocess.run([*TUNER, "resume", path], capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.strip().splitlines()[-1].startswith("tuner: error: ")
    assert not list(path.rglob(".*-????????"))
    kept = {file.stem for file in (path / "cache" / "evaluations").glob("*.json")}
    ballast.unlink()
    again = subprocess.run([*TUNER, "resume", path], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    records = load_run(path).records
    assert kept <= {record.allocation.digest for record in records if record.scores}
    assert {record.state for record in records} <= {"COMPLETE", "FAIL"}
    for file in (path / "cache" / "evaluations").glob("*.json"):
        json.loads(file.read_text())
