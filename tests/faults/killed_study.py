"""Kills a real study on PostgreSQL, resumes it, and compares its front with a replay of its trials.

Each kill takes the command and all its processes at once by SIGKILL, at a random moment after so many more trials. At
the end `audited.audit` counts the acknowledged trials that were lost, evaluated twice or left RUNNING. The replay
is an Optuna study in memory, told the scores that the run folder kept for every scheme: its best trials must be the
measured front that the data base gives.

    python tests/faults/killed_study.py STUDY.yaml --run DIR [--trials 20] [--workers 2] [--kills 2] [--seed 1]

Without ``--storage URL`` a PostgreSQL server of its own serves the study and is gone afterwards.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import optuna
import psutil
from audited import Tally, audit
from optuna.trial import create_trial
from private_postgres import private_postgres

from objectives.scores import Scores
from tuner.results.loaded import LoadedRun, load_run
from tuner.search.front import front_of
from tuner.search.trials import directions


def scored(run: Path) -> int:
    """Evaluations that the run folder keeps."""
    return len(list((run / "cache" / "evaluations").glob("*.json")))


def sitting(arguments: list[str], run: Path, until: int | None, longest: float, draw: random.Random) -> bool:
    """Runs a command; kills it and its processes once so many trials are scored, and a while later.

    Returns:
        Whether it was killed; False where it came to its own end.
    """
    process = subprocess.Popen([sys.executable, "-m", "tuner", *arguments])
    while process.poll() is None and (until is None or scored(run) < until):
        time.sleep(0.05)
    if process.poll() is None:
        time.sleep(draw.uniform(0, longest))
    if process.poll() is None:
        everybody = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for each in everybody:
            each.kill()
        psutil.wait_procs(everybody)
        print(f"killed {len(everybody)} processes at {scored(run)} scored", flush=True)
        return True
    if process.returncode:
        sys.exit(f"{arguments} ended with {process.returncode}")
    return False


def measured_front(loaded: LoadedRun) -> set[str]:
    """Digests of the front by the scores that the storage holds, before any is measured again."""
    assert loaded.reference is not None
    config = loaded.config
    members = front_of(loaded.records, config.objective_set, loaded.reference)
    return {member.record.allocation.digest for member in members}


def replayed_front(loaded: LoadedRun) -> set[str]:
    """Digests of the best trials of an Optuna study that is told what the run folder kept of each feasible scheme."""
    objectives = loaded.config.objective_set
    study = optuna.create_study(directions=directions(objectives))
    for digest, allocation in {record.allocation.digest: record.allocation for record in loaded.records}.items():
        found = loaded.run.evaluation(allocation)
        if isinstance(found, Scores) and objectives.feasible(found):
            values = objectives.values(found)
            study.add_trial(create_trial(values=values, user_attrs={"digest": digest}))
    return {trial.user_attrs["digest"] for trial in study.best_trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--longest", type=float, default=10.0, help="seconds after the last awaited trial, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--storage", help="URL of a server; else one of its own")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draw, goal = random.Random(options.seed), ["--trials", str(options.trials), "--workers", str(options.workers)]
    with nullcontext(options.storage) if options.storage else private_postgres() as storage:
        command = ["run", str(options.study), "--run", str(options.run), *goal, "--set", f"storage={storage}"]
        kills = 0
        for number in range(options.kills):
            until = (number + 1) * options.trials // (options.kills + 1)
            kills += sitting(command, options.run, until, options.longest, draw)
            command = ["resume", str(options.run), *goal]
        sitting(command, options.run, None, 0, draw)
        tally = Tally()
        audit(options.run, options.trials, tally)
        loaded = load_run(options.run)
        front, replayed = measured_front(loaded), replayed_front(loaded)
    print(
        f"kills {kills}, acknowledged {tally.acknowledged}, lost {tally.lost}, evaluated twice {tally.twice}, "
        f"RUNNING {tally.running}; measured front {len(front)} schemes, replayed {len(replayed)}, "
        f"{'equal' if front == replayed else f'different: {sorted(front ^ replayed)}'}"
    )
    if not tally.clean or front != replayed:
        sys.exit(1)


if __name__ == "__main__":
    main()
