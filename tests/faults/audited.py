"""Studies of replayed scores that a script harms, and the count of what each lost, repeated or left behind.

What harms them is the script's: `kill_workers`, `kill_commands` and `sigterm` share all else. From the event log, the
run folder and the storage it is counted, once a study has been resumed to its end:

- lost: acknowledged evaluations (logged as done) without a COMPLETE trial of the same scores;
- twice: evaluations of a scheme that begin after one of the same scheme was acknowledged, or COMPLETE trials of a
  scheme beyond the first;
- running: RUNNING trials after the resume;
- unsound: SQLite databases that fail `PRAGMA integrity_check`;
- unresumable: a folder that is there and cannot be resumed, or one that a launch left and no other can be made in.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

# The root before tests/: the folder tests/tuner must never be taken for the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import yaml
from chain_model import chain
from private_postgres import private_postgres

from objectives.scores import Scores
from search_spaces.errors import InputError
from tuner.launch import launch, resume
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
    unresumable: int = 0
    given_up: int = 0
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.lost or self.twice or self.running or self.unsound or self.unresumable)


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


def forked(work: Callable[[], object], log: Path) -> int:
    """Starts work in a copy of this process, which has imported everything already; returns its process id.

    Its words go to `log`. It ends with 0, with 2 where it refused, as of another command on the same run, else with 1.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work()
        code = 0
    except InputError as error:
        print(f"refused: {error}", file=sys.stderr)
        code = 2
    finally:
        sys.stderr.flush()
        os._exit(code)


def audit(run: Path, trials: int, tally: Tally) -> None:
    """Resumes the study and counts what is wrong with it."""
    try:
        resume(run, trials=trials)
        loaded = load_run(run)
    except (InputError, OSError) as error:
        tally.unresumable += 1
        print(f"{run}: {error}", file=sys.stderr, flush=True)
        return
    if (done := counted(loaded.records)) < trials:
        tally.unresumable += 1
        print(f"{run}: {done} of {trials} trials", file=sys.stderr, flush=True)
    states = Counter(record.state for record in loaded.records)
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


def harmed(
    folder: Path, kills: int, harm: Callable[[Path, str, Tally], None], tally: Tally, show: bool = False
) -> None:
    """Harms as many studies as it takes, each in a folder and under a name of its own.

    Args:
        folder: Where the studies are made.
        kills: In all.
        harm: Makes, harms and audits the study of a folder and a name; counts in the tally.
        tally: Of all studies.
        show: Whether to print the figures after each study.
    """
    start = time.monotonic()
    while tally.kills < kills:
        harm(folder / str(tally.studies), f"{folder.name}-{tally.studies}", tally)
        tally.studies += 1
        tally.seconds = round(time.monotonic() - start, 1)
        if show:
            print(json.dumps(asdict(tally)), file=sys.stderr, flush=True)


def parser_of(text: str | None, kills: int) -> argparse.ArgumentParser:
    """The options that all such scripts have, under the script's own description."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", help="URL of a server; SQLite in the studies' folders by default")
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL server of the script's own")
    parser.add_argument("--keep", type=Path, help="where the studies are made; else a folder that is removed")
    return parser


def report(options: argparse.Namespace, harm: Callable[[Path, str | None], Tally]) -> int:
    """Runs a script's work on a folder and a storage, prints its tally; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="kill-") as scratch:
        place = (options.keep or Path(scratch)).absolute() / Path(scratch).name
        with private_postgres() if options.postgres else nullcontext(options.storage) as storage:
            found = harm(place, storage)
    print(json.dumps(asdict(found)))
    return int(not found.clean)
