"""A study that waits for a device says so where people look, though children and workers have logs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_study import write_tiny_study

TUNER = [sys.executable, "-m", "tuner"]
# The lock is held by a child that multiprocessing started: it is told by what its parent's command was.
_OTHER = """
import multiprocessing, sys, time
from objectives.devices.lock import device_lock
def hold(seconds):
    with device_lock("cpu"):
        print("held", flush=True)
        time.sleep(seconds)
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=hold, args=(float(sys.argv[1]),))
    child.start()
    child.join()
"""


@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not tell who holds a lock")
def test_a_study_tells_for_whom_its_children_and_workers_wait(tmp_path: Path) -> None:
    timing = {"warmup_ms": 1.0, "min_seconds": 0.01, "max_cov": 9.0}
    study = write_tiny_study(tmp_path, "waits", formats=["fp16", "int8"], timing=timing, search={"trials": 1})
    (tmp_path / "another_study.py").write_text(_OTHER)
    place = {**os.environ, "TMPDIR": str(tmp_path)}
    for command in (
        ["run", study, "--run", tmp_path / "run"],
        ["resume", tmp_path / "run", "--trials", 3, "--workers", 2],
    ):
        holding = [sys.executable, tmp_path / "another_study.py", "600", "postgresql://u:s3cret@h/d"]
        with subprocess.Popen(holding, stdout=subprocess.PIPE, text=True, env=place) as other:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            said = tmp_path / "said"
            with said.open("w") as stderr:
                tuner = subprocess.Popen(
                    [*TUNER, *map(str, command)], stdin=subprocess.DEVNULL, stderr=stderr, env=place
                )
            end = time.monotonic() + 120
            while "waiting for the device 'cpu'" not in said.read_text():
                assert tuner.poll() is None and time.monotonic() < end, said.read_text()
                time.sleep(0.1)
            for process in subprocess.run(
                ["ps", "--ppid", str(other.pid), "-o", "pid="], capture_output=True, text=True, check=True
            ).stdout.split():
                os.kill(int(process), 9)
            other.kill()
        assert tuner.wait() == 0, said.read_text()
        [line, *_] = [line for line in said.read_text().splitlines() if line.startswith("waiting for")]
        assert "another_study.py" in line and str(tmp_path / "tuner-cpu.lock") in line and "s3cret" not in line
