"""Kills whole commands at the moments that matter, and counts what a study lost, repeated or left behind.

`tuner run` and `tuner resume` are forked from this process and killed by SIGKILL once they reach what `--aim` names:

- creation: the folder, its database and its manifest are being made;
- preparation: reference, sensitivity and seeds;
- results: the front, its exports and the report are being written;
- resume: anything of a study that was begun before;
- two: a second command works on, or waits for, the same run at the same time.

Each study is then resumed to its end, and audited as `kill_workers` audits it. Besides, counted:

- unresumable: a folder that is there and cannot be resumed, or a launch that leaves a folder no other can be made in.

    python tests/faults/kill_commands.py --kills 200 [--aim creation ...] [--storage postgresql+psycopg://...]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

# The root before tests/: the folder tests/tuner must never be taken for the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kill_workers import Tally, audit, write_study

from search_spaces.errors import InputError
from tuner.launch import launch, resume
from tuner.study.study_file import read_study

#: File of a run whose appearance begins what an aim names; a command is killed within so many seconds of it.
AIMS = {
    "creation": ("", 0.3),
    "preparation": ("manifest.json", 0.15),
    "results": ("front.json", 0.4),
    "resume": ("log.jsonl", 0.8),
    "two": ("study.yaml", 0.6),
}
TRIALS = 8


@dataclass
class Aimed(Tally):
    """As of `kill_workers`, and what a killed command leaves behind."""

    unresumable: int = 0


def fork_command(folder: Path, study: Path, run: Path) -> int:
    """Starts what a person would: `tuner run`, or `tuner resume` where there is a run; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        output = os.open(folder / "commands.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if (run / "study.yaml").exists():
            resume(run, trials=TRIALS)
        else:
            launch(read_study(study), run)
        code = 0
    except InputError as error:  # as of the other command of two
        print(f"refused: {error}", file=sys.stderr)
        code = 2
    finally:
        sys.stderr.flush()
        os._exit(code)


def killed(folder: Path, study: Path, run: Path, aim: str, draw: random.Random) -> int:
    """Starts what the aim asks for and kills it; returns how many kills met a living process."""
    mark, window = AIMS[aim]
    before = _stamp(run / mark) if mark else 0
    started = [fork_command(folder, study, run) for _ in range(2 if aim == "two" else 1)]
    end = time.monotonic() + 60
    while mark and _stamp(run / mark) == before and time.monotonic() < end and _living(started):
        time.sleep(0.001)
    time.sleep(draw.uniform(0, window))
    met = 0
    for pid in started if draw.random() < 0.7 else started[:1]:
        os.kill(pid, signal.SIGKILL)
    for pid in started:
        _, status = os.waitpid(pid, 0)
        met += os.WIFSIGNALED(status)
    return met


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _living(pids: list[int]) -> bool:
    return any(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for pid in pids)


def kill_commands(
    folder: Path, kills: int, aims: list[str], *, storage: str | None = None, seed: int = 0, show: bool = False
) -> Aimed:
    """Kills so many commands of as many studies as it takes, a few of each.

    Args:
        folder: Where the studies are made.
        kills: SIGKILLs.
        aims: In turn.
        storage: Of the studies; SQLite in their folders by default.
        seed: Of the moments.
        show: Whether to print each study's figures.
    """
    tally, draw, start = Aimed(), random.Random(seed), time.monotonic()
    while tally.kills < kills:
        aim = aims[tally.studies % len(aims)]
        place = folder / str(tally.studies)
        study = write_study(place, f"{folder.name}-{tally.studies}", TRIALS, 0.01, storage)
        run = place / "run"
        for _ in range(draw.randint(2, 6)):
            tally.kills += killed(place, study, run, aim, draw)
        try:
            if not run.exists():
                launch(read_study(study), run)
            audit(run, TRIALS, tally)
        except (InputError, AssertionError, OSError) as error:
            tally.unresumable += 1
            print(f"{aim}: {place}: {error}", file=sys.stderr, flush=True)
        tally.studies += 1
        tally.seconds = round(time.monotonic() - start, 1)
        if show:
            print(aim, json.dumps(asdict(tally)), file=sys.stderr, flush=True)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--aim", nargs="*", choices=list(AIMS), default=list(AIMS))
    parser.add_argument("--storage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Where the studies are made; by default a folder that is removed.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as scratch:
        place = (options.keep or Path(scratch)).absolute()
        found = kill_commands(
            place / f"{Path(scratch).name}", options.kills, options.aim,
            storage=options.storage, seed=options.seed, show=True,
        )  # fmt: skip
    print(json.dumps(asdict(found)))
    sys.exit(any((found.lost, found.twice, found.running, found.unsound, found.unresumable)))
