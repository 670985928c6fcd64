"""Kills whole commands at the moments that matter, and counts what a study lost, repeated or left behind.

`tuner run` and `tuner resume` are forked from this process and killed by SIGKILL once they reach what `--aim` names:

- creation: the folder, its database and its manifest are being made;
- preparation: reference, sensitivity and seeds;
- results: the front, its exports and the report are being written;
- resume: anything of a study that was begun before;
- two: a second command works on, or waits for, the same run at the same time.

Each study is then resumed to its end. What is counted: see `audited`.

    python tests/faults/kill_commands.py --kills 200 [--aim creation ...] [--postgres]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from audited import Tally, audit, forked, harmed, parser_of, report, write_study

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


def begin(study: Path, run: Path) -> None:
    """What a person would: `tuner run`, or `tuner resume` where there is a run."""
    if (run / "study.yaml").exists():
        resume(run, trials=TRIALS)
    else:
        launch(read_study(study), run)


def killed(study: Path, run: Path, aim: str, draw: random.Random) -> int:
    """Starts what the aim asks for and kills it; returns how many kills met a living process."""
    mark, window = AIMS[aim]
    before = _stamp(run / mark) if mark else 0
    log = study.with_name("commands.log")
    started = [forked(lambda: begin(study, run), log) for _ in range(2 if aim == "two" else 1)]
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
) -> Tally:
    """Kills so many commands of as many studies as it takes, a few of each.

    Args:
        folder: Where the studies are made.
        kills: SIGKILLs.
        aims: In turn.
        storage: Of the studies; SQLite in their folders by default.
        seed: Of the moments.
        show: Whether to print each study's figures.
    """
    draw, tally = random.Random(seed), Tally()

    def harm(place: Path, name: str, tally: Tally) -> None:
        study, run = write_study(place, name, TRIALS, 0.01, storage), place / "run"
        for _ in range(draw.randint(2, 6)):
            tally.kills += killed(study, run, aims[tally.studies % len(aims)], draw)
        if not run.exists():
            try:
                launch(read_study(study), run)
            except InputError as error:
                tally.unresumable += 1
                print(f"{run}: {error}", file=sys.stderr, flush=True)
                return
        audit(run, TRIALS, tally)

    harmed(folder, kills, harm, tally, show)
    return tally


if __name__ == "__main__":
    parser = parser_of(__doc__, 200)
    parser.add_argument("--aim", nargs="*", choices=list(AIMS), default=list(AIMS))
    options = parser.parse_args()
    own = {"seed": options.seed, "show": True}
    sys.exit(report(options, lambda place, url: kill_commands(place, options.kills, options.aim, storage=url, **own)))
