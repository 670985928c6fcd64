"""Who waits for a device says for whom: the holder is a real process that locks the file, tuner's or not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from objectives.devices import waiting
from objectives.devices.lock import DeviceTimeout, device_lock
from objectives.devices.waiting import CREW, crew, holders
from tuner.terminal.console import ENVIRONMENT, guarded

pytestmark = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not tell who holds a lock")
Holder = Callable[..., subprocess.Popen[str]]

_LOCKED = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_SH if "shared" in sys.argv else fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(CREW, raising=False)


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Holder]:
    """Starts a process that holds a file for so many seconds."""
    started = []
    (tmp_path / "another_study.py").write_text(_LOCKED)

    def start(name: str, seconds: float, *how: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(tmp_path / "another_study.py"), str(tmp_path / name), str(seconds), *how, "a\nb"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_wait_is_told_after_three_seconds_with_holder_and_file(
    hold: Holder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    process = hold("tuner-cpu.lock", 3.6)
    with device_lock("cpu", timeout=60):
        pass
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and f"process {process.pid} (" in lines[0] and "another_study.py" in lines[0]
    assert str(tmp_path / "tuner-cpu.lock") in lines[0]


@pytest.mark.parametrize(("name", "how"), [("tuner-gpu.turnstile", ""), ("tuner-gpu.lock", "shared")])
def test_whoever_keeps_a_device_is_named_and_again_while_it_lasts(
    hold: Holder,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    how: str,
) -> None:
    monkeypatch.setattr(waiting, "_FIRST_SECONDS", 0.1)
    monkeypatch.setattr(waiting, "_THEN_SECONDS", 0.1)
    process = hold(name, 60, how)
    with pytest.raises(DeviceTimeout, match=f"gave up .*process {process.pid}"), device_lock("gpu", timeout=1.0):
        pass
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) > 1 and all(f"process {process.pid} (" in line and name in line for line in lines)


def test_giving_up_is_one_line_of_a_command(hold: Holder, capfd: pytest.CaptureFixture[str]) -> None:
    hold("tuner-cpu.lock", 60)

    def work() -> None:
        with device_lock("cpu", timeout=0.1):
            pass

    assert guarded(work) == ENVIRONMENT
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("tuner: error: gave up waiting for the device 'cpu'")


def test_workers_of_one_run_wait_for_each_other_in_silence(
    hold: Holder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_FIRST_SECONDS", 0.0)
    with crew():
        hold("tuner-cpu.lock", 0.5)
        with device_lock("cpu", timeout=60):
            pass
        assert capfd.readouterr().err == ""
        hold("tuner-cpu.lock", 0.5, **{CREW: "another run"})
        with device_lock("cpu", timeout=60):
            pass
        assert "another_study.py" in capfd.readouterr().err
    assert CREW not in os.environ


def test_holders_are_those_that_hold_and_not_those_that_wait(hold: Holder, tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    assert holders(file) == ()
    first = hold("a.lock", 60, "shared")
    second = hold("a.lock", 60, "shared")
    command = [sys.executable, "-c", _LOCKED, str(file), "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as waits:
        end = time.monotonic() + 20
        while f"-> FLOCK  ADVISORY  WRITE {waits.pid} " not in Path("/proc/locks").read_text():
            assert time.monotonic() < end and waits.poll() is None
            time.sleep(0.01)
        assert holders(file) == tuple(sorted((first.pid, second.pid)))
        waits.kill()
