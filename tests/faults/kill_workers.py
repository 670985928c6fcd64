"""Kills workers at random moments and counts what a study lost, repeated or left running.

Workers are forked from this process and run `tuner.launch.work` as `tuner worker` does. Each is killed by SIGKILL and
replaced, until the study is done; then the next study begins, until enough were killed. A worker lives for a random
time of its processor, and for a random moment more, in which it may be waiting: so it gets as far on a busy machine as
on an idle one. What is counted: see `audited`.

    python tests/faults/kill_workers.py --kills 1000 [--postgres] [--workers 4]
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from audited import Tally, audit, forked, harmed, parser_of, prepare, report

from tuner.launch import work

_MOMENT_SECONDS = 0.05


@dataclass
class Life:
    """A worker, and when it is to be killed."""

    seconds: float
    moment: float
    end: float = math.inf

    def over(self, pid: int) -> bool:
        """Whether it is time; it ends a moment after it has used its share of the processor."""
        if self.end == math.inf and processor_seconds(pid) >= self.seconds:
            self.end = time.monotonic() + self.moment
        return time.monotonic() >= self.end


def processor_seconds(pid: int) -> float:
    """What a process of ours, which is not waited for yet, has used so far."""
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


def harass(run: Path, workers: int, draw: random.Random, kills: int, longest: float) -> int:
    """Runs workers and kills each after a random time, until they find nothing to do or enough were killed."""
    died = 0
    lives: dict[int, Life] = {}
    idle = 0
    while idle < workers:
        while len(lives) + idle < workers:
            life = Life(draw.uniform(0.0, longest), draw.uniform(0.0, _MOMENT_SECONDS))
            lives[forked(lambda: work(run), run / "workers.log")] = life
        time.sleep(0.005)
        for pid, life in list(lives.items()):
            finished, status = os.waitpid(pid, os.WNOHANG)
            if not finished and died < kills and life.over(pid):
                os.kill(pid, signal.SIGKILL)
                finished, status = os.waitpid(pid, 0)
                died += os.WIFSIGNALED(status)
            if finished:
                del lives[pid]
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
    longest: float = 0.8,
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
        longest: A worker lives for up to so many seconds of its processor.
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
