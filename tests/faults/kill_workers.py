"""Kills workers at random moments and counts what a study lost, repeated or left running.

Workers are forked from this process and run `tuner.launch.work` as `tuner worker` does. Each is killed by SIGKILL after
a random time and replaced, until the study is done; then the next study begins, until enough were killed. What is
counted: see `audited`.

    python tests/faults/kill_workers.py --kills 1000 [--postgres] [--workers 4]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from audited import Tally, audit, forked, harmed, parser_of, prepare, report

from tuner.launch import work


def harass(run: Path, workers: int, draw: random.Random, kills: int, longest: float) -> int:
    """Runs workers and kills each after a random time, until they find nothing to do or enough were killed."""
    died = 0
    ends: dict[int, float] = {}
    idle = 0
    while idle < workers:
        while len(ends) + idle < workers:
            ends[forked(lambda: work(run), run / "workers.log")] = time.monotonic() + draw.uniform(0.0, longest)
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
    draw, tally = random.Random(seed), Tally()

    def harm(place: Path, name: str, tally: Tally) -> None:
        run = prepare(place, name, trials, delay, storage)
        tally.kills += harass(run, workers, draw, kills - tally.kills, longest)
        audit(run, trials, tally)

    harmed(folder, kills, harm, tally, show)
    return tally


if __name__ == "__main__":
    parser = parser_of(__doc__, 1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    own = {"workers": options.workers, "trials": options.trials, "seed": options.seed, "show": True}
    sys.exit(report(options, lambda place, storage: kill_workers(place, options.kills, storage=storage, **own)))
