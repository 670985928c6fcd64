"""Runs that this user may read and not write, and ways to a run that nobody can read: work, or one line."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from other_users import give_away, state

from search_spaces.errors import InputError
from tuner.launch import launch, resume, work
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study

TUNER = [sys.executable, "-m", "tuner"]
StudyFile = Callable[..., Path]


def call(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="surrogateescape",
        env={**os.environ, **environment},
        timeout=300,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str, code: int = 2) -> None:
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert len(lines) == 1 and lines[0].startswith("tuner: error: ") and lines[0].isprintable(), done.stderr
    for part in parts:
        assert part in lines[0], lines[0]


@pytest.fixture
def run(study_file: StudyFile, tmp_path: Path) -> RunFolder:
    return launch(read_study(study_file(search={"trials": 4})), tmp_path / "run")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.timeout(600)
def test_commands_that_read_work_on_a_run_of_another_user_and_leave_no_trace(run: RunFolder, tmp_path: Path) -> None:
    other = [*give_away(run.path), *TUNER]
    before = state(run.path)
    status = call(*other, "status", run.path, "--json")
    assert json.loads(status.stdout)["done"] == 4, status.stderr
    front = call(*other, "front", run.path, "--json")
    number = json.loads(front.stdout)["front"][0]["trial"]
    report = call(*other, "report", run.path)
    assert report.returncode == 0 and report.stdout.rstrip().endswith("</html>")
    assert len(report.stderr.splitlines()) == 1 and "--out FILE" in report.stderr
    assert call(*other, "report", run.path, "--out", tmp_path / "page.html").returncode == 0
    assert (tmp_path / "page.html").read_text() == report.stdout
    assert call(*other, "export", run.path, "--trial", number, "--out", tmp_path / "scheme").returncode == 0
    assert json.loads((tmp_path / "scheme" / "scheme.json").read_text())["trial"] == number
    assert_one_line(call(*other, "resume", run.path), str(run.path), "check its owner")
    port = free_port()
    dashboard = subprocess.Popen([*other, "dashboard", str(run.path), "--port", str(port)])
    try:
        assert json.loads(fetched(f"http://127.0.0.1:{port}/api/studies/1"))["trials"][3]["state"] == "Complete"
    finally:
        dashboard.terminate()
        dashboard.wait()
    assert state(run.path) == before


def fetched(url: str) -> bytes:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return bytes(answer.read())
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def test_what_another_user_keeps_to_himself_is_one_line(run: RunFolder) -> None:
    run.reference.chmod(0)
    other = [*give_away(run.path), *TUNER]
    assert_one_line(call(*other, "status", run.path), "reference.json", "ermission denied")
    run.path.chmod(0)
    try:
        assert_one_line(call(*other, "status", run.path), str(run.path), "is not readable")
    finally:
        run.path.chmod(0o755)


@pytest.mark.parametrize("command", ["status", "front", "report", "resume", "worker", "dashboard", "run", "layers"])
def test_paths_that_lead_nowhere_are_one_line(study_file: StudyFile, tmp_path: Path, command: str) -> None:
    study = study_file(search={"trials": 2})
    (tmp_path / "loop").symlink_to("loop")
    paths = [tmp_path / "loop", tmp_path / "loop" / "run", tmp_path / ("x" * 300), study / "run"]
    for path in paths if command in ("status", "run") else paths[:1]:
        arguments = [study, "--run", path] if command == "run" else [path]
        done = call(*TUNER, command, *arguments)
        assert_one_line(done)


PLAIN = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}  # file names are UTF-8 there, what is printed is not


def test_a_terminal_of_ascii_gets_escapes(study_file: StudyFile, tmp_path: Path) -> None:
    """The whole way, from a study file to its report."""
    study_file(search={"trials": 3})
    folder = tmp_path / "räume"
    folder.mkdir()
    for name in ("study.yaml", "model.onnx", "replay.json"):
        shutil.copyfile(tmp_path / name, folder / name)
    done = call(*TUNER, "run", folder / "study.yaml", "--run", folder / "run", **PLAIN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.isascii() and "Traceback" not in done.stderr
    for command in ("status", "front", "report"):
        shown = call(*TUNER, command, folder / "run", **PLAIN)
        assert shown.returncode == 0 and shown.stdout.isascii(), shown.stderr
    assert "</html>" in (folder / "run" / "report.html").read_text()
    assert call(*TUNER, "resume", folder / "run", "--trials", 4, **PLAIN).returncode == 0


def test_a_path_that_is_no_utf_8_is_refused_before_any_work(run: RunFolder, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xe4")
    assert_one_line(call(*TUNER, "run", tmp_path / "study.yaml", "--run", odd, **PLAIN), r"\udce4")
    assert not odd.exists()
    run.path.rename(odd)
    for command in ("status", "resume", "worker"):
        assert_one_line(call(*TUNER, command, odd, **PLAIN), r"\udce4")


def test_a_reader_that_leaves_is_no_error(run: RunFolder) -> None:
    for name in ("front", "report"):
        last = "--out -" if name == "report" else ""
        script = f"{sys.executable} -m tuner {name} {run.path} {last} | head -c 10; echo ${{PIPESTATUS[0]}}"
        done = call("bash", "-c", script)
        assert not done.stderr, done.stderr
        assert done.stdout.strip()[-1] == "0", done.stdout
    closed = call("bash", "-c", f"{sys.executable} -m tuner status {run.path} >&- 2>&-")
    assert closed.returncode == 0 and not closed.stdout
    full = call("bash", "-c", f"{sys.executable} -m tuner status {run.path} > /dev/full")
    assert_one_line(full, "no space left", code=5)


def test_too_many_open_files_is_one_line(run: RunFolder) -> None:
    done = call("bash", "-c", f"ulimit -n 24; {sys.executable} -m tuner status {run.path}")
    if done.returncode:  # as many as it takes, on a system where that is few
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_who_goes_on_with_a_run_makes_no_database_elsewhere(study_file: StudyFile, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.db"
    run = launch(read_study(study_file(search={"trials": 2}, storage=f"sqlite:///{elsewhere}")), tmp_path / "run")
    elsewhere.unlink()
    for go_on in (lambda: resume(run.path, trials=3), lambda: work(run.path)):
        with pytest.raises(InputError, match=r"elsewhere\.db': no such file; restore it"):
            go_on()
    assert not elsewhere.exists()
