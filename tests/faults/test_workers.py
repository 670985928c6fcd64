"""Several workers on one study: nothing lost, nothing twice, nothing left running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import psutil
import pytest
from audited import prepare
from kill_workers import kill_workers

from tuner.launch import resume
from tuner.results.loaded import load_run
from tuner.search.loop import open_trials
from tuner.search.trials import MAX_RETRIES, counted
from tuner.search.worker_locks import FileLocks
from tuner.study.run_folder import RunFolder
from tuner.study.storage import open_storage

TUNER = [sys.executable, "-m", "tuner"]


@pytest.mark.timeout(240)
def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    tally = kill_workers(tmp_path / "kills", 50, trials=60, longest=0.8, seed=os.getpid())
    assert tally.kills == 50 and tally.acknowledged >= 50
    assert (tally.lost, tally.twice, tally.running, tally.unsound) == (0, 0, 0, 0)


def test_workers_share_a_study_without_repeating(tmp_path: Path) -> None:
    path = prepare(tmp_path / "study", "shared", 30, 0.02, None)
    done = subprocess.run([*TUNER, "resume", path, "--workers", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = load_run(path)
    assert counted(loaded.records) == 30 and {record.state for record in loaded.records} == {"COMPLETE"}
    assert max(Counter(record.allocation.digest for record in loaded.records).values()) == 1
    events = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert len({event["worker"] for event in events if event["event"] == "evaluating"}) >= 3


def test_a_killed_worker_is_replaced_and_signals_end_all(tmp_path: Path) -> None:
    path = prepare(tmp_path / "study", "killed", 500, 0.2, None)
    process = subprocess.Popen([*TUNER, "resume", path, "--workers", "2"], stderr=subprocess.PIPE, text=True)
    first = _workers(process.pid, 2)
    os.kill(first[0], signal.SIGKILL)
    _until(lambda: len(set(_workers(process.pid, 2)) - set(first)) == 1)
    children = _workers(process.pid, 2)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in errors
    assert not any(psutil.pid_exists(pid) for pid in children)
    states = Counter(record.state for record in load_run(path).records)
    assert states["RUNNING"] == 0 and states["WAITING"] >= 1


def test_a_scheme_that_kills_its_workers_is_given_up_after_two_retries(tmp_path: Path) -> None:
    path = prepare(tmp_path / "study", "deadly", 5, 0.0, None)
    run = resume(path, trials=25)  # past the seeds: a scheme that is queued again comes first
    for _ in range(MAX_RETRIES + 1):
        locks = FileLocks(run.workers)
        trials = _trials(run, locks)
        with locks.turn():
            trials.settle(locks.alive)
            trial, allocation = trials.ask()
            trial.set_constraint("broken", 1.0)  # the worker dies while it tells
        locks.close()
    queued = [r for r in load_run(path).records if r.allocation == allocation]
    assert [record.state for record in queued] == ["FAIL"] * MAX_RETRIES + ["RUNNING"]
    resume(path, trials=26)
    last = [record for record in load_run(path).records if record.allocation == allocation]
    assert [record.failure.kind for record in last] == ["interrupted"] * MAX_RETRIES + ["lost"]


def test_a_requeued_trial_carries_no_stale_judgement(tmp_path: Path) -> None:
    path = prepare(tmp_path / "study", "stale", 4, 0.0, None)
    run = resume(path, trials=25)
    locks = FileLocks(run.workers)
    trials = _trials(run, locks)
    with locks.turn():
        trial, allocation = trials.ask()
    trial.set_constraint("min_map", 99.0)
    locks.close()
    resume(path, trials=26)
    again = next(r for r in load_run(path).records if r.allocation == allocation and r.state == "COMPLETE")
    assert _trials(run, locks).study.trials[again.number].constraints["min_map"] < 1


def test_a_living_worker_is_left_alone(tmp_path: Path) -> None:
    path = prepare(tmp_path / "study", "alive", 9, 0.0, None)
    run = RunFolder(path)
    mine, other = FileLocks(run.workers), FileLocks(run.workers)
    with mine.turn():
        trial, _ = _trials(run, mine).ask()
    with other.turn():
        assert _trials(run, other).settle(other.alive) == (0, 0)
    mine.close()
    with other.turn():
        assert _trials(run, other).settle(other.alive) == (0, 1)
    assert _trials(run, other).study.trials[trial.number].state is optuna.trial.TrialState.FAIL
    other.close()


def _trials(run: RunFolder, locks: FileLocks):
    from tuner.study.inputs import read_inputs
    from tuner.study.study_file import read_study

    inputs = read_inputs(read_study(run.study_file))
    return open_trials(run, inputs=inputs, storage=open_storage(run.database), locks=locks)


def _workers(parent: int, count: int) -> list[int]:
    found: list[int] = []

    def enough() -> bool:
        found.clear()
        for child in psutil.Process(parent).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile, or a zombie
                found.extend([child.pid] * ("worker" in child.cmdline()))
        return len(found) == count

    _until(enough)
    return found


def _until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
