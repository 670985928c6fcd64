"""Sends SIGTERM to `tuner run` and `tuner resume` at random moments of a replayed study, and counts what went wrong.

A study is run with one or two workers until a signal ends it, resumed until the next one does, and so on until it is
done; then the next study begins, until enough signals were sent. Most moments are counted from when the command is at
work, the others from its start, when it imports and reads its inputs. Each signal must end the command:

- in 5 s, with exit code 143, or by the signal itself while the command is not at work yet;
- without a traceback, in its own words and in its workers';
- with no trial left RUNNING, and no process left behind.

At the end of each study, `audited.audit` counts the acknowledged evaluations that were lost or repeated.

    python tests/faults/sigterm.py --signals 30 --seed 1
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from audited import Tally, audit, harmed, write_study

from search_spaces.errors import InputError
from tuner.results.loaded import load_run

END_SECONDS = 5.0


@dataclass
class Signals(Tally):
    """What the signals did; `kills` are those that were sent to a command that had not ended.

    Attributes:
        coded: Commands that ended with 143.
        killed: Commands that the signal itself ended, before they were at work.
        wrong: What each of the others did.
        longest: Seconds from a signal to the end of its command.
    """

    coded: int = 0
    killed: int = 0
    wrong: list[str] = field(default_factory=list)
    longest: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not self.wrong and super().clean

    def row(self) -> str:
        """One line of a Markdown table, with its head."""
        cells = {
            "SIGTERMs": self.kills,
            "exit 143": self.coded,
            "ended by the signal": self.killed,
            "anything else": len(self.wrong),
            "longest end, s": f"{self.longest:.1f}",
            "left RUNNING": self.running,
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "evaluated twice": self.twice,
            "studies": self.studies,
        }
        lines = (cells.keys(), ["---"] * len(cells), map(str, cells.values()))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def terminate(study: Path, run: Path, draw: random.Random, at_work: bool, longest: float, found: Signals) -> bool:
    """Starts or resumes a study and ends it after up to so many seconds; returns whether it was done before."""
    after, workers, sittings = draw.uniform(0, longest), draw.choice((1, 2)), starts(run)
    subject = ["resume", run] if run.exists() else ["run", study, "--run", run]
    command = [sys.executable, "-m", "tuner", *subject, "--workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while at_work and process.poll() is None and starts(run) == sittings:
            time.sleep(0.01)
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        children = psutil.Process(process.pid).children(recursive=True)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        seconds = time.monotonic() - begin
    else:
        if process.returncode:
            raise RuntimeError(f"{command} failed: {said[-2000:]}") from None
        return True
    where = f"{subject[0]} with {workers} worker(s), {after:.3f} s after its {'work began' if at_work else 'start'}"
    if process.returncode == 0 and seconds < END_SECONDS:  # it had done its work when the signal came
        return True
    found.kills += 1
    found.coded += process.returncode == 128 + signal.SIGTERM
    found.killed += process.returncode == -signal.SIGTERM
    found.longest = max(found.longest, seconds)
    if process.returncode not in (128 + signal.SIGTERM, -signal.SIGTERM):
        found.wrong.append(f"{where}: exit code {process.returncode}: {said[-500:]}")
    if seconds > END_SECONDS:
        found.wrong.append(f"{where}: took {seconds:.1f} s to end")
    for text in (said, *(log.read_text() for log in run.glob("workers/*.log"))):
        if "Traceback" in text:
            found.wrong.append(f"{where}: {text[-1500:]}")
    _, alive = psutil.wait_procs(children, timeout=1)
    if alive:
        found.wrong.append(f"{where}: left behind {[child.pid for child in alive]}")
    left = running(run)
    found.running += left
    if left:
        found.wrong.append(f"{where}: {left} RUNNING")
    return False


def starts(run: Path) -> int:
    """How often a command began to work on a run."""
    log = run / "log.jsonl"
    return log.read_text().count('"event": "start"') if log.exists() else 0


def running(run: Path) -> int:
    """Trials of a run that are RUNNING, as they lie in its storage."""
    try:
        return sum(record.state == "RUNNING" for record in load_run(run).records)
    except InputError:  # ended before it had a study
        return 0


def sigterms(
    folder: Path, count: int, *, trials: int = 40, longest: float = 6.0, share: float = 0.8, seed: int = 0
) -> Signals:
    """Sends so many signals to the commands of as many studies as it takes.

    Args:
        folder: Where the studies are made.
        count: Signals.
        trials: Of each study.
        longest: A command is let live, or work, for up to so many seconds.
        share: Of the signals that wait until the command is at work.
        seed: Of the moments.
    """
    found, draw = Signals(), random.Random(seed)

    def harm(place: Path, name: str, _: Tally) -> None:
        study, run = write_study(place, name, trials, 0.1, None), place / "run"
        while found.kills < count and not terminate(study, run, draw, draw.random() < share, longest, found):
            print(f"{found.kills} signals", *found.wrong[-1:], file=sys.stderr, flush=True)
        if run.exists():
            audit(run, trials, found)

    harmed(folder, count, harm, found)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sigterm-") as scratch:
        result = sigterms(Path(scratch) / Path(scratch).name, options.signals, seed=options.seed)
    print(*result.wrong, sep="\n", file=sys.stderr)
    print(result.row())
    sys.exit(int(not result.clean))
