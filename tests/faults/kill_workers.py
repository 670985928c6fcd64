"""Kills workers at random moments and counts what a study lost, repeated or left running.

Workers are forked from this process, which has imported everything already, and run `tuner.launch.work` as
`tuner worker` does. Each is killed by SIGKILL after a random time and replaced, until the study is done; then the next
study begins, until enough were killed. From the event log, the run folder and the storage it is then counted:

- lost: acknowledged evaluations (logged as done) without a COMPLETE trial of the same scores;
- twice: evaluations of a scheme that begin after one of the same scheme was acknowledged, or COMPLETE trials of a
  scheme beyond the first;
- running: RUNNING trials after the resume;
- unsound: SQLite databases that fail `PRAGMA integrity_check`.

    python tests/faults/kill_workers.py --kills 1000 [--storage postgresql+psycopg://...] [--workers 4]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

# The root before tests/: the folder tests/tuner must never be taken for the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from chain_model import chain

from objectives.scores import Scores
from tuner.launch import launch, resume, work
from tuner.results.loaded import load_run
from tuner.search.trials import counted
from tuner.study.study_file import read_study


@dataclass
class Tally:
    """What the kills did."""

    kills: int = 0
    studies: int = 0
    acknowledged: int = 0
    lost: int = 0
    twice: int = 0
    running: int = 0
    unsound: int = 0
    given_up: int = 0
    seconds: float = 0.0


def fork_worker(run: Path) -> int:
    """Starts a worker in a copy of this process; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        output = os.open(run / "workers.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work(run)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def write_study(folder: Path, name: str, trials: int, delay: float, storage: str | None) -> Path:
    """Writes the file of a study of replayed scores, and its model."""
    folder.mkdir(parents=True)
    chain(folder / "model.onnx", 8)
    (folder / "replay.json").write_text(json.dumps({"delay": delay}))
    study = {
        "name": name,
        "model": {"path": "model.onnx"},
        "runtime": {"name": "replay", "file": "replay.json"},
        "constraints": {"min_map": 0.3},
        "search": {"trials": trials, "sampler": "random"},
        "storage": storage,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder / "study.yaml"


def prepare(folder: Path, name: str, trials: int, delay: float, storage: str | None) -> Path:
    """Starts a study of replayed scores with one trial, and raises its goal for the workers to come."""
    run = launch(read_study(write_study(folder, name, 1, delay, storage)), folder / "run")
    manifest = json.loads(run.manifest.read_text())
    run.manifest.write_text(json.dumps({**manifest, "trials": trials}))
    return run.path


def harass(run: Path, workers: int, draw: random.Random, kills: int, longest: float) -> int:
    """Runs workers and kills each after a random time, until they find nothing to do or enough were killed."""
    died = 0
    ends: dict[int, float] = {}
    idle = 0
    while idle < workers:
        while len(ends) + idle < workers:
            ends[fork_worker(run)] = time.monotonic() + draw.uniform(0.0, longest)
        time.sleep(0.002)
        for pid, end in list(ends.items()):
            finished, status = os.waitpid(pid, os.WNOHANG)
            if not finished and time.monotonic() >= end and died < kills:
                os.kill(pid, signal.SIGKILL)
                finished, status = os.waitpid(pid, 0)
                died += os.WIFSIGNALED(status)
            if finished:
                del ends[pid]
                if os.WIFEXITED(status):
                    if os.WEXITSTATUS(status) != 0:
                        raise RuntimeError(f"a worker failed: {(run / 'workers.log').read_text()[-2000:]}")
                    idle += 1
    return died


def audit(run: Path, trials: int, tally: Tally) -> None:
    """Resumes the study and counts what is wrong with it."""
    resume(run, trials=trials)
    loaded = load_run(run)
    states = Counter(record.state for record in loaded.records)
    assert counted(loaded.records) >= trials, (counted(loaded.records), trials)
    tally.running += states["RUNNING"]
    told = {r.allocation.digest: r.scores for r in loaded.records if r.scores is not None}
    tally.twice += sum(r.scores is not None for r in loaded.records) - len(told)
    tally.given_up += sum(r.failure is not None and r.failure.kind == "lost" for r in loaded.records)
    failed = {r.allocation.digest for r in loaded.records if r.failure is not None}
    acknowledged: set[str] = set()
    for line in (run / "log.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "evaluating":
            tally.twice += event["digest"] in acknowledged
        elif event["event"] == "evaluated":
            tally.twice += event["digest"] in acknowledged
            acknowledged.add(event["digest"])
            scores = told.get(event["digest"])
            same = isinstance(scores, Scores) and scores.accuracy.map_50_95 == event.get("map_50_95")
            tally.lost += not (same or ("map_50_95" not in event and event["digest"] in failed))
    for path in (run / "cache" / "evaluations").glob("*.json"):  # durable, though the worker died before it said so
        tally.lost += path.stem not in told and "scores" in json.loads(path.read_text())
    tally.acknowledged += len(acknowledged)
    database = run / "study.db"
    if database.is_file():
        connection = sqlite3.connect(database)
        tally.unsound += connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok"
        connection.close()


def kill_workers(
    folder: Path,
    kills: int,
    *,
    workers: int = 4,
    trials: int = 60,
    delay: float = 0.02,
    longest: float = 2.0,
    storage: str | None = None,
    seed: int = 0,
    show: bool = False,
) -> Tally:
    """Kills so many workers of as many studies as it takes.

    Args:
        folder: Where the studies are made.
        kills: SIGKILLs.
        workers: Alive at once.
        trials: Of each study.
        delay: Seconds that an evaluation takes.
        longest: A worker lives for up to so many seconds.
        storage: Of the studies; SQLite in their folders by default.
        seed: Of the moments.
        show: Whether to print each study's figures.
    """
    tally, draw, start = Tally(), random.Random(seed), time.monotonic()
    while tally.kills < kills:
        run = prepare(folder / str(tally.studies), f"{folder.name}-{tally.studies}", trials, delay, storage)
        tally.kills += harass(run, workers, draw, kills - tally.kills, longest)
        audit(run, trials, tally)
        tally.studies += 1
        tally.seconds = round(time.monotonic() - start, 1)
        if show:
            print(json.dumps(asdict(tally)), file=sys.stderr, flush=True)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--storage")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as scratch:
        found = kill_workers(
            Path(scratch) / Path(scratch).name,
            options.kills,
            workers=options.workers,
            trials=options.trials,
            storage=options.storage,
            seed=options.seed,
            show=True,
        )
    print(json.dumps(asdict(found)))
